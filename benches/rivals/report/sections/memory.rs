//! Bytes that a cache spends on an entry beyond key and value.

use super::{Panel, section, table};
use crate::{
    bars::{Bar, BarPlot, Group},
    markup::Element,
    numbers::grouped,
    results::{Absent, Footprint, Memory, Results, Run},
    steps::Step,
};

pub(crate) const ID: &str = "memory";
pub(crate) const WORKLOAD: &str = "memory";

pub(crate) fn html(results: &Results) -> Element {
    let panels = match results.of::<Memory>(Step::Memory, WORKLOAD) {
        Err(absent) => vec![Err(absent)],
        Ok((run, memories)) => memories.iter().map(|memory| of_population(&run, memory)).collect(),
    };
    let introduction = "As requested from the allocator, without key and value. How close the number of entries comes to the \
        next size of a cache's tables decides much of it.";
    section(ID, "What does an entry cost?", introduction, panels)
}

fn of_population(run: &Run, memory: &Memory) -> Result<Panel, Absent> {
    let entries = grouped(memory.entries as f64);
    let question = format!("How many bytes does each of {entries} entries take?");
    let bar = |value: f64, state: &str, pale| Bar { value, label: format!("{value:.1} {state}"), pale };
    let groups = memory.contestants.iter().map(|footprint| {
        let bars = vec![
            bar(footprint.bytes_per_entry, "full", false),
            bar(footprint.bytes_per_entry_churned, "used for long", true),
        ];
        Group { name: footprint.name.clone(), bars }
    });
    let id = format!("memory-{}", memory.entries);
    let description = "Bytes per entry beyond key and value, when just full and after ten times as many inserts. The table \
        below has the numbers.";
    let plot = BarPlot { id: &id, title: &question, description, groups: groups.collect() };
    let headings = ["full, B/entry", "used for long, B/entry", "empty, B"].map(str::to_owned);
    let rows = memory.contestants.iter().map(|footprint| {
        let Footprint { name, empty_bytes, bytes_per_entry, bytes_per_entry_churned } = footprint;
        let cells = vec![
            format!("{bytes_per_entry:.1}"),
            format!("{bytes_per_entry_churned:.1}"),
            grouped(*empty_bytes as f64),
        ];
        (name.clone(), cells)
    });
    let table = table("Bytes beyond key and value", &headings, rows.collect());
    let reading = "Lower is better. Dark: just full. Pale: after ten times as many inserts.".to_owned();
    Ok(Panel::of_run(run, Step::Memory, question.clone(), reading, plot.svg(), table))
}
