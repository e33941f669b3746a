//! A run: servers, processes, faults by turns with times in which nothing fails, and the verdict.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use shared::clock::now_ns;
use shared::flood::{STARVED, flood};
use shared::truth::Truth;

use crate::crew::Crew;
use crate::fault::Fault;
use crate::judge::{Judge, Note};
use crate::options::Options;
use crate::plan::{Mishap, Plan, Target};
use crate::proxy::{Proxy, Weather};
use crate::support::eventually;
use crate::support::memcached::{Server, ask};
use crate::worker::{Settings, order};

/// One has the journal and the tokens, and values are on both.
const SERVERS: usize = 2;

/// How many faults may be under way at once.
const AT_ONCE: usize = 3;

/// How long faults happen, and how long none does before they begin again.
const STORM: Duration = Duration::from_secs(7);
const CALM: Duration = Duration::from_secs(4);

/// How often it is looked whether a fault is over.
const TICK: Duration = Duration::from_millis(10);

const MEMORY_EVERY: Duration = Duration::from_millis(500);

/// A server that takes fewer connections than processes make: eleven or so, since it counts its own files too.
const CROWDED: [&str; 4] = ["-t", "1", "-c", "24"];

/// How long all processes may take to recover, and to read everything once more: longer than each of them waits.
const PATIENCE: Duration = Duration::from_secs(40);

/// Runs, prints the verdict, and returns whether it is clean.
pub(crate) fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let Options { time, seed, processes, faults, plant } = options;
    let faults: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
    let plant = plant.map_or_else(String::new, |plant| format!(", with the bug {}", plant.name()));
    let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(", ") };
    println!("{processes} processes, {SERVERS} servers, {time:?} with the faults {faults} by seed {seed}{plant}");
    let (notes, heard) = mpsc::channel();
    let mut stage = Stage::set(options, notes)?;
    let mut judge = Judge::new(!options.faults.contains(&Fault::Scramble));
    let mut plan = Plan::new(*seed, &options.faults, *processes, SERVERS);
    let end = Instant::now() + *time;
    while Instant::now() < end {
        let storm_end = end.min(Instant::now() + STORM);
        while Instant::now() < storm_end {
            stage.go_on(Some(&mut plan))?;
            judge.listen(&heard, TICK);
        }
        stage.end_all()?;
        let calm_end = end.min(Instant::now() + CALM);
        while Instant::now() < calm_end {
            stage.go_on(None)?;
            judge.listen(&heard, TICK);
        }
    }
    stage.end_all()?;
    let verdict = stage.finish(judge, &heard)?;
    println!("{verdict}");
    Ok(verdict.is_clean())
}

/// A server and the way to it.
struct Host {
    server: Server,
    proxy: Proxy,
    flooding: Option<Flood>,
}

/// Fills a server until it is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    flooding: Option<JoinHandle<()>>,
}

/// A fault that is under way.
struct UnderWay {
    number: usize,
    mishap: Mishap,
    until: Instant,
}

struct Stage {
    // In this order, so that the processes are gone before the servers are.
    crew: Crew,
    hosts: Vec<Host>,
    _folder: tempfile::TempDir,
    notes: Sender<Note>,
    under_way: Vec<UnderWay>,
    begun: usize,
    next: Instant,
    memory_at: Instant,
}

impl Stage {
    fn set(options: &Options, notes: Sender<Note>) -> Result<Stage, Box<dyn Error>> {
        let folder = tempfile::Builder::new().prefix("larder-chaos-").tempdir()?;
        Truth::create(folder.path())?;
        let ids = Arc::new(Mutex::new(vec![0; options.processes]));
        let host = |_| {
            let server = Server::start();
            Ok(Host { proxy: Proxy::start(server.addr(), &ids, options.seed)?, server, flooding: None })
        };
        let hosts = (0..SERVERS).map(host).collect::<Result<Vec<_>, Box<dyn Error>>>()?;
        let settings = Settings {
            process: 0,
            processes: options.processes,
            plant: options.plant,
            folder: folder.path().to_owned(),
            servers: hosts.iter().map(|host| host.proxy.addr().to_string()).collect(),
        };
        let crew = Crew::start(settings, ids, notes.clone())?;
        let now = Instant::now();
        Ok(Stage { crew, hosts, _folder: folder, notes, under_way: Vec::new(), begun: 0, next: now, memory_at: now })
    }

    /// Ends what is over, begins something new if it is time for that, and looks how much memory processes take.
    fn go_on(&mut self, plan: Option<&mut Plan>) -> Result<(), Box<dyn Error>> {
        let now = Instant::now();
        while let Some(at) = self.under_way.iter().position(|under_way| under_way.until <= now) {
            let over = self.under_way.swap_remove(at);
            self.end(&over)?;
        }
        if let Some(plan) = plan
            && now >= self.next
            && let Some(mishap) = plan.draw()
        {
            self.next = now + plan.pause();
            let is_free = |target: &Target| !self.under_way.iter().any(|other| other.mishap.target.overlaps(target));
            if self.under_way.len() < AT_ONCE && is_free(&mishap.target) {
                self.begin(mishap)?;
            }
        }
        if now >= self.memory_at {
            self.memory_at = now + MEMORY_EVERY;
            for process in 0..self.crew.len() {
                if let Some(bytes) = self.crew.memory(process) {
                    self.notes.send(Note::Memory { process, bytes })?;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, mishap: Mishap) -> Result<(), Box<dyn Error>> {
        let number = self.begun;
        self.begun += 1;
        let what =
            format!("{} of {:?}, {:?} for {}%", mishap.fault.name(), mishap.target, mishap.weather, mishap.percent);
        // Noted before it begins and after it is over.
        self.notes.send(Note::Begins { number, fault: mishap.fault, what, at_ns: now_ns() })?;
        match (&mishap.target, mishap.fault) {
            (Target::Process(process), Fault::Kill) => self.crew.kill(*process)?,
            (Target::Process(process), _) => self.crew.signal(*process, Signal::STOP)?,
            (Target::Server(server), fault) => self.hosts[*server].fail(fault)?,
            (Target::Lines(lines), _) => self.forecast(lines, mishap.weather, mishap.percent),
        }
        self.under_way.push(UnderWay { number, until: Instant::now() + mishap.lasts, mishap });
        Ok(())
    }

    fn end(&mut self, UnderWay { number, mishap, .. }: &UnderWay) -> Result<(), Box<dyn Error>> {
        match (&mishap.target, mishap.fault) {
            (Target::Process(process), Fault::Kill) => self.crew.replace(*process)?,
            (Target::Process(process), _) => self.crew.signal(*process, Signal::CONT)?,
            (Target::Server(server), fault) => self.hosts[*server].mend(fault)?,
            (Target::Lines(lines), _) => self.forecast(lines, Weather::Fair, 100),
        }
        self.notes.send(Note::Over { number: *number, at_ns: now_ns() })?;
        Ok(())
    }

    fn end_all(&mut self) -> Result<(), Box<dyn Error>> {
        std::mem::take(&mut self.under_way).iter().try_for_each(|over| self.end(over))
    }

    fn forecast(&self, lines: &[(usize, usize)], weather: Weather, percent: u8) {
        lines.iter().for_each(|(process, server)| self.hosts[*server].proxy.set(*process, weather, percent));
    }

    /// Has all processes recover, read everything once more, and end; and returns the verdict.
    fn finish(mut self, mut judge: Judge, heard: &Receiver<Note>) -> Result<crate::judge::Verdict, Box<dyn Error>> {
        for order in [order::FINISH, order::CHECK] {
            self.crew.tell(order)?;
            let (give_up, wanted) = (Instant::now() + PATIENCE, judge.verdict.recovered + self.crew.len());
            while judge.verdict.recovered + judge.verdict.unwell < wanted && Instant::now() < give_up {
                judge.listen(heard, TICK);
            }
            if judge.verdict.recovered < wanted {
                let recovered = self.crew.len() - (wanted - judge.verdict.recovered);
                judge.hear(Note::Against(format!("{recovered} of {} processes did \"{order}\"", self.crew.len())));
            }
            // What was acknowledged on the way must be known to all who are asked next.
            judge.listen(heard, Duration::from_millis(600));
        }
        judge.verdict.damaged = self.hosts.iter().map(|host| host.proxy.damaged()).sum();
        let unwell = self.crew.dismiss(order::END)?;
        if unwell > 0 {
            judge.hear(Note::Against(format!("{unwell} processes did not end in good order")));
        }
        judge.listen(heard, Duration::from_millis(100));
        Ok(judge.conclude())
    }
}

impl Host {
    fn fail(&mut self, fault: Fault) -> Result<(), Box<dyn Error>> {
        match fault {
            Fault::Crash => self.server.kill(),
            Fault::Bounce => self.server.restart(),
            Fault::Freeze => self.signal(Signal::STOP)?,
            // Not asked once: on a busy machine, its answer may take longer than the question waits for it.
            Fault::Flush => {
                eventually("memcached to be flushed", || ask(self.server.addr(), "flush_all").ok());
            }
            Fault::Starve => {
                self.replace(&STARVED);
                self.flooding = Some(Flood::start(self.server.addr()));
            }
            Fault::Crowd => self.replace(&CROWDED),
            other => return Err(format!("{other:?} is nothing that happens to a server").into()),
        }
        Ok(())
    }

    fn mend(&mut self, fault: Fault) -> Result<(), Box<dyn Error>> {
        match fault {
            Fault::Crash => self.server.restart(),
            Fault::Freeze => self.signal(Signal::CONT)?,
            Fault::Starve | Fault::Crowd => {
                self.flooding = None;
                self.replace(&[]);
            }
            _ => {}
        }
        Ok(())
    }

    /// Has an empty server take the place of the one there is. It must never come back: what it holds is of the past.
    fn replace(&mut self, options: &[&str]) {
        self.server = Server::start_with(options);
        self.proxy.retarget(self.server.addr());
    }

    fn signal(&self, signal: Signal) -> Result<(), Box<dyn Error>> {
        let pid = Pid::from_raw(self.server.pid().cast_signed()).ok_or("memcached has no process")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Flood {
    fn start(server: SocketAddr) -> Flood {
        let over = Arc::<AtomicBool>::default();
        let is_over = Arc::clone(&over);
        // A connection that breaks is over as well.
        let flooding = Some(thread::spawn(move || drop(flood(server, &is_over))));
        Flood { over, flooding }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        _ = self.flooding.take().map(JoinHandle::join);
    }
}
