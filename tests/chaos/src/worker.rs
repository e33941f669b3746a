//! One of the processes that share the servers: it reads, loads and bumps all the time, and writes down what it was answered.

mod bumper;
mod calls;
mod clerk;
mod desk;
mod log;
mod pulse;
mod reader;
mod recovery;

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use self::desk::Desk;
use crate::plant::Plant;

/// How many threads of a process read.
const READERS: usize = 3;

/// The threads that call larder: the readers, the one that bumps, and the one that follows orders.
const CALLERS: usize = READERS + 2;

/// How a process is set up: its one argument.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Its own number, and how many there are.
    pub(crate) process: usize,
    pub(crate) processes: usize,
    pub(crate) plant: Option<Plant>,
    /// Where the source is.
    pub(crate) folder: PathBuf,
    pub(crate) servers: Vec<String>,
}

/// What a process is told on its standard input, a line each. It ends when nobody can tell it anything any more.
pub(crate) mod order {
    /// To end what it does, and to say when all is as it should be.
    pub(crate) const FINISH: &str = "finish";
    /// To read everything once more, and to say so.
    pub(crate) const CHECK: &str = "check";
    /// To end in good order.
    pub(crate) const END: &str = "end";
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { process, processes, plant, folder, servers } = self;
        let plant = plant.map_or("none", Plant::name);
        write!(f, "{process} {processes} {plant} {} {}", servers.join(","), folder.display())
    }
}

impl FromStr for Settings {
    type Err = Box<dyn Error>;

    fn from_str(text: &str) -> Result<Settings, Self::Err> {
        // The folder last: a path may have spaces.
        let [process, processes, plant, servers, folder] = text.splitn(5, ' ').collect::<Vec<_>>()[..] else {
            return Err(format!("{text:?} are no settings").into());
        };
        Ok(Settings {
            process: process.parse()?,
            processes: processes.parse()?,
            plant: if plant == "none" { None } else { Some(plant.parse()?) },
            folder: folder.into(),
            servers: servers.split(',').map(str::to_owned).collect(),
        })
    }
}

/// Does what `settings` say, until it is told to end.
pub(crate) fn work(settings: &str) -> Result<(), Box<dyn Error>> {
    let desk = Arc::new(Desk::new(settings.parse()?)?);
    pulse::note_panics(&desk);
    let roles = (0..READERS).map(|at| {
        let desk = Arc::clone(&desk);
        thread::spawn(move || reader::read(&desk, at))
    });
    let mut busy: Vec<_> = roles.collect();
    let of_bumper = Arc::clone(&desk);
    busy.push(thread::spawn(move || bumper::bump(&of_bumper, READERS)));
    let of_pulse = Arc::clone(&desk);
    thread::spawn(move || pulse::beat(&of_pulse));
    for line in io::stdin().lock().lines() {
        match &*line? {
            order::FINISH => {
                desk.finishing.store(true, Ordering::SeqCst);
                // One that panicked, or never returns, was written down.
                busy.drain(..).filter(thread::JoinHandle::is_finished).for_each(|role| drop(role.join()));
                recovery::recover(&desk, CALLERS - 1);
            }
            order::CHECK => recovery::check(&desk, CALLERS - 1),
            order::END => {
                desk.namespace.shutdown(recovery::SHUTDOWN)?;
                return Ok(());
            }
            other => return Err(format!("there is no order {other:?}").into()),
        }
    }
    // Nobody is there any more whom this could matter to.
    process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_out_as_they_went_in() {
        let servers = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let settings = Settings {
            process: 1,
            processes: 4,
            plant: Some(Plant::ServeStale),
            folder: "/a folder/of mine".into(),
            servers,
        };
        assert_eq!(settings.to_string().parse::<Settings>().unwrap(), settings);
        assert!("1 2 none".parse::<Settings>().is_err());
    }
}
