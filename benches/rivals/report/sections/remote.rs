//! Gets that the local tier misses and memcached answers, by the number of callers.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Panel, section, table};
use crate::{
    lines::{Across, Line, LinePlot, Point, Up},
    markup::Element,
    numbers::{grouped, plain},
    results::{Absent, Results},
    steps::Step,
};

pub(crate) const ID: &str = "remote";
/// The names of the two sides, and what their figures' names begin with.
const SIDES: [(&str, &str); 2] = [("larder", "larder"), ("MetaClient", "meta_client")];
/// What the table shows beside the throughput: how its heading calls it, and how its figures' names end.
const PARTS: [(&str, &str); 4] =
    [("p50, µs", "p50_us"), ("p99, µs", "p99_us"), ("CPU, µs", "process_cpu_us"), ("server's, µs", "server_cpu_us")];

/// One number of callers. All figures are medians over the turns.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Callers {
    pub(crate) callers: u64,
    pub(crate) larder_per_sec: f64,
    pub(crate) meta_client_per_sec: f64,
    /// Of the throughputs.
    pub(crate) ratio: f64,
    /// Whatever else was measured, of either side.
    #[serde(flatten)]
    further: BTreeMap<String, Option<f64>>,
}

/// In ascending order of callers, of which there is at least one.
pub(crate) fn read(results: &Results) -> Result<Vec<Callers>, Absent> {
    let step = Step::RemoteCallers;
    let mut rows: Vec<Callers> = results.file(step)?;
    rows.sort_by_key(|row| row.callers);
    if rows.is_empty() {
        return Err(Absent { step, reason: "it holds no result".to_owned() });
    }
    Ok(rows)
}

pub(crate) fn html(results: &Results) -> Element {
    let introduction = "Beside the memcache crate's MetaClient, in turns of half a second, against a memcached on the same \
        machine, whose work these figures contain. larder checks each value's groups and keeps it in its local tier, which \
        is too small here to answer anything.";
    section(ID, "How fast are hits in memcached?", introduction, vec![panel(results)])
}

fn panel(results: &Results) -> Result<Panel, Absent> {
    let rows = read(results)?;
    let question = "How many gets a second, when the local tier misses and memcached answers?";
    let callers: Vec<String> = rows.iter().map(|row| row.callers.to_string()).collect();
    let line = |name: &str, per_sec: fn(&Callers) -> f64| {
        let points = rows.iter().enumerate().map(|(number, row)| Point {
            x: number as f64,
            y: per_sec(row),
            whisker: None,
            hollow: false,
            note: format!("{} gets/s with {} callers", grouped(per_sec(row)), row.callers),
        });
        Line { name: name.to_owned(), points: points.collect() }
    };
    let [(larder, _), (meta_client, _)] = SIDES;
    let description = format!(
        "Gets a second of {larder} and {meta_client}, with {} callers. The table has the numbers.",
        callers.join(", ")
    );
    let plot = LinePlot {
        id: "remote-callers",
        title: question,
        description: &description,
        x: Across::Categories(callers),
        x_label: "callers",
        y: Up::FromZero,
        y_label: "gets a second",
        lines: vec![line(larder, |row| row.larder_per_sec), line(meta_client, |row| row.meta_client_per_sec)],
    };
    Ok(Panel {
        question: question.to_owned(),
        reading: "Higher is better. Medians of the turns.".to_owned(),
        plot: plot.svg(),
        table: numbers(&rows),
        command: Step::RemoteCallers.shown(&[]),
        machine: results.conditions.as_ref().map_or("an unknown machine".to_owned(), |conditions| {
            format!("{}, {} cores, {}", conditions.cpu, conditions.cores, conditions.memcached)
        }),
        warning: None,
    })
}

/// A row for each side of each number of callers.
fn numbers(rows: &[Callers]) -> Element {
    let headings = ["callers", "gets/s", "ratio"].into_iter().chain(PARTS.map(|(heading, _)| heading));
    let headings: Vec<String> = headings.map(str::to_owned).collect();
    let rows = rows.iter().flat_map(|row| {
        let throughputs =
            [(row.larder_per_sec, format!("{:.2}", row.ratio)), (row.meta_client_per_sec, "1.00".to_owned())];
        SIDES.into_iter().zip(throughputs).map(|((name, prefix), (per_sec, ratio))| {
            let parts = PARTS.map(|(_, part)| {
                let figure = row.further.get(&format!("{prefix}_{part}")).copied().flatten();
                figure.map_or("–".to_owned(), plain)
            });
            let throughput = [row.callers.to_string(), grouped(per_sec), ratio];
            (name.to_owned(), throughput.into_iter().chain(parts).collect())
        })
    });
    table("Medians; the processor time of a get, of the calling process and of memcached", &headings, rows.collect())
}
