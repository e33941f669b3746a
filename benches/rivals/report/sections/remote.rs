//! Gets that the local tier misses and memcached answers, by the number of callers.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Panel, section, table};
use crate::{
    lines::{Across, Line, LinePlot, Point, Up},
    markup::Element,
    numbers::{grouped, plain},
    results::{Absent, Results, Spread},
    steps::Step,
};

pub(crate) const ID: &str = "remote";
const LARDER: &str = "larder";
const RIVAL: &str = "MetaClient";

/// One number of callers.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Callers {
    pub(crate) callers: u64,
    pub(crate) larder_per_sec: Figure,
    pub(crate) meta_client_per_sec: Figure,
    pub(crate) ratio: Figure,
    /// Whatever else was measured, such as percentiles.
    #[serde(flatten)]
    further: BTreeMap<String, Value>,
}

/// The rows, as they are or as the results of a run.
#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Rows(Vec<Callers>),
    Run { results: Vec<Callers> },
}

/// A median, alone or with how far it scatters.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
pub(crate) enum Figure {
    Median(f64),
    Spread(Spread),
}

impl Figure {
    pub(crate) fn median(self) -> f64 {
        match self {
            Self::Median(median) => median,
            Self::Spread(spread) => spread.median,
        }
    }

    fn whisker(self) -> Option<(f64, f64)> {
        match self {
            Self::Median(_) => None,
            Self::Spread(spread) => Some((spread.p10, spread.p90)),
        }
    }
}

/// In ascending order of callers, of which there is at least one.
pub(crate) fn read(results: &Results) -> Result<Vec<Callers>, Absent> {
    let step = Step::RemoteCallers;
    let (File::Rows(mut rows) | File::Run { results: mut rows }) = results.file(step)?;
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
    let line = |name: &str, of: fn(&Callers) -> Figure| {
        let points = rows.iter().enumerate().map(|(number, row)| Point {
            x: number as f64,
            y: of(row).median(),
            whisker: of(row).whisker(),
            hollow: false,
            note: format!("{} gets/s with {} callers", grouped(of(row).median()), row.callers),
        });
        Line { name: name.to_owned(), points: points.collect() }
    };
    let description = format!(
        "Gets a second of {LARDER} and of {RIVAL}, with {} callers. The table has the numbers.",
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
        lines: vec![line(LARDER, |row| row.larder_per_sec), line(RIVAL, |row| row.meta_client_per_sec)],
    };
    let conditions = results.conditions.as_ref();
    Ok(Panel {
        question: question.to_owned(),
        reading: "Higher is better. Medians of turns.".to_owned(),
        plot: plot.svg(),
        table: numbers(&rows),
        command: Step::RemoteCallers.shown(&[]),
        machine: conditions.map_or("an unknown machine".to_owned(), |conditions| {
            format!("{}, {} cores, {}", conditions.cpu, conditions.cores, conditions.memcached)
        }),
        warning: None,
    })
}

/// A row for each number of callers, with all that was measured.
fn numbers(rows: &[Callers]) -> Element {
    let further: Vec<&String> = rows[0].further.keys().collect();
    let headings = ["larder, gets/s", "MetaClient, gets/s", "ratio"].map(str::to_owned).into_iter();
    let headings: Vec<String> = headings.chain(further.iter().map(|name| name.replace('_', " "))).collect();
    let rows = rows.iter().map(|row| {
        let further = further.iter().map(|&name| {
            let figure = row.further.get(name).and_then(|value| serde_json::from_value::<Figure>(value.clone()).ok());
            figure.map_or("–".to_owned(), |figure| plain(figure.median()))
        });
        let own = [
            grouped(row.larder_per_sec.median()),
            grouped(row.meta_client_per_sec.median()),
            format!("{:.2}", row.ratio.median()),
        ];
        (format!("{} callers", row.callers), own.into_iter().chain(further).collect())
    });
    table("Medians", &headings, rows.collect())
}
