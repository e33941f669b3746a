//! The source that caches are in front of, and by which their answers are judged: files that all processes share.
//!
//! It is deliberately not kept in memcached: what judges a store must not depend on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// How many processes change groups. Each counts its own changes, so that a word has one writer.
pub const BUMPERS: usize = 2;

/// How many groups there are, with one key each.
pub const GROUPS: u32 = 64;

const WORD: u64 = size_of::<u64>() as u64;

/// A group's state: how often each bumper has changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions(pub [u64; BUMPERS]);

/// The present versions of all groups.
pub struct Truth {
    file: File,
}

impl Truth {
    /// Makes the files in `folder`, with every group at its beginning.
    pub fn create(folder: &Path) -> io::Result<Truth> {
        File::create_new(folder.join("loads"))?;
        File::create_new(folder.join("versions"))?.set_len(u64::from(GROUPS) * BUMPERS as u64 * WORD)?;
        Truth::open(folder)
    }

    pub fn open(folder: &Path) -> io::Result<Truth> {
        Ok(Truth { file: OpenOptions::new().read(true).write(true).open(folder.join("versions"))? })
    }

    pub fn versions(&self, group: u32) -> io::Result<Versions> {
        let mut versions = [0; BUMPERS];
        for (bumper, version) in versions.iter_mut().enumerate() {
            *version = self.version(group, bumper)?;
        }
        Ok(Versions(versions))
    }

    /// Counts a change of `group` by `bumper`, and returns how many that makes.
    pub fn change(&self, group: u32, bumper: usize) -> io::Result<u64> {
        let version = self.version(group, bumper)? + 1;
        self.file.write_all_at(&version.to_le_bytes(), place(group, bumper))?;
        Ok(version)
    }

    /// Returns how many changes there were in all.
    pub fn changes(&self) -> io::Result<u64> {
        let mut changes = 0;
        for group in 0..GROUPS {
            changes += self.versions(group)?.0.iter().sum::<u64>();
        }
        Ok(changes)
    }

    fn version(&self, group: u32, bumper: usize) -> io::Result<u64> {
        let mut word = [0; WORD as usize];
        self.file.read_exact_at(&mut word, place(group, bumper))?;
        Ok(u64::from_le_bytes(word))
    }
}

fn place(group: u32, bumper: usize) -> u64 {
    (u64::from(group) * BUMPERS as u64 + bumper as u64) * WORD
}

/// Returns the name of a group in larder.
#[must_use]
pub fn group_name(group: u32) -> String {
    format!("group:{group}")
}

/// Notes in `folder` that this process has begun to load `key`. The note outlives the process.
pub fn note_load(folder: &Path, key: &str) -> io::Result<()> {
    let mut loads = OpenOptions::new().append(true).open(folder.join("loads"))?;
    // One write of an appending file: lines of several processes do not mix.
    loads.write_all(format!("{} {key}\n", std::process::id()).as_bytes())
}

/// Returns the processes that have begun to load `key`, in order.
pub fn loads_of(folder: &Path, key: &str) -> io::Result<Vec<u32>> {
    let loads = fs::read_to_string(folder.join("loads"))?;
    let of_key = loads.lines().filter_map(|line| line.split_once(' ')).filter(|(_, loaded)| *loaded == key);
    Ok(of_key.filter_map(|(process, _)| process.parse().ok()).collect())
}
