//! How many bytes does a cache spend on an entry beyond key and value?
//!
//! All values share one allocation that is not counted, and `size_of` of key and value is taken off: what remains is the
//! cache's own. It depends on how close the number of entries comes to the next size of its tables.

use serde_json::{Value, json};

use crate::{
    contestants::{self, Contestant, Enlist, Key, every_cache, fresh_value},
    heap::growth_during,
    random::scatter,
    report::Section,
    table::Table,
};

/// Ghosts of evicted keys fill up only over many evictions.
const CHURN: usize = 10;

struct Footprint {
    name: &'static str,
    /// Bytes of the cache before its first entry.
    empty: i64,
    /// Bytes per entry when it has just become full.
    full: f64,
    /// Bytes per entry when it has been filled many times over.
    churned: f64,
}

pub(crate) struct Memory {
    population: usize,
    footprints: Vec<Footprint>,
}

pub(crate) fn measure(population: usize) -> Memory {
    Memory { population, footprints: every_cache(&Fill { population }) }
}

struct Fill {
    population: usize,
}

impl Enlist for Fill {
    type Entry = Footprint;

    fn enlist<C: Contestant>(&self) -> Footprint {
        let value = fresh_value();
        let fill = |cache: &C, numbers: std::ops::Range<usize>| {
            for number in numbers {
                cache.insert(scatter(number as u64), value.clone());
            }
            cache.settle();
        };
        let (cache, empty) = growth_during(|| C::new(self.population));
        let ((), filling) = growth_during(|| fill(&cache, 0..self.population));
        let full = per_entry(empty + filling, cache.resident());
        let ((), churning) = growth_during(|| fill(&cache, self.population..CHURN * self.population));
        let churned = per_entry(empty + filling + churning, cache.resident());
        Footprint { name: C::NAME, empty, full, churned }
    }
}

fn per_entry(bytes: i64, entries: usize) -> f64 {
    let payload = size_of::<Key>() + size_of::<contestants::Value>();
    bytes as f64 / entries as f64 - payload as f64
}

impl Section for Memory {
    fn text(&self) -> String {
        let mut table = Table::new(["", "full B/entry", "churned B/entry", "empty B"]);
        for Footprint { name, empty, full, churned } in &self.footprints {
            table.row([(*name).to_owned(), format!("{full:.1}"), format!("{churned:.1}"), empty.to_string()]);
        }
        format!("memory beyond key and value · {} entries\n{table}", self.population)
    }

    fn json(&self) -> Value {
        let footprint = |footprint: &Footprint| {
            let Footprint { name, empty, full, churned } = footprint;
            json!({ "name": name, "empty_bytes": empty, "bytes_per_entry": full, "bytes_per_entry_churned": churned })
        };
        json!({
            "workload": "memory",
            "entries": self.population,
            "contestants": self.footprints.iter().map(footprint).collect::<Vec<_>>(),
        })
    }
}
