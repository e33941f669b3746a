//! The questions that the page answers, one a file.

pub(crate) mod hit_ratio;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod remote;
pub(crate) mod throughput;

use crate::{
    markup::{Element, element},
    results::{Absent, Run},
    steps::Step,
};

/// One plot with its numbers: what is asked, how to read it, and how it was measured.
struct Panel {
    question: String,
    /// Which direction is better, and what points and whiskers are.
    reading: String,
    plot: Element,
    table: Element,
    command: String,
    machine: String,
    /// A reason to doubt the figures.
    warning: Option<String>,
}

impl Panel {
    fn of_run(run: &Run, step: Step, question: String, reading: String, plot: Element, table: Element) -> Self {
        let warning = "Built without optimisation: these figures mean nothing.";
        Self {
            question,
            reading,
            plot,
            table,
            command: step.shown(&run.arguments()),
            machine: run.machine(),
            warning: (!run.optimised).then(|| warning.to_owned()),
        }
    }

    fn html(self) -> Element {
        let Self { question, reading, plot, table, command, machine, warning } = self;
        let source = element("p").with("class", "source").child(shown(&command)).text(format!(" on {machine}"));
        element("article")
            .with("class", "panel")
            .child(element("h3").text(question))
            .child(element("p").text(reading))
            .children(warning.map(|warning| element("p").with("class", "warning").text(warning)))
            .child(scrollable("plot", "Plot", plot))
            .child(scrollable("numbers", "Numbers", table))
            .child(source)
    }
}

/// What may be wider than the screen. One who does not use a pointer has to be able to get at it.
pub(crate) fn scrollable(class: &str, name: &str, content: Element) -> Element {
    element("div")
        .with("class", class)
        .with("role", "group")
        .with("aria-label", name)
        .with("tabindex", 0)
        .child(content)
}

/// A section of panels, in which nothing that is missing goes unsaid.
fn section(id: &str, heading: &str, introduction: &str, panels: Vec<Result<Panel, Absent>>) -> Element {
    let panels = panels.into_iter().map(|panel| match panel {
        Ok(panel) => panel.html(),
        Err(absent) => missing(&absent),
    });
    element("section")
        .with("id", id)
        .child(element("h2").text(heading))
        .child(element("p").with("class", "introduction").text(introduction))
        .child(element("div").with("class", "panels").children(panels))
}

fn missing(absent: &Absent) -> Element {
    let Absent { step, reason } = absent;
    let why = element("p").child(element("code").text(step.file())).text(format!(": {reason}."));
    let how = element("p").with("class", "source").child(shown(&step.shown_in_general()));
    element("article").with("class", "panel missing").child(element("h3").text("Not measured")).child(why).child(how)
}

/// A command whose lines break between words alone, and not within options.
pub(crate) fn shown(command: &str) -> Element {
    let words = command.split(' ').map(|word| element("span").text(word));
    words.fold(element("code"), |code, word| code.child(word).text(" "))
}

/// A table of numbers: a row a name, the first column.
fn table(caption: &str, headings: &[String], rows: Vec<(String, Vec<String>)>) -> Element {
    let column = |heading: &str| element("th").with("scope", "col").text(heading);
    let head = element("tr").child(column("")).children(headings.iter().map(|heading| column(heading)));
    let rows = rows.into_iter().map(|(name, cells)| {
        let class = crate::looks::look(&name);
        let class = if class.emphasised { "larder emphasised" } else { class.class };
        element("tr")
            .child(element("th").with("scope", "row").with("class", class).text(name))
            .children(cells.into_iter().map(|cell| element("td").text(cell)))
    });
    element("table")
        .child(element("caption").text(caption))
        .child(element("thead").child(head))
        .child(element("tbody").children(rows))
}
