//! What share of recorded accesses hits, by the size of the cache.

use super::{Panel, section, table};
use crate::{
    bars::{Bar, BarPlot, Group},
    headline::overfull,
    lines::{Across, Line, LinePlot, Point, Up},
    markup::Element,
    numbers::{grouped, identifier, percent},
    results::{Absent, Overall, Policy, Results, Run, Trace},
    steps::Step,
};

pub(crate) const ID: &str = "hit-ratio";
pub(crate) const WORKLOAD: &str = "hit ratio";
pub(crate) const OVERALL: &str = "hit ratio, overall";

pub(crate) fn html(results: &Results) -> Element {
    let step = Step::HitRatio;
    let panels = match results.of::<Trace>(step, WORKLOAD) {
        Err(absent) => vec![Err(absent)],
        Ok((run, traces)) => {
            let each = traces.iter().enumerate().map(|(number, trace)| Ok(of_trace(&run, number, trace)));
            [of_all(results, &traces)].into_iter().chain(each).collect()
        }
    };
    let introduction = "Every access is a lookup, and an insert where it missed, on one thread. Beside the caches stand \
        exact LRU, exact LFU, and the optimum (Belady's, with bypass), which knows the future. moka puts the work of inserts \
        off and holds more than its capacity meanwhile, so it takes part twice: as its users run it, and settled after every \
        insert. A hollow point, or a pale bar, was reached with noticeably more entries than the capacity allows. Axes of single traces need not begin at zero.";
    section(ID, "How much of real traffic does it answer?", introduction, panels)
}

fn of_all(results: &Results, traces: &[Trace]) -> Result<Panel, Absent> {
    let step = Step::HitRatio;
    let (run, overall): (Run, Vec<Overall>) = results.of(step, OVERALL)?;
    let Overall { cells, means, .. } = &overall[0];
    let overfull = overfull(traces);
    let mut means: Vec<_> = means.iter().collect();
    means.sort_by(|a, b| b.hit_ratio.total_cmp(&a.hit_ratio));
    let groups = means.iter().map(|mean| {
        let pale = overfull.contains(&mean.name);
        let bars = vec![Bar { value: mean.hit_ratio, label: format!("{} %", percent(mean.hit_ratio)), pale }];
        Group { name: mean.name.clone(), bars }
    });
    let question = "What share of all accesses hits, on average?";
    let description =
        format!("Mean hit ratio over {cells} cells, from the highest to the lowest. The table has the numbers.");
    let plot = BarPlot { id: "hit-ratio-mean", title: question, description: &description, groups: groups.collect() };
    let rows = means.iter().map(|mean| (mean.name.clone(), vec![format!("{:.2}", 100.0 * mean.hit_ratio)]));
    let caption = format!("Mean hit ratio of {cells} cells, in per cent");
    let table = table(&caption, &["mean".to_owned()], rows.collect());
    let reading = format!(
        "Higher is better. {} traces with caches of 0.1, 1 and 10 % of their distinct keys, and of at least 64 entries: {cells} \
         cells of the same weight.",
        traces.len()
    );
    Ok(Panel::of_run(&run, step, question.to_owned(), reading, plot.svg(), table))
}

fn of_trace(run: &Run, number: usize, trace: &Trace) -> Panel {
    let names: Vec<&str> =
        trace.cells.first().into_iter().flat_map(|cell| &cell.contestants).map(|policy| policy.name.as_str()).collect();
    let question = format!("What share of {} hits?", trace.trace);
    let description = format!(
        "Hit ratio in per cent, by the number of entries of the cache, of {}. The table below has the numbers.",
        names.join(", ")
    );
    // A number as well, since two names may differ in what an identifier cannot have.
    let id = format!("hit-ratio-{number}-{}", identifier(&trace.trace));
    let plot = LinePlot {
        id: &id,
        title: &question,
        description: &description,
        x: Across::Logarithmic,
        x_label: "entries, logarithmic",
        y: Up::FromLowest,
        y_label: "hit ratio, %",
        lines: names.iter().map(|&name| line(name, trace)).collect(),
    };
    let reading = format!(
        "Higher is better. {} requests, {} distinct keys.",
        grouped(trace.requests as f64),
        grouped(trace.distinct as f64)
    );
    let table = numbers(&names, trace);
    Panel::of_run(run, Step::HitRatio, question.clone(), reading, plot.svg(), table)
}

fn of<'t>(name: &str, contestants: &'t [Policy]) -> Option<&'t Policy> {
    contestants.iter().find(|policy| policy.name == name)
}

fn line(name: &str, trace: &Trace) -> Line {
    let points = trace.cells.iter().filter_map(|cell| {
        let policy = of(name, &cell.contestants)?;
        Some(Point {
            x: cell.capacity as f64,
            y: 100.0 * policy.hit_ratio,
            whisker: None,
            hollow: !policy.kept_within_capacity,
            note: format!("{} % with {} entries", percent(policy.hit_ratio), grouped(cell.capacity as f64)),
        })
    });
    Line { name: name.to_owned(), points: points.collect() }
}

fn numbers(names: &[&str], trace: &Trace) -> Element {
    let headings: Vec<String> = trace.cells.iter().map(|cell| grouped(cell.capacity as f64)).collect();
    let rows = names.iter().map(|&name| {
        let cells = trace.cells.iter().map(|cell| {
            of(name, &cell.contestants).map_or("–".to_owned(), |policy| {
                let mark = if policy.kept_within_capacity { "" } else { "°" };
                format!("{}{mark}", percent(policy.hit_ratio))
            })
        });
        (name.to_owned(), cells.collect())
    });
    table("Hit ratio in per cent, by entries; °: held more than the capacity", &headings, rows.collect())
}
