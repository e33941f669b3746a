//! The promises of the journal, against any order of what several processes do at once and of what a store can suffer.
//!
//! Everything runs as it does in earnest, each task on a thread of its own. But only one of them runs at a time, to its
//! next command and no further: a schedule decides which. So an order that fails is found again.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::announce::{append, bump, compact_from};
use super::follower::{Follower, Moves};
use super::item::JournalItem;
use super::journal::{Entry, Journal, Moved};
use super::poller::Source;
use super::support::{Moment, journal_key, read, watched, write};
use super::trust::Trust;
use crate::clock::real::block_on;
use crate::clock::{Clock, ManualClock, Timestamp};
use crate::remote::batch::{Batcher, Caller};
use crate::remote::error::RemoteError;
use crate::remote::in_memory::InMemoryRemote;
use crate::remote::key::WireKey;
use crate::remote::request::Request;
use crate::remote::tier::{Expiry, Reply, Route, SetMode};
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// Longer than any schedule, so that the lease tells the time that trust was extended from.
const LEASE: Duration = Duration::from_secs(3_600);

/// It is full soon.
const MAX_ENTRIES: usize = 8;

/// The journal's header and as many entries.
const MAX_JOURNAL_LEN: usize = 28 + MAX_ENTRIES * 24;

/// The journal's header and three entries: it is compacted soon.
const COMPACT_FROM: usize = 28 + 3 * 24;

const PROCESSES: usize = 3;

/// The group's token, the one that bumps replace and values are stored under.
type Token = [u8; 8];

struct World {
    store: InMemoryRemote,
    journal: WireKey,
    token: WireKey,
    clock: Clock,
    time: ManualClock,
    processes: Vec<Process>,
    last_id: AtomicU64,
    acknowledged: Mutex<Vec<Acknowledged>>,
    /// The present version of what loads read, and the last one whose bump was acknowledged.
    truth: AtomicU64,
    announced_truth: AtomicU64,
    /// The values in the store: of which version, under which token.
    values: Mutex<Vec<(u64, Token)>>,
}

struct Process {
    follower: Follower,
    trust: Trust,
    local: Mutex<Local>,
}

/// An entry that was acknowledged.
struct Acknowledged {
    id: u64,
    /// From when on the store had what the entry tells of. Whoever has applied it since has nothing older.
    changed: Timestamp,
    when: Timestamp,
}

/// What a process has applied, and when last.
#[derive(Default)]
struct Local {
    entries: HashMap<u64, Timestamp>,
    last_resync: Option<Timestamp>,
    /// Moves with everything that is applied, as the generations of groups do.
    generation: u64,
}

impl World {
    fn new() -> World {
        let (clock, time) = Clock::manual();
        let process = |at: usize| Process {
            follower: Follower::new(at as u64),
            trust: Trust::new(clock.clone(), LEASE),
            local: Mutex::default(),
        };
        World {
            store: InMemoryRemote::new().with_max_value_len(MAX_JOURNAL_LEN),
            journal: journal_key(),
            token: WireKey::new("ns:g:h:1").unwrap(),
            processes: (0..PROCESSES).map(process).collect(),
            clock,
            time,
            last_id: AtomicU64::new(0),
            acknowledged: Mutex::default(),
            truth: AtomicU64::new(0),
            announced_truth: AtomicU64::new(0),
            values: Mutex::default(),
        }
    }

    /// Returns an entry like no other.
    fn entry(&self, process: usize) -> Entry {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed);
        Entry { moved: Moved::GroupHard(id), sender: process as u64 }
    }

    fn fresh_token(&self) -> Token {
        self.last_id.fetch_add(1, Ordering::Relaxed).to_le_bytes()
    }

    fn acknowledge(&self, entries: &[Entry], changed: Timestamp) {
        let when = self.clock.now();
        let acknowledged = entries.iter().map(|entry| Acknowledged { id: id_of(entry), changed, when });
        self.acknowledged.lock().extend(acknowledged);
    }

    /// Checks what must hold at any moment.
    fn check(&self) {
        let now = self.clock.now();
        for (at, process) in self.processes.iter().enumerate() {
            let left = process.trust.left();
            if left.is_zero() {
                continue;
            }
            let noted_ago = LEASE - left;
            let local = process.local.lock();
            for &Acknowledged { id, changed, when } in self.acknowledged.lock().iter() {
                let applied = local.entries.get(&id).copied().max(local.last_resync);
                let covered = now.since(when) > noted_ago;
                assert!(
                    !covered || applied >= Some(changed),
                    "process {at} applied {id}, of {changed:?} and acknowledged at {when:?}, at {applied:?}"
                );
            }
        }
        if let Some(token) = read(&self.store, &self.token) {
            for &(version, under) in self.values.lock().iter() {
                let old = version < self.announced_truth.load(Ordering::Relaxed);
                assert!(!old || under[..] != token.value[..], "a value of version {version} counts again");
            }
        }
    }
}

fn id_of(entry: &Entry) -> u64 {
    match entry.moved {
        Moved::GroupHard(id) => id,
        other => panic!("nobody appended {other:?}"),
    }
}

/// What one thread of a process does.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// Looks at the journal, applies what is new, adopts it.
    Look,
    /// Appends as many entries.
    Append(usize),
    /// Changes what loads read, and bumps the group.
    Bump,
    Compact,
    /// Loads a value, and names its group only then.
    Load,
}

/// A thread's side of the schedule.
struct Turns {
    arrived: Mutex<Sender<()>>,
    go: Mutex<Receiver<()>>,
}

impl Turns {
    /// Waits until the schedule lets this thread go on.
    fn wait(&self) {
        // A schedule that is gone has failed: then nothing matters any more.
        let _ = self.arrived.lock().send(());
        let _ = self.go.lock().recv();
    }
}

/// The schedule's side of a thread.
struct Task {
    go: Sender<()>,
    arrived: Receiver<()>,
    thread: JoinHandle<()>,
}

impl Task {
    fn start(world: &Arc<World>, process: usize, work: Work) -> Task {
        let (go, wait_to_go) = channel();
        let (arrive, arrived) = channel();
        let world = world.clone();
        let thread = std::thread::spawn(move || {
            let turns = Arc::new(Turns { arrived: Mutex::new(arrive), go: Mutex::new(wait_to_go) });
            turns.wait();
            // What fails is not acknowledged, and that is all there is to it.
            let _ = block_on(carry_out(&world, process, work, &turns));
        });
        let task = Task { go, arrived, thread };
        task.arrived.recv().unwrap();
        task
    }

    /// Lets the thread run to its next command, and returns it unless that was the end.
    fn step(self) -> Option<Task> {
        self.go.send(()).unwrap();
        if self.arrived.recv().is_ok() {
            return Some(self);
        }
        self.thread.join().unwrap();
        None
    }
}

async fn carry_out(world: &World, process: usize, work: Work, turns: &Arc<Turns>) -> Result<(), RemoteError> {
    let token_set = Arc::new(Mutex::new(world.clock.now()));
    let way = watched(&world.store, {
        let (turns, token, clock, token_set) =
            (turns.clone(), world.token.clone(), world.clock.clone(), token_set.clone());
        move |command, moment| {
            if *command.key == token && moment == Moment::AfterCommand {
                *token_set.lock() = clock.now();
            }
            turns.wait();
        }
    });
    match work {
        Work::Look => look(world, process, turns, &way).await,
        Work::Append(count) => {
            let entries: Vec<Entry> = (0..count).map(|_| world.entry(process)).collect();
            // Data first, then the entry.
            let changed = world.clock.now();
            append(&way, Caller::Thread, &world.journal, &entries).await?;
            world.acknowledge(&entries, changed);
            Ok(())
        }
        Work::Bump => {
            let version = world.truth.fetch_add(1, Ordering::Relaxed) + 1;
            turns.wait();
            let entries = [world.entry(process)];
            let tokens = [world.token.clone()];
            bump(&way, Caller::Thread, &world.journal, &tokens, || world.fresh_token(), &entries).await?;
            world.acknowledge(&entries, *token_set.lock());
            world.announced_truth.fetch_max(version, Ordering::Relaxed);
            Ok(())
        }
        Work::Compact => {
            let item = JournalItem { batcher: &way, caller: Caller::Thread, key: &world.journal };
            compact_from(COMPACT_FROM, item).await
        }
        Work::Load => load(world, process, turns, &way).await,
    }
}

async fn look(world: &World, process: usize, turns: &Turns, way: &Batcher) -> Result<(), RemoteError> {
    let Process { follower, trust, local } = &world.processes[process];
    let source =
        Source { batcher: way, caller: Caller::Thread, journal: &world.journal, follower, clock: &world.clock };
    let news = source.look().await?;
    turns.wait();
    match news.moved() {
        Moves::Nothing => {}
        Moves::Entries(entries) => {
            for entry in entries {
                let mut local = local.lock();
                local.entries.insert(id_of(entry), world.clock.now());
                local.generation += 1;
                drop(local);
                turns.wait();
            }
        }
        Moves::Lost(_) => {
            let mut local = local.lock();
            local.last_resync = Some(world.clock.now());
            local.generation += 1;
        }
    }
    turns.wait();
    follower.adopt(news, trust);
    Ok(())
}

/// A load that names its group only when it has ended: it reads the token, then the journal (R7).
async fn load(world: &World, process: usize, turns: &Turns, way: &Batcher) -> Result<(), RemoteError> {
    let local = &world.processes[process].local;
    let born = local.lock().generation;
    turns.wait();
    let version = world.truth.load(Ordering::Relaxed);
    turns.wait();
    let Some(token) = token(world, way).await? else { return Ok(()) };
    look(world, process, turns, way).await?;
    if local.lock().generation == born {
        turns.wait();
        world.values.lock().push((version, token));
    }
    Ok(())
}

/// Returns the group's token, or one that was missing and is now added.
async fn token(world: &World, way: &Batcher) -> Result<Option<Token>, RemoteError> {
    let added = world.fresh_token();
    let get = Request::get(world.token.clone(), Route::Control);
    let add = Request::set(world.token.clone(), Route::Control, added.to_vec(), Expiry::Never, SetMode::Add, None);
    let first = way.run(Caller::Thread, vec![get]).await.remove(0)?;
    match first {
        Reply::Hit(item) => Ok(Some((*item.value).try_into().unwrap())),
        _ => Ok((way.run(Caller::Thread, vec![add]).await.remove(0)? == Reply::Done).then_some(added)),
    }
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    Start(usize, Work),
    /// One of the threads that are under way goes on to its next command.
    Step(usize),
    Flush,
    Restart,
    Evict,
    /// Somebody has put one of these into the journal's place.
    Spoil(usize),
    FailNext(u64),
    LoseReplies(u64),
    Offline(bool),
}

fn work() -> impl Strategy<Value = Work> {
    prop_oneof![
        6 => Just(Work::Look),
        3 => (1..4_usize).prop_map(Work::Append),
        3 => Just(Work::Bump),
        1 => Just(Work::Compact),
        3 => Just(Work::Load),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        16 => (0..PROCESSES, work()).prop_map(|(process, work)| Event::Start(process, work)),
        80 => any::<usize>().prop_map(Event::Step),
        1 => Just(Event::Flush),
        1 => Just(Event::Restart),
        2 => Just(Event::Evict),
        1 => (0..4_usize).prop_map(Event::Spoil),
        1 => (1..4_u64).prop_map(Event::FailNext),
        1 => (1..4_u64).prop_map(Event::LoseReplies),
        1 => any::<bool>().prop_map(Event::Offline),
    ]
}

fn spoilt(world: &World, how: usize) -> Vec<u8> {
    let mut journal = read(&world.store, &world.journal).map_or_else(Vec::new, |item| item.value.into());
    match how {
        0 => journal.clear(),
        1 => journal = b"garbage".to_vec(),
        2 => journal.truncate(journal.len().saturating_sub(1)),
        // An entry of a kind that is not known yet.
        _ if journal.len() + 24 <= MAX_JOURNAL_LEN => journal.extend([9; 24]),
        _ => {}
    }
    journal
}

/// The world and the threads in it.
struct Play {
    world: Arc<World>,
    tasks: Vec<Task>,
}

impl Play {
    fn new() -> Play {
        Play { world: Arc::new(World::new()), tasks: Vec::new() }
    }

    fn start(&mut self, process: usize, work: Work) {
        self.tasks.push(Task::start(&self.world, process, work));
    }

    fn step(&mut self, which: usize) {
        if self.tasks.is_empty() {
            return;
        }
        let at = which % self.tasks.len();
        if let Some(task) = self.tasks.remove(at).step() {
            self.tasks.insert(at, task);
        }
        self.passes();
    }

    /// Time passes between any two steps, and nothing may be wrong at any time.
    fn passes(&self) {
        self.world.check();
        self.world.time.advance(Duration::from_millis(1));
    }

    /// Lets all threads come to their end, the last one first.
    fn run_out(&mut self) {
        while !self.tasks.is_empty() {
            self.step(self.tasks.len() - 1);
        }
    }

    fn recover(&self) {
        self.world.store.offline(false);
        self.world.store.fail_next(0);
        self.world.store.lose_replies(0);
    }

    fn happens(&mut self, event: Event) {
        let store = &self.world.store;
        match event {
            Event::Start(process, work) => self.start(process, work),
            Event::Step(which) => self.step(which),
            Event::Flush => store.flush(),
            Event::Restart => store.restart(),
            Event::Evict => drop(store.evict(&self.world.journal)),
            Event::Spoil(how) => {
                self.recover();
                write(store, &self.world.journal, &spoilt(&self.world, how));
            }
            Event::FailNext(commands) => store.fail_next(commands),
            Event::LoseReplies(commands) => store.lose_replies(commands),
            Event::Offline(offline) => store.offline(offline),
        }
        self.passes();
    }
}

proptest! {
    /// Every process has applied each acknowledged entry, or resynced after what it tells of, before its trust covers a time
    /// after the acknowledgement. And no value counts that a load brought from before a bump that was acknowledged.
    #[test]
    fn trust_never_covers_what_was_not_applied(events in prop::collection::vec(event(), 1..200)) {
        let mut play = Play::new();
        for event in events {
            play.happens(event);
        }
        // Whatever has happened, everything comes to its end, and then each process can follow.
        play.recover();
        play.run_out();
        for process in 0..PROCESSES {
            play.start(process, Work::Look);
            let before = play.world.clock.now();
            play.run_out();
            prop_assert!(play.world.processes[process].trust.left() + play.world.clock.now().since(before) >= LEASE);
        }
    }

    /// A load that reads what a bump is about, and names the group only when it has ended, is fenced, however full the journal
    /// is that the bump finds.
    #[test]
    fn late_groups_are_fenced(entries in 0..=MAX_ENTRIES, steps in prop::collection::vec(any::<usize>(), 20..80)) {
        let mut play = Play::new();
        let world = play.world.clone();
        let there: Vec<Entry> = (0..entries).map(|_| world.entry(0)).collect();
        write(&world.store, &world.journal, &Journal::encode_new(Uuid::new_v4(), &there));
        write(&world.store, &world.token, &world.fresh_token());
        for process in 0..PROCESSES {
            play.start(process, Work::Look);
            play.run_out();
        }
        for (process, work) in [(0, Work::Load), (0, Work::Look), (1, Work::Load), (2, Work::Bump)] {
            play.start(process, work);
        }
        for step in steps {
            play.step(step);
        }
        play.run_out();
    }
}
