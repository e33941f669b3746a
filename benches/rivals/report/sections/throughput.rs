//! Operations in a second, by the number of threads.

use super::{Panel, section, table};
use crate::{
    lines::{Across, Line, LinePlot, Point, Up},
    markup::Element,
    numbers::{grouped, plain},
    results::{Absent, Results, Run, Spread, Timing},
    steps::Step,
};

pub(crate) const ID: &str = "throughput";

/// The numbers of keys that hits are measured with.
pub(crate) const HIT_KEYS: [usize; 2] = [1_000, 50_000];

/// The name of a step's workload in its results.
pub(crate) fn workload(step: Step) -> &'static str {
    match step {
        Step::Hit => "hit",
        Step::Miss => "miss",
        Step::Insert => "insert",
        _ => "mixed",
    }
}

pub(crate) fn html(results: &Results) -> Element {
    let small = "How many hits a second, when all keys fit into a core's own cache?";
    let large = "How many hits a second, when they do not?";
    let mixed = "How many lookups a second, with an insert after each miss?";
    let panels = vec![
        panel(results, Step::Hit, Some(HIT_KEYS[0]), "hit-small", small),
        panel(results, Step::Hit, Some(HIT_KEYS[1]), "hit-large", large),
        panel(results, Step::Mixed, None, "mixed", mixed),
        panel(results, Step::Insert, None, "insert", "How many inserts a second into a full cache?"),
        panel(results, Step::Miss, None, "miss", "How many lookups a second of keys that are absent?"),
    ];
    let introduction = "larder's entries have a soft and a hard deadline and belong to a group, and every hit checks \
        them; the rivals' entries have none of that. “larder with” lends the value, where “larder” and the rivals clone it.";
    section(ID, "How does it scale with threads?", introduction, panels)
}

fn panel(results: &Results, step: Step, keys: Option<usize>, id: &str, question: &str) -> Result<Panel, Absent> {
    let (run, mut timings): (Run, Vec<Timing>) = results.of(step, workload(step))?;
    timings.retain(|timing| keys.is_none_or(|keys| timing.keys == keys));
    timings.sort_by_key(|timing| timing.threads);
    let Some(first) = timings.first() else {
        let keys = keys.map_or(String::new(), |keys| grouped(keys as f64));
        return Err(Absent { step, reason: format!("it holds no result with {keys} keys") });
    };
    let names: Vec<&str> = first.contestants.iter().map(|timed| timed.name.as_str()).collect();
    let threads: Vec<String> = timings.iter().map(|timing| timing.threads.to_string()).collect();
    let lines = names.iter().map(|&name| line(name, &timings)).collect();
    let description = format!(
        "Millions of operations a second of {}, with {} threads. The table below has the numbers.",
        names.join(", "),
        threads.join(", ")
    );
    let plot = LinePlot {
        id,
        title: question,
        description: &description,
        x: Across::Categories(threads.clone()),
        x_label: "threads",
        y: Up::FromZero,
        y_label: "million operations a second",
        lines,
    };
    let reading = format!(
        "Higher is better. {} keys; medians of {} rounds, whiskers from the 10th to the 90th percentile.",
        grouped(first.keys as f64),
        first.rounds
    );
    let numbers = numbers(&names, &timings, &first.contestants[0].name);
    Ok(Panel::of_run(&run, step, question.to_owned(), reading, plot.svg(), numbers))
}

fn line(name: &str, timings: &[Timing]) -> Line {
    let point = |(number, timing): (usize, &Timing)| {
        let timed = timing.contestants.iter().find(|timed| timed.name == name)?;
        let Spread { p10, median, p90 } = timed.ns_per_operation;
        let millions_a_second = |ns: f64| 1e3 / ns;
        Some(Point {
            x: number as f64,
            y: millions_a_second(median),
            // The longest times are the lowest throughput.
            whisker: Some((millions_a_second(p90), millions_a_second(p10))),
            hollow: false,
            note: format!("{} ns with {} threads", plain(median), timing.threads),
        })
    };
    Line { name: name.to_owned(), points: timings.iter().enumerate().filter_map(point).collect() }
}

fn numbers(names: &[&str], timings: &[Timing], yardstick: &str) -> Element {
    let headings: Vec<String> =
        timings.iter().flat_map(|timing| [format!("{} thr., ns", timing.threads), "ratio".to_owned()]).collect();
    let rows = names.iter().map(|&name| {
        let cells = timings.iter().flat_map(|timing| {
            let timed = timing.contestants.iter().find(|timed| timed.name == name);
            timed.map_or(["–".to_owned(), "–".to_owned()], |timed| {
                [plain(timed.ns_per_operation.median), format!("{:.2}", timed.ratio_to_first.median)]
            })
        });
        (name.to_owned(), cells.collect())
    });
    let caption = format!("Nanoseconds an operation, and the median of the ratios to {yardstick} within each round");
    table(&caption, &headings, rows.collect())
}
