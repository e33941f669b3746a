//! What processes cost the server that has the journal: counted, compared with a formula, and checked against a memcached.
//!
//! The processes are namespaces of this one, each with its own thread that follows the journal, over a store that counts. What
//! the server has to do for that does not depend on where they are. Its own share is told by its own clock (`rusage` in its
//! `stats`), so that a busy machine makes it no larger, but for what others drive out of the processor's caches.

mod counted;
mod server;

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use larder::{InMemoryRemote, Memcached, Namespace, RemoteTier};

use self::counted::{Counted, Counts};
use self::server::{Figures, look_cost};
use crate::support::memcached::Server;

/// How long each row is counted.
const TIME: Duration = Duration::from_secs(6);

/// What the journal is filled with: about as long as it is on average, since it is cut in half at 64 KiB.
const USUAL_JOURNAL: usize = 48 << 10;

/// The lengths of journals whose reading is measured.
const JOURNALS: [usize; 4] = [28, 16 << 10, 48 << 10, 64 << 10];

/// By how much less than the poll interval two looks are apart on average: it is shortened by up to a fifth, at random.
const JITTER: f64 = 0.9;

/// The bytes of an entry of the journal, and how many a bump appends for each group.
const ENTRY_LEN: usize = 24;
const ENTRIES_PER_BUMP: usize = 2;

/// The bytes of the answer to a look that finds the journal unchanged, about.
const LINE: f64 = 30.0;

/// How exactly bumps are on time.
const TICK: Duration = Duration::from_millis(2);

/// How many groups are bumped at once to fill a journal.
const FILL: usize = 128;

/// Some processes at work.
#[derive(Clone, Copy, Debug)]
struct Crowd {
    processes: usize,
    poll_interval: Duration,
    bumps_per_second: f64,
}

const fn crowd(processes: usize, poll_ms: u64, bumps_per_second: f64) -> Crowd {
    Crowd { processes, poll_interval: Duration::from_millis(poll_ms), bumps_per_second }
}

const CROWDS: [Crowd; 8] = [
    crowd(10, 50, 0.0),
    crowd(10, 50, 10.0),
    crowd(100, 50, 0.0),
    crowd(100, 50, 1.0),
    crowd(100, 50, 10.0),
    crowd(100, 500, 10.0),
    crowd(300, 500, 0.0),
    crowd(300, 500, 10.0),
];

/// Prints what looks cost, and what each crowd does.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    println!("A look at the journal, by the processor time of memcached (1 thread, 16 connections):\n");
    println!("| what | answer | time of the server | looks a second of one thread |\n|---|---|---|---|");
    for (what, len) in [("version alone", None)].into_iter().chain(JOURNALS.map(|len| ("all of it", Some(len)))) {
        let cost = look_cost(len)?;
        let answer = len.map_or_else(|| "a line".to_owned(), |len| format!("{len} B"));
        println!("| {what} | {answer} | {:.1} µs | {:.0} |", cost * 1e6, 1.0 / cost);
    }
    println!("\nProcesses that follow a journal of about 48 KiB, {TIME:?} each: expected / in memory / memcached.\n");
    println!(
        "| processes | poll interval | bumps a second | looks a second | of these read all | MB a second | share of a processor |"
    );
    println!("|---|---|---|---|---|---|---|");
    for crowd in CROWDS {
        let in_memory = crowd.work(InMemoryRemote::new(), || Ok(Figures::default()))?;
        let server = Server::start();
        let on_server = crowd.work(Memcached::connect(server.addr())?, || Figures::of(&server))?;
        println!("{}", crowd.row(&in_memory, &on_server));
    }
    Ok(())
}

/// What some processes came to in a second.
struct Work {
    counts: Counts,
    server: Figures,
}

impl Crowd {
    /// Returns how many looks a second are to be expected, and the part of them that finds the journal changed and reads it.
    fn expected(&self) -> (f64, f64) {
        let looks = 1.0 / (JITTER * self.poll_interval.as_secs_f64());
        (looks * self.processes as f64, 1.0 - (-self.bumps_per_second / looks).exp())
    }

    /// Returns how many bytes a second the server is to send: a line for each look, the journal for each that reads it, and once
    /// more for each bump, whose process reads it as well.
    fn expected_bytes(&self) -> f64 {
        let (looks, reads) = self.expected();
        looks * LINE + (looks * reads + self.bumps_per_second) * USUAL_JOURNAL as f64
    }

    /// Lets the processes follow a journal of the usual length for a while, and returns what that came to; `figures` are those of
    /// the server.
    fn work(
        &self,
        tier: impl RemoteTier,
        figures: impl Fn() -> Result<Figures, Box<dyn Error>>,
    ) -> Result<Work, Box<dyn Error>> {
        let tier = Counted::new(tier);
        let build = || {
            Namespace::builder("scale", tier.clone()).poll_interval(self.poll_interval).trust(self.poll_interval * 10)
        };
        let bumper = build().build()?;
        for at in 0..USUAL_JOURNAL / (FILL * ENTRIES_PER_BUMP * ENTRY_LEN) {
            _ = bumper.invalidate_groups((0..FILL).map(|group| format!("{at}:{group}")));
        }
        // The bumper follows as well.
        let others = (1..self.processes).map(|_| build().build()).collect::<Result<Vec<_>, _>>()?;
        // The first look of each reads all of it, which is none of its usual ones.
        while others.iter().any(|other| other.health().resyncs == 0) {
            thread::sleep(TICK);
        }
        let (counts, server, start) = (tier.counts(), figures()?, Instant::now());
        let mut next = self.pause();
        while start.elapsed() < TIME {
            if start.elapsed() >= next {
                _ = bumper.invalidate_group(&format!("group:{}", fastrand::u32(..64)));
                next = next.saturating_add(self.pause());
            }
            thread::sleep(TICK);
        }
        let time = start.elapsed();
        Ok(Work { counts: (tier.counts() - counts).per(time), server: (figures()? - server).per(time) })
    }

    /// Returns how long nobody bumps: bumps come at random, whenever others did.
    fn pause(&self) -> Duration {
        let pause = -(1.0 - fastrand::f64()).ln() / self.bumps_per_second;
        Duration::try_from_secs_f64(pause).unwrap_or(Duration::MAX)
    }

    fn row(&self, in_memory: &Work, on_server: &Work) -> String {
        let (looks, reads) = self.expected();
        let part = |Work { counts, .. }: &Work| 100.0 * (counts.reads / counts.looks.max(1.0));
        format!(
            "| {} | {:?} | {} | {looks:.0} / {:.0} / {:.0} | {:.0} % / {:.0} % / {:.0} % | {:.2} / {:.2} | {:.1} % |",
            self.processes,
            self.poll_interval,
            self.bumps_per_second,
            in_memory.counts.looks,
            on_server.counts.looks,
            reads * 100.0,
            part(in_memory),
            part(on_server),
            self.expected_bytes() / 1e6,
            on_server.server.bytes / 1e6,
            100.0 * on_server.server.busy,
        )
    }
}
