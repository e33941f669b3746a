//! Reads all groups again and again, by every verb, and writes down what it saw and when.

use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use larder::LoadError;
use shared::clock::now_ns;
use shared::notes::{ReaderNotes, Sighting, Verb};
use shared::stalls;
use shared::truth::{GROUPS, Truth, Versions, group_name};

use crate::desk::Groups;

/// The threads of a reader: what a load brings takes the longest, so two do it.
const THREADS: [Verb; 4] = [Verb::Local, Verb::Get, Verb::GetOrLoad, Verb::GetOrLoad];

/// Between two rounds over all groups: about as exactly is it known when something was seen last.
const PAUSE: Duration = Duration::from_micros(500);

/// A load takes up to so many microseconds, so that bumps fall into it.
const LOAD_US: u64 = 1_000;

/// So many errors are kept word by word.
const ERRORS: usize = 5;

/// Reads until it is stopped.
pub(crate) fn read(cache: &Groups, truth: &Truth, stopped: &AtomicBool) -> ReaderNotes {
    thread::scope(|scope| {
        let stalls = scope.spawn(|| stalls::watch(process::id(), is_of_larder, stopped));
        let threads = THREADS.map(|verb| scope.spawn(move || read_by(verb, cache, truth, stopped)));
        let mut notes = ReaderNotes::default();
        for thread in threads {
            let more = thread.join().expect("a reader that does not panic");
            notes.sightings.extend(more.sightings);
            notes.errors.extend(more.errors);
            notes.reads += more.reads;
        }
        notes.stalls = stalls.join().expect("a watch that does not panic");
        notes
    })
}

/// Threads of the worker's own have the name of its program; theirs is no matter, since a read counts from when it began.
fn is_of_larder(thread: &str) -> bool {
    thread != env!("CARGO_BIN_NAME")
}

fn read_by(verb: Verb, cache: &Groups, truth: &Truth, stopped: &AtomicBool) -> ReaderNotes {
    let mut notes = ReaderNotes::default();
    // By group: where the sighting is that a read of the same versions belongs to.
    let mut current = [None::<usize>; GROUPS as usize];
    while !stopped.load(Ordering::SeqCst) {
        for group in 0..GROUPS {
            let began_ns = now_ns();
            let versions = match verb {
                Verb::Local => cache.local().get(&group),
                Verb::Get => cache.get(&group),
                Verb::GetOrLoad => read_through(cache, truth, group)
                    .inspect_err(|error| {
                        if notes.errors.len() < ERRORS {
                            notes.errors.push(error.to_string());
                        }
                    })
                    .ok(),
            };
            notes.reads += 1;
            let Some(versions) = versions else { continue };
            match current[group as usize].map(|at| &mut notes.sightings[at]) {
                Some(seen) if seen.versions == versions => seen.last_ns = began_ns,
                _ => {
                    current[group as usize] = Some(notes.sightings.len());
                    notes.sightings.push(Sighting { group, versions, verb, first_ns: began_ns, last_ns: began_ns });
                }
            }
        }
        thread::sleep(PAUSE);
    }
    notes
}

/// Returns the versions of a group, from the source if the cache does not have them.
pub(crate) fn read_through(cache: &Groups, truth: &Truth, group: u32) -> Result<Versions, LoadError<io::Error>> {
    cache.get_or_load(&group, |load| {
        let early = group.is_multiple_of(2);
        if early {
            load.groups([group_name(group)]);
        }
        let versions = truth.versions(group)?;
        thread::sleep(Duration::from_micros(fastrand::u64(..LOAD_US)));
        // What a load names at its end must be fenced just as well.
        if !early {
            load.groups([group_name(group)]);
        }
        Ok(versions)
    })
}
