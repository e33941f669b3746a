//! What is left behind by calls that end half-way, fail, or run inside each other.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use larder::{
    Added, Bump, Clock, Codec, CodecError, CodecId, Command, InMemoryRemote, Namespace, NamespaceBuilder, RawBytes,
    Receipt, RemoteError, RemoteErrorKind, RemoteTier, Reply, TieredCache, Write, WriteMode,
};

use super::gate::{Gate, Kind, When};
use super::{HOUR, Pages, load, own, pages, process};

/// Longer than any test may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn behind(tier: impl RemoteTier, set: impl FnOnce(NamespaceBuilder) -> NamespaceBuilder) -> Namespace {
    let builder = Namespace::builder("endings", tier).version("1").write_mode(WriteMode::Behind { queue: 100 });
    let namespace = set(builder.timeout(PATIENCE)).build().unwrap();
    let _ = namespace.poll_now();
    namespace
}

fn queued(write: Write) -> Receipt {
    let Write::Queued(receipt) = write else { panic!("{write:?}") };
    receipt
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

#[test]
fn a_removal_that_is_dropped_half_way_owes_those_who_wait_for_the_queued_write_an_answer() {
    // A store that is off may have answered before the first poll is over: then nothing was dropped half-way.
    for _ in 0..1_000 {
        let memory = InMemoryRemote::new();
        memory.offline(true);
        let pages = pages(&behind(memory.clone(), |builder| builder), |pages| pages);
        let receipt = queued(pages.insert(own("k"), own("1")));
        {
            let mut removal = pin!(pages.remove_async("k"));
            if removal.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                continue;
            }
        }
        memory.offline(false);
        assert!(receipt.wait(PATIENCE), "{receipt:?}");
        assert_eq!(pages.get("k"), None);
        return;
    }
    panic!("no removal was dropped half-way");
}

#[test]
fn a_removal_that_fails_leaves_the_receipt_of_the_queued_write_open() {
    let memory = InMemoryRemote::new();
    memory.offline(true);
    let pages = pages(&behind(memory.clone(), |builder| builder), |pages| pages);
    let receipt = queued(pages.insert(own("k"), own("1")));
    let Bump::Pending(removal) = pages.remove("k") else { panic!("nothing can be acknowledged") };
    assert!(!receipt.is_settled() && !removal.is_settled());
    memory.offline(false);
    assert!(removal.wait(PATIENCE) && receipt.wait(PATIENCE));
}

#[test]
fn a_newer_write_stays_in_the_local_tier_while_an_older_one_is_being_sent() {
    let gate = Gate::new(InMemoryRemote::new());
    let pages = pages(&behind(gate.clone(), |builder| builder), |pages| pages);
    gate.reset();
    let ((begins, begun), (release, released)) = (mpsc::channel(), mpsc::channel());
    gate.at(0, When::Before, move || {
        begins.send(()).unwrap();
        let _ = released.recv();
    });
    let first = queued(pages.insert(own("k"), own("1")));
    begun.recv_timeout(PATIENCE).unwrap();
    // Waits behind the first, which goes out now.
    let second = queued(pages.insert(own("k"), own("2")));
    release.send(()).unwrap();
    assert!(first.wait(PATIENCE));
    assert_eq!(pages.local().get("k").as_deref(), Some("2"));
    assert!(second.wait(PATIENCE));
    assert_eq!(pages.get("k").as_deref(), Some("2"));
}

#[test]
fn a_value_that_waits_to_be_sent_is_there_for_those_who_add() {
    let gate = Gate::new(InMemoryRemote::new());
    let pages = pages(&behind(gate.clone(), |builder| builder), |pages| pages.capacity(0));
    gate.reset();
    let ((begins, begun), (release, released)) = (mpsc::channel(), mpsc::channel());
    gate.at(0, When::Before, move || {
        begins.send(()).unwrap();
        let _ = released.recv();
    });
    let receipt = queued(pages.insert(own("k"), own("1")));
    begun.recv_timeout(PATIENCE).unwrap();
    let added = pages.add(own("k"), own("2"));
    release.send(()).unwrap();
    assert!(matches!(added, Added::Present), "{added:?}");
    assert!(receipt.wait(PATIENCE));
    // Those who wait hear of it a moment before the key is free.
    eventually("it was never sent", || pages.get("k").as_deref() == Some("1"));
}

/// Runs something once in the midst of an encoding.
#[derive(Clone, Default)]
struct Meddler(Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>, Arc<AtomicBool>);

impl Codec<String> for Meddler {
    fn id(&self) -> CodecId {
        CodecId::custom::<0>()
    }
    fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), CodecError> {
        if let Some(meddle) = self.0.get().filter(|_| !self.1.swap(true, Ordering::Relaxed)) {
            meddle();
        }
        RawBytes.encode(value, out)
    }
    fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
        RawBytes.decode(bytes)
    }
}

#[test]
fn a_codec_that_removes_the_key_it_encodes_on_the_thread_of_the_queue_waits_for_itself_no_longer_than_the_timeout() {
    let meddler = Meddler::default();
    let namespace = behind(InMemoryRemote::new(), |builder| builder.timeout(Duration::from_millis(50)));
    let pages: Pages = TieredCache::builder(&namespace, "pages").capacity(9).codec(meddler.clone()).build().unwrap();
    let (removes, removed) = mpsc::channel();
    let other = pages.clone();
    let _ = meddler.0.set(Box::new(move || removes.send(other.remove("k")).unwrap()));
    let write = pages.insert(own("k"), own("1"));
    let bump = removed.recv_timeout(PATIENCE).expect("it waits for itself");
    // The write may end after it: the deletion is owed.
    let Bump::Pending(removal) = bump else { panic!("it cannot be through") };
    assert!(removal.wait(PATIENCE) && queued(write).wait(PATIENCE));
    assert_eq!(pages.get("k"), None);
    assert!(queued(pages.insert(own("k"), own("2"))).wait(PATIENCE));
}

#[test]
fn a_shutdown_that_gives_writes_up_lets_go_of_them() {
    struct Held(#[expect(dead_code, reason = "counted")] Arc<()>, RawBytes);
    impl Codec<String> for Held {
        fn id(&self) -> CodecId {
            CodecId::custom::<0>()
        }
        fn encode(&self, value: &String, out: &mut Vec<u8>) -> Result<(), CodecError> {
            self.1.encode(value, out)
        }
        fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
            self.1.decode(bytes)
        }
    }
    let memory = InMemoryRemote::new();
    memory.offline(true);
    let token = Arc::new(());
    let namespace = behind(memory.clone(), |builder| builder);
    let codec = Held(token.clone(), RawBytes);
    let pages: Pages = TieredCache::builder(&namespace, "pages").capacity(9).codec(codec).build().unwrap();
    let receipt = queued(pages.insert(own("k"), own("1")));
    let unsent = namespace.shutdown(Duration::ZERO).unwrap_err();
    assert_eq!(unsent.writes(), 1);
    assert!(!receipt.wait(PATIENCE));
    drop((pages, namespace));
    eventually("the cache is kept alive by what it could not send", || Arc::strong_count(&token) == 1);
}

/// A value that panics when it is dropped on a thread of the namespace.
#[derive(Clone)]
struct Bomb(Arc<AtomicUsize>);

#[derive(Default)]
struct Bombs(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        let on_a_thread_of_larder = thread::current().name().is_some_and(|name| name.starts_with("larder-"));
        if on_a_thread_of_larder && !thread::panicking() {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("scripted");
        }
    }
}

impl Codec<Bomb> for Bombs {
    fn id(&self) -> CodecId {
        CodecId::custom::<0>()
    }
    fn encode(&self, _: &Bomb, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.push(0);
        Ok(())
    }
    fn decode(&self, _: &[u8]) -> Result<Bomb, CodecError> {
        Ok(Bomb(self.0.clone()))
    }
}

#[test]
fn queued_writes_go_on_after_a_value_has_panicked_in_its_drop() {
    let bombs = Bombs::default();
    let blown = bombs.0.clone();
    let namespace = behind(InMemoryRemote::new(), |builder| builder);
    // The queue holds the values alone.
    let cache: TieredCache<String, Bomb> =
        TieredCache::builder(&namespace, "bombs").capacity(0).codec(bombs).build().unwrap();
    for key in ["a", "b"] {
        let Write::Queued(receipt) = cache.insert(own(key), Bomb(blown.clone())) else { panic!("not queued") };
        assert!(receipt.wait(PATIENCE), "{key} is never sent");
    }
    assert!(blown.load(Ordering::SeqCst) > 0);
    assert!(namespace.shutdown(PATIENCE).is_ok());
}

#[test]
fn what_several_loads_hold_is_given_back_with_one_exchange() {
    let gate = Gate::new(InMemoryRemote::new());
    let pages = process("give-back", gate.clone(), |pages| pages);
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    let keys = || keys.iter().map(String::as_str);
    let pairs = |value: &str| keys().map(|key| (own(key), own(value))).collect();
    let deletes = |what: &str| {
        let log = gate.log();
        assert_eq!(log.iter().filter(|exchange| exchange.contains(&Kind::Delete)).count(), 1, "{what}: {log:?}");
    };
    gate.reset();
    assert!(pages.get_many_or_load(keys(), |_| Err::<Vec<_>, _>("scripted")).is_err());
    deletes("a loader that fails");
    gate.reset();
    assert_eq!(pages.get_many_or_load(keys(), |_| Ok::<_, Infallible>(Vec::new())).unwrap(), vec![None; 20]);
    deletes("a loader that brings nothing");
    let loaded = pages.get_many_or_load(keys(), |_| Ok::<_, Infallible>(pairs("1"))).unwrap();
    assert!(loaded.iter().all(Option::is_some));
    keys().for_each(|key| assert!(pages.expire(key).is_acknowledged()));
    gate.reset();
    let loaded = pages.get_many_or_load(keys(), |_| Ok::<_, Infallible>(pairs("2"))).unwrap();
    assert!(loaded.iter().all(|value| value.as_deref() == Some("2")));
    deletes("refreshes that succeed");
}

#[test]
fn an_update_makes_nothing_of_a_local_value_that_is_not_trusted_any_more() {
    /// A store that the thread which follows the journal cannot reach.
    struct Deaf(InMemoryRemote);
    impl RemoteTier for Deaf {
        fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
            self.0.run(batch, timeout)
        }
        fn max_value_len(&self) -> usize {
            self.0.max_value_len()
        }
        fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
            let offline = InMemoryRemote::new();
            offline.offline(true);
            Some(Box::new(offline))
        }
    }
    let memory = InMemoryRemote::new();
    let (clock, time) = Clock::manual();
    let cut_off = Namespace::builder("cut-off", Deaf(memory.clone())).version("1").clock(clock);
    let cut_off = cut_off.trust(HOUR).timeout(PATIENCE).build().unwrap();
    cut_off.poll_now().unwrap();
    let cut_off = pages(&cut_off, |pages| pages.soft_ttl(100 * HOUR));
    assert!(cut_off.insert(own("k"), own("1")).is_through());
    let elsewhere = process("cut-off", Gate::new(memory), |pages| pages);
    assert!(elsewhere.remove("k").is_acknowledged());
    time.advance(2 * HOUR);
    assert_eq!(cut_off.update("k", |value| format!("{value}+")), None);
    assert_eq!(cut_off.get("k"), None);
}

#[test]
fn calls_that_the_store_does_not_answer_in_time_are_counted_whoever_sends_them() {
    struct Late;
    impl RemoteTier for Late {
        fn run(&self, batch: &[Command<'_>], _: Duration) -> Vec<Result<Reply, RemoteError>> {
            batch.iter().map(|_| Err(RemoteError::new(RemoteErrorKind::TimedOut, "scripted"))).collect()
        }
        fn max_value_len(&self) -> usize {
            1 << 20
        }
    }
    let namespace = Namespace::builder("late", Late).build().unwrap();
    let pages = pages(&namespace, |pages| pages);
    let before = namespace.health().timeouts;
    assert_eq!(pages.get("k"), None);
    assert!(namespace.health().timeouts > before, "{:?}", namespace.health());
    assert_eq!(load(&pages, "k", "1", &[]), "1");
}

/// Whether the commands of an exchange that fails are carried out.
#[derive(Clone, Copy, Debug)]
enum Failure {
    NotSent,
    Unanswered,
}

#[test]
fn whichever_exchange_of_a_verb_fails_no_tier_is_left_with_what_it_has_replaced() {
    type Verb = (&'static str, fn(&Pages));
    const VERBS: [Verb; 10] = [
        ("insert", |pages| drop(pages.insert(own("k"), own("new")))),
        ("insert_many", |pages| drop(pages.insert_many(["k", "l", "k"].map(|key| (own(key), own("new")))))),
        ("remove", |pages| drop(pages.remove("k"))),
        ("remove_many", |pages| drop(pages.remove_many(["l", "k"]))),
        ("invalidate_group", |pages| drop(pages.invalidate_group("g"))),
        ("clear", |pages| drop(pages.clear())),
        ("update", |pages| drop(pages.update("k", |_| own("new")))),
        ("insert and remove", |pages| {
            let _ = pages.insert(own("k"), own("old"));
            let _ = pages.remove("k");
        }),
        ("remove and load", |pages| {
            let _ = pages.remove("k");
            load(pages, "k", "new", &["g"]);
        }),
        ("invalidate and load", |pages| {
            let _ = pages.invalidate_group("g");
            load(pages, "k", "new", &["g"]);
        }),
    ];
    for mode in [WriteMode::Through, WriteMode::Behind { queue: 9 }] {
        for (verb, run) in VERBS {
            for failure in [Failure::NotSent, Failure::Unanswered] {
                for failing in 0..8 {
                    let memory = InMemoryRemote::new();
                    let gate = Gate::new(memory.clone());
                    let builder = Namespace::builder("fails", gate.clone()).version("1").timeout(PATIENCE);
                    let namespace = builder.write_mode(mode).build().unwrap();
                    namespace.poll_now().unwrap();
                    let pages = pages(&namespace, |pages| pages);
                    load(&pages, "k", "old", &["g"]);
                    gate.reset();
                    let fail = move |memory: &InMemoryRemote, commands| match failure {
                        Failure::NotSent => memory.fail_next(commands),
                        Failure::Unanswered => memory.lose_replies(commands),
                    };
                    let (before, after) = (memory.clone(), memory.clone());
                    gate.at(failing, When::Before, move || fail(&before, 1_000));
                    gate.at(failing, When::After, move || fail(&after, 0));
                    run(&pages);
                    let context = format!("{verb}, {mode:?}, exchange {failing} {failure:?}");
                    eventually(&context, || {
                        let health = namespace.health();
                        health.pending_deletions + health.pending_bumps + health.queued_writes == 0
                    });
                    let updated = verb == "update";
                    let local = pages.local().get("k");
                    let remote = process("fails", Gate::new(memory), |pages| pages).get("k");
                    let is_old = |value: &Option<String>| value.as_deref() == Some("old");
                    // An update of what could not be read says that there is nothing, and changes nothing.
                    let unchanged = updated && is_old(&local) && is_old(&remote);
                    assert!(unchanged || !is_old(&local) && !is_old(&remote), "{context}: {local:?} {remote:?}");
                    assert!(local.is_none() || remote.is_none() || local == remote, "{context}: {local:?} {remote:?}");
                }
            }
        }
    }
}
