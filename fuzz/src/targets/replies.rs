//! A store that answers anything: the wrong kind, the wrong number, any bytes, any cas, any time. What no command was told is
//! never claimed, and a key is answered with its own values or with none.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::fuzzing::{self, Opened};
use larder::{
    Action, Announce, Bump, CallOptions, Cas, Clock, Codec, Command, EntryOptions, Item, Lookup, ManualClock,
    Namespace, RawBytes, RemoteError, RemoteErrorKind, RemoteTier, Reply, Route, TieredCache, WireKey, Write,
};

use crate::input::Input;

const NAMESPACE: &str = "n";
const CACHE: &str = "c";
const KEYS: [&str; 3] = ["a", "b", "a key that is digested"];
const GROUPS: [&str; 2] = ["g", "h"];

/// Longer than any input takes, by a clock that nothing else moves.
const HOUR: Duration = Duration::from_secs(3_600);

/// How long a store that says that another one loads is asked again.
const PATIENCE: Duration = Duration::from_millis(1);

/// The operations of one input, beyond which a longer one does nothing new.
const MAX_STEPS: usize = 64;

/// The commands that are answered from the input. Whatever comes behind is told that there is no store.
const MAX_ANSWERS: usize = 4_096;

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (steps, journal) = (input.chunk(), input.chunk());
    let announce = input.one_of(&[Announce::All, Announce::Removals, Announce::Groups]);
    let capacity = input.one_of(&[100, 0, 1]);
    let teller = Teller::new(input.rest());
    let (clock, time) = Clock::manual();
    let store = Store { teller: teller.clone(), follower: Teller::new(journal) };
    let namespace = Namespace::builder(NAMESPACE, store).poll_interval(HOUR).trust(2 * HOUR).clock(clock);
    let namespace = namespace.announce(announce).build().expect("a namespace");
    let builder = TieredCache::builder(&namespace, CACHE).capacity(capacity).soft_ttl(HOUR).codec(RawBytes);
    let pages = builder.load_wait(PATIENCE).build().expect("a cache");
    let mut scene = Scene { time, namespace, pages, teller, last: 0 };
    let mut steps = Input::new(steps);
    for _ in 0..MAX_STEPS {
        if steps.is_empty() {
            break;
        }
        scene.step(&mut steps);
    }
    let health = scene.namespace.health();
    assert!(format!("{health:?}").len() < 1 << 20);
}

struct Scene {
    time: ManualClock,
    namespace: Namespace,
    pages: TieredCache<String, String>,
    teller: Teller,
    last: u64,
}

/// Checks that a value is one of its key: all values begin with the key that they were made for.
fn own(key: &str, value: Option<&str>) {
    let is_own = |value: &str| value.strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
    assert!(value.is_none_or(is_own), "{key} is answered with {value:?}");
}

impl Scene {
    fn value(&mut self, key: &str) -> String {
        self.last += 1;
        format!("{key}={}", self.last)
    }

    fn step(&mut self, steps: &mut Input<'_>) {
        let (what, key) = (steps.below(20), steps.one_of(&KEYS));
        let value = self.value(key);
        let pages = self.pages.clone();
        self.teller.forget();
        match what {
            0 | 1 => own(key, pages.get(key).as_deref()),
            2 => KEYS.iter().zip(pages.get_many(KEYS)).for_each(|(key, found)| own(key, found.as_deref())),
            3 | 4 => {
                let loaded = pages.get_or_load(key, |load| {
                    own(key, load.stale().map(String::as_str));
                    load.groups(&GROUPS[..steps.below(3)]);
                    if steps.rarely(4) { Err(()) } else { Ok(value.clone()) }
                });
                own(key, loaded.as_deref().ok());
            }
            5 => {
                let options = EntryOptions::new().groups(&GROUPS[..steps.below(3)]);
                let written = pages.insert_with(key.to_owned(), value, options);
                self.check_write(key, &written);
            }
            // One that an invalidation overtakes is stored and gone, and sends nothing.
            6 => drop(pages.add(key.to_owned(), value)),
            7 => {
                let updated = pages.update(key, |old| {
                    own(key, Some(old));
                    value.clone()
                });
                drop(updated);
            }
            8 => self.check_bump(&pages.remove(key)),
            9 => drop(pages.expire(key)),
            10 => self.check_bump(&pages.invalidate_group(GROUPS[0])),
            11 => self.check_bump(&pages.namespace().expire_group(GROUPS[1])),
            12 => self.check_bump(&pages.clear()),
            13 => {
                let counter = self.namespace.counter(key);
                let counter = if steps.rarely(2) { counter.ttl(Duration::from_secs(1)) } else { counter };
                let counted = if steps.rarely(2) { counter.incr(1) } else { counter.decr(1) };
                if let Ok(number) = counted {
                    assert!(self.teller.told().numbers.contains(&number), "nobody counted to {number}");
                }
                drop(counter.get());
                drop(counter.set(7));
            }
            14 => {
                // Past the soft deadline, and past trust as well.
                match steps.below(4) {
                    2 => self.time.advance(HOUR),
                    3 => self.time.advance(3 * HOUR),
                    _ => drop(self.namespace.poll_now()),
                }
            }
            15 => match pages.lookup(key) {
                Lookup::Fresh(found) | Lookup::Stale { value: found, claim: None } => own(key, Some(&found)),
                Lookup::Stale { value: found, claim: Some(claim) } => {
                    own(key, Some(&found));
                    _ = claim.extend(HOUR);
                    drop(claim.fill(value));
                }
                Lookup::Vacant(claim) => {
                    if !steps.rarely(3) {
                        drop(claim.fill(value));
                    }
                }
                Lookup::Busy => {}
            },
            16 => drop(pages.warm_up_from_remote(KEYS)),
            17 => own(key, pages.get_with(key, CallOptions::new().skip_local()).as_deref()),
            18 => {
                let loaded = pages.get_many_or_load(KEYS, |batch| {
                    Ok::<_, ()>(batch.keys().map(|key| (key.clone(), format!("{key}=batch"))).collect())
                });
                if let Ok(loaded) = loaded {
                    KEYS.iter().zip(loaded).for_each(|(key, found)| own(key, found.as_deref()));
                }
            }
            _ => drop(pages.remove_many(KEYS)),
        }
    }

    /// What is said to be in the store was told to be. So is what an invalidation has taken along, where the item was deleted.
    fn check_write(&self, key: &str, written: &Write) {
        if matches!(written, Write::Through | Write::RemoteOnly(_)) {
            let value = names(key).value;
            assert!(self.teller.told().changed.contains(&value), "nobody has stored {key}");
        }
    }

    fn check_bump(&self, bump: &Bump) {
        if bump.is_acknowledged() {
            assert!(self.teller.told().done > 0, "nobody has carried anything out");
        }
    }
}

fn names(key: &str) -> fuzzing::Names {
    fuzzing::names([NAMESPACE, "", CACHE], key, GROUPS[0], "n").expect("names that can be")
}

/// What the store has said in the present step.
#[derive(Default)]
struct Told {
    /// The items that were stored or deleted.
    changed: Vec<WireKey>,
    done: usize,
    numbers: Vec<u64>,
}

/// Answers by the bytes of the input.
#[derive(Clone)]
struct Teller(Arc<Mutex<Telling>>);

struct Telling {
    bytes: Vec<u8>,
    at: usize,
    answers: usize,
    told: Told,
}

struct Store {
    teller: Teller,
    follower: Teller,
}

impl Teller {
    fn new(bytes: &[u8]) -> Teller {
        Teller(Arc::new(Mutex::new(Telling { bytes: bytes.to_vec(), at: 0, answers: 0, told: Told::default() })))
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Telling> {
        self.0.lock().unwrap()
    }

    fn forget(&self) {
        self.told().told = Told::default();
    }
}

impl std::ops::Deref for Telling {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.told
    }
}

impl RemoteTier for Teller {
    fn run(&self, batch: &[Command<'_>], _timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let mut telling = self.told();
        let mut replies: Vec<_> = batch.iter().map(|command| telling.answer(command)).collect();
        // One too few, or one too many.
        match telling.choose(64) {
            62 => drop(replies.pop()),
            63 => replies.push(Ok(Reply::Done)),
            _ => {}
        }
        replies
    }

    fn max_value_len(&self) -> usize {
        1 << 16
    }
}

impl RemoteTier for Store {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        self.teller.run(batch, timeout)
    }

    fn max_value_len(&self) -> usize {
        self.teller.max_value_len()
    }

    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        Some(Box::new(self.follower.clone()))
    }
}

impl Telling {
    fn choose(&mut self, limit: usize) -> usize {
        let byte = self.bytes.get(self.at).copied().unwrap_or_default();
        self.at += 1;
        usize::from(byte) % limit
    }

    fn chunk(&mut self) -> Vec<u8> {
        let len = self.choose(256);
        let start = self.at.min(self.bytes.len());
        let end = (start + len).min(self.bytes.len());
        self.at = end;
        self.bytes[start..end].to_vec()
    }

    fn answer(&mut self, command: &Command<'_>) -> Result<Reply, RemoteError> {
        self.answers += 1;
        if self.answers > MAX_ANSWERS || self.at >= self.bytes.len() {
            return Err(RemoteError::new(RemoteErrorKind::Unavailable, "the input is at its end"));
        }
        let reply = match self.choose(16) {
            // As a store would that does what it is told.
            0..=5 => match command.action {
                Action::Get { value, lease: None, .. } => self.hit(command, value),
                Action::Get { .. } => Reply::Won(self.cas()),
                Action::Increment { .. } | Action::Decrement { .. } => Reply::Number(self.choose(256) as u64),
                _ => Reply::Done,
            },
            6 | 7 => self.hit(command, true),
            8 => Reply::Miss,
            9 => Reply::Won(self.cas()),
            10 => Reply::Busy(self.cas()),
            11 => Reply::Done,
            12 => Reply::NotStored,
            13 => Reply::Fenced,
            14 => Reply::Number(u64::MAX - self.choose(4) as u64),
            _ => {
                use RemoteErrorKind::{Codec, Config, Interrupted, Protocol, Refused, TimedOut, TooLarge, Unavailable};
                let kinds = [Unavailable, TimedOut, Interrupted, Protocol, Refused, TooLarge, Codec, Config];
                return Err(RemoteError::new(kinds[self.choose(kinds.len())], "so the input says"));
            }
        };
        match (&reply, command.action) {
            (Reply::Done, Action::Set { .. } | Action::Delete { .. }) | (Reply::Miss, Action::Delete { .. }) => {
                self.told.changed.push(command.key.clone());
                self.told.done += 1;
            }
            (Reply::Done | Reply::Miss, _) => self.told.done += 1,
            (Reply::Number(number), _) => self.told.numbers.push(*number),
            _ => {}
        }
        Ok(reply)
    }

    fn cas(&mut self) -> Cas {
        Cas { value: self.choose(4) as u64, connection: self.choose(2) as u64 }
    }

    fn hit(&mut self, command: &Command<'_>, with_value: bool) -> Reply {
        let value = match (command.route, self.choose(6)) {
            (_, 0) => self.chunk(),
            (Route::Control, 1..=3) if !command.key.as_bytes().ends_with(b":j") => {
                let mut token = [7; 8];
                token[0] = self.choose(2) as u8;
                token.to_vec()
            }
            (Route::Control, _) => {
                let entries: Vec<u8> = (0..self.choose(4)).flat_map(|_| self.entry()).collect();
                [&b"lrj1"[..], &[7; 16], &[0; 8], &entries].concat()
            }
            // A value of this key, or of another.
            (Route::ByKey, _) => self.envelope(),
        };
        let len = if self.choose(8) == 7 { usize::MAX } else { value.len() };
        Reply::Hit(Item {
            value: if with_value { value.into() } else { Vec::new().into() },
            len,
            cas: self.cas(),
            expires_in: [None, Some(Duration::ZERO), Some(HOUR), Some(Duration::MAX)][self.choose(4)],
            stale: self.choose(4) == 3,
            won: self.choose(4) == 3,
        })
    }

    fn entry(&mut self) -> [u8; 24] {
        let mut entry = [0; 24];
        entry[0] = self.choose(8) as u8;
        if entry[0] != 6 {
            let names = names(KEYS[self.choose(KEYS.len())]);
            let hash = if self.choose(2) == 0 { names.fingerprint } else { names.group_hash };
            entry[8..16].copy_from_slice(&hash.to_le_bytes());
        }
        entry
    }

    fn envelope(&mut self) -> Vec<u8> {
        let key = KEYS[self.choose(KEYS.len())];
        let fuzzing::Names { fingerprint, group_hash, root_group, .. } = names(key);
        // The two roots, without which no value is alive, and a group.
        let count = 1 + self.choose(4).min(2);
        let mut token = || u64::from_le_bytes([self.choose(2) as u8, 7, 7, 7, 7, 7, 7, 7]);
        let groups = [0, root_group, group_hash].into_iter().rev().take(count).map(|group| [group, token(), token()]);
        let groups = groups.collect();
        let ttl = |choice: usize| [None, Some(Duration::ZERO), Some(HOUR), Some(Duration::from_millis(1))][choice];
        let opened = Opened {
            codec: Codec::<String>::id(&RawBytes),
            created_ms: [0, 1_750_000_000_000, u64::MAX][self.choose(3)],
            soft_ttl: ttl(self.choose(4)),
            hard_ttl: ttl(self.choose(4)),
            load_cost_us: [0, u32::MAX][self.choose(2)],
            groups,
            payload: format!("{key}=stored").into_bytes().into(),
        };
        fuzzing::seal(&opened, fingerprint, None).expect("it is small")
    }
}
