//! The oracle: what the processes wrote down, judged while they go on.
//!
//! **Staleness.** The source counts versions of each group, and values tell which versions they were made from. Once a bump for a
//! version is acknowledged, values of older ones are dead. A read that began at `t` has to know every bump that was acknowledged
//! before the last look at the journal that its process had applied by then, and every one that was acknowledged before
//! `t - trust`, whatever its process can reach. The first bound is exact, and needs no guess at how long a poll takes on a busy
//! machine: the trust lease tells when that look was noted. All processes read one monotonic clock, which goes on while they are
//! stopped, and a stopped process counts its read from before the stop. A bump is acknowledged when its process has written that
//! down; one whose process is killed before is owed to nobody. Since an acknowledgement counts for good, one that is lost shows
//! as a read that is too old, at the latest when everything is read at the end.
//!
//! **One load.** Of keys that only time takes away, no two loads run at once, by different processes or by one, where nothing
//! was wrong: from a second before the first of them until the second began, there was no fault, no exchange of the two processes
//! failed, and neither of them was stopped for as long as a lease waits to be renewed.
//!
//! **The rest**: no value that is not byte for byte what a load made of its key; no read of a process older than a bump of its
//! own that had returned, acknowledged or not; no call that takes longer than its documentation says, beyond a slack and stops
//! that were noticed; no panic, caught or not; no process that ends by itself; memory below a limit; and everything as it should
//! be again soon after the last fault.
//!
//! How soon an unhindered process learns of a bump is not judged here, where much else goes on, but told; the tests of the
//! package `larder-procs` judge it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use shared::clock::{now_ns, ns};
use shared::truth::GROUPS;

use crate::fault::Fault;
use crate::record::Record;
use crate::value::SINGLES;
use crate::verb::Verb;

/// How long a judgement waits for what others have yet to write down: longer than a process is stopped on purpose.
const HORIZON: Duration = Duration::from_secs(5);

/// How long the past is remembered.
const MEMORY: Duration = Duration::from_secs(60);

/// How long after a fault its consequences may last: breakers open again for two seconds at most, but one that fails probes is
/// trouble that its process tells of.
const SETTLING: Duration = Duration::from_millis(1_500);

/// For how long before a load everything must have been well.
const BEFORE: Duration = Duration::from_secs(1);

/// For how long a process may not run and still keep its leases, which it renews each third of their three seconds.
const NAP: Duration = Duration::from_millis(900);

/// The most memory that a process may take: several times what it takes when all is well.
const MEMORY_LIMIT: u64 = 192 << 20;

/// So many violations are told in full.
const TOLD: usize = 8;

/// What the judge hears.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    Record(usize, Record),
    /// A process has ended, as it was to, or by itself.
    Ended {
        process: usize,
        expected: bool,
        at_ns: u64,
    },
    /// A fault, by its number, begins or is over.
    Begins {
        number: usize,
        fault: Fault,
        what: String,
        at_ns: u64,
    },
    Over {
        number: usize,
        at_ns: u64,
    },
    /// How much memory a process takes.
    Memory {
        process: usize,
        bytes: u64,
    },
    /// Something that is against the run as a whole.
    Against(String),
}

/// What was wrong, and from when to when.
#[derive(Clone, Debug)]
struct Disturbance {
    what: String,
    /// The process that it is about; `None` for a fault, which may be about all.
    process: Option<usize>,
    from_ns: u64,
    to_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ack {
    version: u64,
    acked_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Load {
    process: usize,
    load: u64,
    began_ns: u64,
    ended_ns: u64,
}

/// What is judged once all that matters to it has been written down.
#[derive(Clone, Copy, Debug)]
enum Case {
    Seen { group: u16, version: u64, known_ns: u64, began_ns: u64 },
    Load { key: u16, load: u64 },
}

#[derive(Debug)]
pub(crate) struct Judge {
    /// Whether answers that are too old are violations.
    strict: bool,
    acks: Vec<Vec<Ack>>,
    loads: Vec<VecDeque<Load>>,
    disturbances: VecDeque<Disturbance>,
    /// By number: faults under way.
    under_way: BTreeMap<usize, Disturbance>,
    cases: VecDeque<(u64, usize, Case)>,
    pub(crate) verdict: Verdict,
}

/// What came out.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) reads: u64,
    loads: u64,
    bumps: u64,
    acked: u64,
    failures: u64,
    resyncs: u64,
    most_pending: u32,
    stalled_ns: u64,
    /// Groups' versions that were compared with what had to be known; and pairs of loads that were looked at where all was well.
    judged: u64,
    judged_loads: u64,
    /// Reads that were too old, in a run that does not hold it against larder.
    too_old: u64,
    faults: BTreeMap<Fault, u64>,
    longest_look_ns: u64,
    longest_call_ns: [u64; Verb::ALL.len()],
    most_memory: u64,
    slowest_recovery_ns: u64,
    pub(crate) recovered: usize,
    pub(crate) unwell: usize,
    pub(crate) damaged: u64,
    /// By kind.
    violations: BTreeMap<&'static str, u64>,
    told: Vec<String>,
}

impl Judge {
    pub(crate) fn new(strict: bool) -> Judge {
        Judge {
            strict,
            acks: vec![Vec::new(); GROUPS as usize],
            loads: vec![VecDeque::new(); SINGLES as usize],
            disturbances: VecDeque::new(),
            under_way: BTreeMap::new(),
            cases: VecDeque::new(),
            verdict: Verdict::default(),
        }
    }

    /// Hears what there is to hear within `time`.
    pub(crate) fn listen(&mut self, notes: &Receiver<Note>, time: Duration) {
        let until_ns = now_ns() + ns(time);
        loop {
            let left = Duration::from_nanos(until_ns.saturating_sub(now_ns()));
            match notes.recv_timeout(left) {
                Ok(note) => self.hear(note),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        self.decide(now_ns().saturating_sub(ns(HORIZON)));
        self.forget(now_ns().saturating_sub(ns(MEMORY)));
    }

    /// Judges what there is left to judge, and returns the verdict.
    pub(crate) fn conclude(mut self) -> Verdict {
        self.decide(u64::MAX);
        self.verdict
    }

    pub(crate) fn hear(&mut self, note: Note) {
        match note {
            Note::Record(process, record) => self.hear_record(process, record),
            Note::Ended { process, expected, at_ns } => {
                for load in self.loads.iter_mut().flatten() {
                    if load.process == process && load.ended_ns == u64::MAX {
                        load.ended_ns = at_ns;
                    }
                }
                if !expected {
                    self.violation("ended by itself", format!("process {process} ended by itself"), at_ns);
                }
            }
            Note::Begins { number, fault, what, at_ns } => {
                *self.verdict.faults.entry(fault).or_default() += 1;
                self.under_way.insert(number, Disturbance { what, process: None, from_ns: at_ns, to_ns: u64::MAX });
            }
            Note::Over { number, at_ns } => {
                if let Some(over) = self.under_way.remove(&number) {
                    self.disturbances.push_back(Disturbance { to_ns: at_ns + ns(SETTLING), ..over });
                }
            }
            Note::Memory { process, bytes } => {
                if bytes > MEMORY_LIMIT && self.verdict.most_memory <= MEMORY_LIMIT {
                    let what = format!("process {process} takes {} MiB of memory", bytes >> 20);
                    self.violation("memory", what, now_ns());
                }
                self.verdict.most_memory = self.verdict.most_memory.max(bytes);
            }
            Note::Against(what) => self.violation("other", what, now_ns()),
        }
    }

    fn hear_record(&mut self, process: usize, record: Record) {
        let now = now_ns();
        match record {
            Record::Seen { group, version, known_ns, began_ns, reads } => {
                self.verdict.judged += u64::from(reads);
                self.cases.push_back((now, process, Case::Seen { group, version, known_ns, began_ns }));
            }
            Record::Acked { group, version, acked_ns, .. } => {
                self.verdict.acked += 1;
                self.acks[group as usize].push(Ack { version, acked_ns });
            }
            Record::LoadBegan { key, load, at_ns } => {
                self.loads[key as usize].push_back(Load { process, load, began_ns: at_ns, ended_ns: u64::MAX });
                self.cases.push_back((now, process, Case::Load { key, load }));
            }
            Record::LoadEnded { key, load, at_ns } => {
                if let Some(begun) = self.loads[key as usize].iter_mut().find(|begun| begun.load == load) {
                    begun.ended_ns = at_ns;
                }
            }
            Record::Stalled { from_ns, to_ns } => {
                self.verdict.stalled_ns += to_ns - from_ns;
                if to_ns - from_ns < ns(NAP) {
                    return;
                }
                let what = format!("process {process} does not run");
                self.disturbances.push_back(Disturbance { what, process: Some(process), from_ns, to_ns });
            }
            Record::Troubled { from_ns, to_ns } => {
                let what = format!("exchanges of process {process} fail");
                // One after the other, they are one.
                match self.disturbances.iter_mut().find(|wrong| wrong.to_ns >= from_ns && wrong.what == what) {
                    Some(wrong) => wrong.to_ns = to_ns,
                    None => self.disturbances.push_back(Disturbance { what, process: Some(process), from_ns, to_ns }),
                }
            }
            Record::Overdue { verb, began_ns, took_ns } => {
                let (verb, took) = (Verb::ALL[verb as usize], Duration::from_nanos(took_ns));
                let what =
                    format!("process {process}: {verb:?} has taken {took:.1?}, and {:?} is allowed", verb.limit());
                self.violation("stuck", what, began_ns);
            }
            Record::Wrong { key } => {
                self.violation("wrong value", format!("process {process} was given a wrong value for key {key}"), now);
            }
            Record::OwnStale { group, version, bumped } => {
                let what = format!(
                    "process {process} read version {version} of group {group} after its own bump for {bumped}"
                );
                self.violation("own bump", what, now);
            }
            Record::Panicked => self.violation("panic", format!("process {process} panicked"), now),
            Record::Done { reads, loads, bumps, failures, resyncs, pending } => {
                let verdict = &mut self.verdict;
                verdict.reads += u64::from(reads);
                verdict.loads += u64::from(loads);
                verdict.bumps += u64::from(bumps);
                verdict.failures += u64::from(failures);
                verdict.resyncs += u64::from(resyncs);
                verdict.most_pending = verdict.most_pending.max(pending);
            }
            Record::Longest { look_ns, verb, call_ns } => {
                if self.was_well(&[process], now.saturating_sub(ns(BEFORE)), now) {
                    self.verdict.longest_look_ns = self.verdict.longest_look_ns.max(look_ns);
                }
                let longest = &mut self.verdict.longest_call_ns[verb as usize];
                *longest = (*longest).max(call_ns);
            }
            Record::Recovered { took_ns } => {
                self.verdict.recovered += 1;
                self.verdict.slowest_recovery_ns = self.verdict.slowest_recovery_ns.max(took_ns);
            }
            Record::Unwell { step, trust_ns, owed } => {
                self.verdict.unwell += 1;
                let what = format!(
                    "process {process} has not recovered: step {step} of its recovery, {trust_ns} ns of trust, {owed} owed"
                );
                self.violation("not recovered", what, now);
            }
        }
    }

    /// Judges what was heard until `heard_ns`.
    fn decide(&mut self, heard_ns: u64) {
        while let Some((_, process, case)) = self.cases.pop_front_if(|(at_ns, ..)| *at_ns <= heard_ns) {
            match case {
                Case::Seen { group, version, known_ns, began_ns } => {
                    let acks = self.acks[group as usize].iter().filter(|ack| ack.acked_ns <= known_ns);
                    let known = acks.max_by_key(|ack| ack.version).copied();
                    if let Some(known) = known.filter(|known| known.version > version) {
                        self.late(process, (group, version), known, (known_ns, began_ns));
                    }
                }
                Case::Load { key, load } => self.judge_load(key, load),
            }
        }
    }

    fn late(&mut self, process: usize, (group, version): (u16, u64), known: Ack, (known_ns, began_ns): (u64, u64)) {
        if !self.strict {
            self.verdict.too_old += 1;
            return;
        }
        let past = Duration::from_nanos(began_ns.saturating_sub(known.acked_ns));
        let looked = Duration::from_nanos(began_ns.saturating_sub(known_ns));
        let what = format!(
            "process {process} read version {version} of group {group} {past:.1?} after version {} was acknowledged, and \
             {looked:.1?} after what it had to know",
            known.version
        );
        self.violation("too old", what, began_ns);
    }

    fn judge_load(&mut self, key: u16, load: u64) {
        let loads = &self.loads[key as usize];
        let Some(second) = loads.iter().find(|begun| begun.load == load).copied() else { return };
        let is_before = |first: &&Load| (first.began_ns, first.load) < (second.began_ns, second.load);
        let mut beside = loads.iter().filter(is_before).filter(|first| first.ended_ns > second.began_ns);
        let first = beside.next().copied();
        let (from_ns, processes) = match first {
            Some(first) => (first.began_ns, vec![first.process, second.process]),
            None => (second.began_ns, vec![second.process]),
        };
        if !self.was_well(&processes, from_ns.saturating_sub(ns(BEFORE)), second.began_ns) {
            return;
        }
        self.verdict.judged_loads += 1;
        if let Some(first) = first {
            let after = Duration::from_nanos(second.began_ns - first.began_ns);
            let what = format!(
                "process {} loads key {key} beside process {}, which has begun {after:.1?} before",
                second.process, first.process
            );
            self.violation("two loads", what, second.began_ns);
        }
    }

    /// Returns whether nothing was wrong in this time that may have kept one of these processes from what is promised.
    fn was_well(&self, processes: &[usize], from_ns: u64, to_ns: u64) -> bool {
        let concerns = |wrong: &Disturbance| wrong.process.is_none_or(|process| processes.contains(&process));
        let mut wrongs = self.disturbances.iter().chain(self.under_way.values()).filter(|wrong| concerns(wrong));
        !wrongs.any(|wrong| wrong.from_ns <= to_ns && wrong.to_ns >= from_ns)
    }

    fn violation(&mut self, kind: &'static str, what: String, at_ns: u64) {
        *self.verdict.violations.entry(kind).or_default() += 1;
        if self.verdict.told.len() < TOLD {
            let mut told = what;
            for wrong in self.disturbances.iter().chain(self.under_way.values()) {
                let ms = |ns: u64| (ns as f64 - at_ns as f64) / 1e6;
                let (from_ms, to_ms) = (ms(wrong.from_ns), ms(wrong.to_ns.min(at_ns + ns(HORIZON))));
                if to_ms > -2e3 && from_ms < 1e3 {
                    write!(told, "\n    {from_ms:>9.1} to {to_ms:>9.1} ms: {}", wrong.what)
                        .expect("strings take everything");
                }
            }
            self.verdict.told.push(told);
        }
    }

    /// Forgets what was over before `before_ns` and can decide nothing any more.
    fn forget(&mut self, before_ns: u64) {
        for acks in &mut self.acks {
            // The last one counts for good.
            let last = acks.iter().map(|ack| ack.version).max();
            acks.retain(|ack| ack.acked_ns >= before_ns || Some(ack.version) == last);
        }
        self.loads.iter_mut().for_each(|loads| loads.retain(|load| load.ended_ns >= before_ns));
        self.disturbances.retain(|wrong| wrong.to_ns >= before_ns);
    }
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Duration::from_nanos;
        writeln!(
            f,
            "{} reads, {} loads, {} bumps ({} acknowledged, {} pending at most), {} failed exchanges and looks, {} resyncs",
            self.reads, self.loads, self.bumps, self.acked, self.most_pending, self.failures, self.resyncs
        )?;
        writeln!(
            f,
            "judged: {} versions read, {} loads where all was well{}",
            self.judged,
            self.judged_loads,
            if self.too_old > 0 {
                format!("; not judged: {} versions that were too old", self.too_old)
            } else {
                String::new()
            }
        )?;
        let calls = Verb::ALL.into_iter().zip(self.longest_call_ns);
        let calls: Vec<_> = calls.map(|(verb, ns)| format!("{verb:?} {:.1?}", time(ns))).collect();
        writeln!(f, "longest calls: {}", calls.join(", "))?;
        writeln!(
            f,
            "longest since a look where all was well {:.1?}; slowest recovery {:.1?}; most memory {} MiB; not run for {:.1?}",
            time(self.longest_look_ns),
            time(self.slowest_recovery_ns),
            self.most_memory >> 20,
            time(self.stalled_ns)
        )?;
        let faults: Vec<_> = self.faults.iter().map(|(fault, times)| format!("{} {times}", fault.name())).collect();
        writeln!(
            f,
            "faults: {} ({}); {} pieces damaged",
            self.faults.values().sum::<u64>(),
            faults.join(", "),
            self.damaged
        )?;
        self.told.iter().try_for_each(|told| writeln!(f, "VIOLATION: {told}"))?;
        let kinds: Vec<_> = self.violations.iter().map(|(kind, times)| format!("{kind} {times}")).collect();
        let total: u64 = self.violations.values().sum();
        write!(f, "violations: {total}{}", if total > 0 { format!(" ({})", kinds.join(", ")) } else { String::new() })
    }
}
