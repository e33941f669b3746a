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

/// The poll intervals, in milliseconds, and changes a second whose limits are told.
const INTERVALS_MS: [u64; 3] = [50, 200, 1_000];
const CHANGES: [f64; 4] = [0.0, 1.0, 10.0, 100.0];

/// The bytes a second of a link of 1 Gbit/s.
const LINK: f64 = 125e6;

/// Prints what looks cost, what each crowd does, and how many processes use up a thread of the server or a link.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    println!("| look at | answer | processor time of the server | looks a second of one thread |\n|---|---|---|---|");
    let print = |what: &str, answer: &str, cost: f64| {
        println!("| {what} | {answer} | {:.1} µs | {:.0} |", cost * 1e6, 1.0 / cost);
    };
    let peek = look_cost(None)?;
    print("its version", "a line", peek);
    let mut usual = 0.0;
    for len in JOURNALS {
        let cost = look_cost(Some(len))?;
        print("all of it", &format!("{len} B"), cost);
        usual = if len == USUAL_JOURNAL { cost } else { usual };
    }
    println!(
        "\n| processes | poll interval | bumps a second | looks a second | of these read all | MB a second | of a processor |"
    );
    println!("|---|---|---|---|---|---|---|");
    for crowd in CROWDS {
        let in_memory = crowd.work(InMemoryRemote::new(), || Ok(Figures::default()))?;
        let server = Server::start();
        let on_server = crowd.work(Memcached::connect(server.addr())?, || Figures::of(&server))?;
        println!("{}", crowd.row(&in_memory, &on_server));
    }
    println!(
        "\n| poll interval | changes a second | kB a second for each process | processes at 1 Gbit/s | at one thread |"
    );
    println!("|---|---|---|---|---|");
    for (poll_ms, changes) in INTERVALS_MS.into_iter().flat_map(|ms| CHANGES.map(|changes| (ms, changes))) {
        let one = crowd(1, poll_ms, changes);
        let (looks, reads) = one.expected();
        let (bytes, busy) = (one.followers_bytes(), looks * (peek + reads * usual));
        println!("| {poll_ms} ms | {changes} | {:.1} | {:.0} | {:.0} |", bytes / 1e3, LINK / bytes, 1.0 / busy);
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

    /// Returns how many bytes a second the server is to send to those who follow the journal: a line for each look, and the
    /// journal for each that reads it.
    fn followers_bytes(&self) -> f64 {
        let (looks, reads) = self.expected();
        looks * (LINE + reads * USUAL_JOURNAL as f64)
    }

    /// Returns how many bytes a second the server is to send in all: the journal once more for each bump, whose process reads it
    /// as well.
    fn expected_bytes(&self) -> f64 {
        self.followers_bytes() + self.bumps_per_second * USUAL_JOURNAL as f64
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
