//! Where results go: to the terminal as they come, and to a file when all are there.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

use crate::{
    contestants::PACKAGES,
    machine::{Machine, versions},
};

/// A result that people and programs can read.
pub(crate) trait Section {
    fn text(&self) -> String;

    fn json(&self) -> Value;
}

pub(crate) struct Report {
    head: Value,
    sections: Vec<Value>,
}

impl Report {
    /// Prints what a reader must know to judge the figures that follow.
    pub(crate) fn begin(command_line: &[String], seed: u64) -> Self {
        let machine = Machine::this();
        let versions = versions(PACKAGES);
        let contestants: Vec<String> =
            versions.iter().map(|(package, version)| format!("{package} {version}")).collect();
        println!("machine      {}", machine.text());
        println!("contestants  {}", contestants.join(", "));
        println!("seed         {seed}");
        println!("command      {}", command_line.join(" "));
        if cfg!(debug_assertions) {
            println!("warning      built without optimisation: no figure below means anything");
        }
        println!();
        let versions: serde_json::Map<String, Value> =
            versions.into_iter().map(|(package, version)| (package.to_owned(), version.into())).collect();
        let head = json!({
            "machine": machine.json(),
            "contestants": versions,
            "seed": seed,
            "command": command_line,
            "optimised": !cfg!(debug_assertions),
        });
        Self { head, sections: Vec::new() }
    }

    pub(crate) fn add(&mut self, section: &impl Section) {
        println!("{}", section.text());
        self.sections.push(section.json());
    }

    pub(crate) fn write(self, path: &Path) -> io::Result<()> {
        let Self { mut head, sections } = self;
        head["results"] = sections.into();
        fs::write(path, format!("{head:#}\n"))
    }
}
