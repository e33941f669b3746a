//! Percentiles of hits while another thread disturbs.

use super::{Panel, section, table};
use crate::{
    lines::{Across, Line, LinePlot, Point, Up},
    markup::Element,
    numbers::{grouped, percent, plain},
    results::{Absent, Delayed, Latency, Results, Run, Spread},
    steps::Step,
};

pub(crate) const ID: &str = "latency";
pub(crate) const WORKLOAD: &str = "latency";
pub(crate) const UNDER_INSERTS: &str = "inserts";
/// Those of the plot. The maximum is for the table: it is a few hits of a run, and would leave the others no room.
const PERCENTILES: [&str; 4] = ["p50", "p99", "p99.9", "p99.99"];
const MAXIMUM: &str = "max";
/// Whose ratios stand in the table.
const COMPARED: &str = "p99.9";

pub(crate) fn html(results: &Results) -> Element {
    let panels = vec![
        panel(results, UNDER_INSERTS, "How long does a hit take while another thread inserts?"),
        panel(results, "bumps", "How long does a hit take in a storm of invalidations of other groups?"),
        panel(results, "growth", "How long does a hit take while the cache grows from empty to large?"),
    ];
    let introduction = "Every hit is timed alone, so the clock's own time is in each figure. In the storm, a cache without \
        groups does the nearest thing that it offers: moka's invalidate_entries_if, quick_cache's retain. foyer's memory \
        tier has nothing like it and is left out there. larder takes part a second time without any pause between its \
        invalidations. The maximum tells as much of the machine's other work as of the cache.";
    section(ID, "How long can a hit be kept waiting?", introduction, panels)
}

fn panel(results: &Results, under: &str, question: &str) -> Result<Panel, Absent> {
    let step = Step::Latency;
    let (run, latencies): (Run, Vec<Latency>) = results.of(step, WORKLOAD)?;
    let Some(latency) = latencies.iter().find(|latency| latency.under == under) else {
        return Err(Absent { step, reason: format!("it holds no result under {under}") });
    };
    let Latency { setting, rounds, contestants, .. } = latency;
    let names: Vec<&str> = contestants.iter().map(|delayed| delayed.name.as_str()).collect();
    let description = format!(
        "Nanoseconds of a hit at the 50th, 99th, 99.9th and 99.99th percentile, of {}. The table below has the numbers.",
        names.join(", ")
    );
    let id = format!("latency-under-{under}");
    let plot = LinePlot {
        id: &id,
        title: question,
        description: &description,
        x: Across::Categories(PERCENTILES.map(str::to_owned).into()),
        x_label: "percentile of a round's hits",
        y: Up::Logarithmic,
        y_label: "nanoseconds, logarithmic",
        lines: contestants.iter().map(line).collect(),
    };
    let reading = format!(
        "Lower is better. {}; medians of {rounds} rounds, whiskers from the 10th to the 90th percentile.",
        capitalised(setting)
    );
    Ok(Panel::of_run(&run, step, question.to_owned(), reading, plot.svg(), numbers(contestants)))
}

fn line(delayed: &Delayed) -> Line {
    let point = |(number, percentile): (usize, &&str)| {
        let Spread { p10, median, p90 } = *delayed.ns.get(*percentile)?;
        Some(Point {
            x: number as f64,
            y: median,
            whisker: Some((p10, p90)),
            hollow: false,
            note: format!("{percentile} {} ns", plain(median)),
        })
    };
    Line { name: delayed.name.clone(), points: PERCENTILES.iter().enumerate().filter_map(point).collect() }
}

fn numbers(contestants: &[Delayed]) -> Element {
    let columns: Vec<&str> = PERCENTILES.into_iter().chain([MAXIMUM]).collect();
    let headings = columns.iter().map(|&column| column.to_owned());
    let headings: Vec<String> = headings.chain([format!("{COMPARED} ratio"), "miss, %".to_owned()]).collect();
    let nothing = || "–".to_owned();
    let rows = contestants.iter().map(|delayed| {
        let ns = columns.iter().map(|&column| delayed.ns.get(column).map_or_else(nothing, |ns| grouped(ns.median)));
        let ratio = delayed.ratio_to_first.get(COMPARED);
        let ratio = ratio.map_or_else(nothing, |ratio| format!("{:.2}", ratio.median));
        (delayed.name.clone(), ns.chain([ratio, percent(delayed.miss_ratio)]).collect())
    });
    let caption = format!("Nanoseconds, and the median of the ratios to {} within each round", contestants[0].name);
    table(&caption, &headings, rows.collect())
}

fn capitalised(sentence: &str) -> String {
    let mut characters = sentence.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
