//! The processes that share the servers.

use std::env;
use std::fs;
use std::io::{self, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shared::clock::now_ns;

use crate::judge::Note;
use crate::record::Record;
use crate::worker::Settings;

/// How long a process may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A page of memory, in which the kernel counts what a process takes.
const PAGE: u64 = 4_096;

/// A process that was started, until it is killed or told to end.
struct Member {
    child: Child,
    /// Whether its end is wanted.
    dismissed: Arc<AtomicBool>,
    listening: JoinHandle<()>,
}

/// All of them; killed when dropped.
pub(crate) struct Crew {
    /// Those of each, but for its number; the bug is the first one's.
    settings: Settings,
    members: Vec<Member>,
    /// The ids that they have at present, for proxies.
    processes: Arc<Mutex<Vec<u32>>>,
    notes: Sender<Note>,
}

impl Crew {
    /// Starts as many as `settings` say. What they write down goes to `notes`.
    pub(crate) fn start(settings: Settings, processes: Arc<Mutex<Vec<u32>>>, notes: Sender<Note>) -> io::Result<Crew> {
        let mut crew = Crew { settings, members: Vec::new(), processes, notes };
        for process in 0..crew.settings.processes {
            let member = crew.launch(process)?;
            crew.members.push(member);
        }
        Ok(crew)
    }

    fn launch(&self, process: usize) -> io::Result<Member> {
        let plant = self.settings.plant.filter(|_| process == 0);
        let settings = Settings { process, plant, ..self.settings.clone() };
        let mut command = Command::new(env::current_exe()?);
        command.arg("--work").arg(settings.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        self.processes.lock().unwrap()[process] = child.id();
        let records = child.stdout.take();
        let (notes, dismissed) = (self.notes.clone(), Arc::<AtomicBool>::default());
        let is_dismissed = Arc::clone(&dismissed);
        let listening = thread::spawn(move || {
            let mut records = BufReader::new(records.expect("a pipe from the process"));
            while let Some(record) = Record::read(&mut records) {
                // Once the judge has heard enough, nobody is interested.
                _ = notes.send(Note::Record(process, record));
            }
            let expected = is_dismissed.load(Ordering::SeqCst);
            _ = notes.send(Note::Ended { process, expected, at_ns: now_ns() });
        });
        Ok(Member { child, dismissed, listening })
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Kills a process, as a crash would, and waits until all is heard that it wrote down.
    pub(crate) fn kill(&mut self, process: usize) -> io::Result<()> {
        let member = &mut self.members[process];
        member.dismissed.store(true, Ordering::SeqCst);
        member.child.kill()?;
        member.child.wait()?;
        while !member.listening.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Has another process take the place of one that was killed.
    pub(crate) fn replace(&mut self, process: usize) -> io::Result<()> {
        self.members[process] = self.launch(process)?;
        Ok(())
    }

    pub(crate) fn signal(&self, process: usize, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.members[process].child), signal)?)
    }

    /// Tells all processes something.
    pub(crate) fn tell(&mut self, order: &str) -> io::Result<()> {
        for Member { child, .. } in &mut self.members {
            let Some(stdin) = &mut child.stdin else { continue };
            writeln!(stdin, "{order}")?;
        }
        Ok(())
    }

    /// Waits for the end of all processes, and returns how many did not end well.
    pub(crate) fn dismiss(mut self, order: &str) -> io::Result<usize> {
        self.members.iter().for_each(|member| member.dismissed.store(true, Ordering::SeqCst));
        self.tell(order)?;
        let give_up = Instant::now() + PATIENCE;
        let mut unwell = 0;
        for Member { child, .. } in &mut self.members {
            let status = loop {
                match child.try_wait()? {
                    None if Instant::now() < give_up => thread::sleep(Duration::from_millis(5)),
                    status => break status,
                }
            };
            unwell += usize::from(!status.is_some_and(|status| status.success()));
        }
        Ok(unwell)
    }

    /// Returns how much memory a process takes at present; `None` for one that is gone.
    pub(crate) fn memory(&self, process: usize) -> Option<u64> {
        let counts = fs::read_to_string(format!("/proc/{}/statm", self.members[process].child.id())).ok()?;
        counts.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * PAGE)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for Member { child, .. } in &mut self.members {
            // It may be dead already.
            _ = child.kill();
            _ = child.wait();
        }
    }
}
