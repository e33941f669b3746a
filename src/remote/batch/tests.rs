//! Calls to a store of which every exchange is seen to begin and told how to end.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use futures::executor::block_on;
use futures::future::BoxFuture;

use super::queue::{MAX_BATCH_BYTES, MAX_PASSED_OVER, MAX_QUEUED_BYTES, MAX_QUEUED_JOBS};
use super::*;
use crate::remote::key::WireKey;
use crate::remote::request::Request;
use crate::remote::tier::{Action, Cas, Command, Expiry, Item, Route, SetMode};
use crate::sync::channel::{self, Receiver, Sender};
use crate::sync::thread;

/// Longer than any test may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store of which a test sees every exchange begin, and says how it ends.
struct Scripted {
    began: Sender<Exchange>,
    /// One for each server. Without a word from the test, once that is over, exchanges succeed.
    endings: Vec<Receiver<Ending>>,
}

#[derive(Debug, PartialEq)]
struct Exchange {
    server: usize,
    keys: Vec<String>,
    thread: ThreadId,
    timeout: Duration,
}

enum Ending {
    Answers,
    /// Answers for all commands but the last.
    OneTooFew,
    /// Every command has won a lease.
    Wins,
    Panic,
}

impl RemoteTier for Scripted {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let server = self.server_of(batch[0].key, batch[0].route);
        let keys: Vec<_> = batch.iter().map(|command| text(command.key)).collect();
        _ = self.began.send(Exchange { server, keys, thread: thread::current().id(), timeout });
        let count = match self.endings[server].recv() {
            Ok(Ending::Answers) | Err(_) => batch.len(),
            Ok(Ending::OneTooFew) => batch.len() - 1,
            Ok(Ending::Wins) => return vec![Ok(Reply::Won(Cas { value: 1, connection: 1 })); batch.len()],
            Ok(Ending::Panic) => panic!("scripted"),
        };
        batch[..count].iter().map(|command| Ok(hit(command.key.as_bytes()))).collect()
    }

    fn max_value_len(&self) -> usize {
        1 << 20
    }

    fn servers(&self) -> usize {
        self.endings.len()
    }

    /// Keys begin with the number of their server.
    fn server_of(&self, key: &WireKey, _route: Route) -> usize {
        usize::from(key.as_bytes()[0] - b'0')
    }
}

fn text(key: &WireKey) -> String {
    String::from_utf8(key.as_bytes().to_vec()).unwrap()
}

fn hit(value: &[u8]) -> Reply {
    let cas = Cas { value: 1, connection: 1 };
    Reply::Hit(Item { value: value.to_vec().into(), len: value.len(), cas, expires_in: None, stale: false, won: false })
}

struct Scene {
    batcher: Arc<Batcher>,
    began: Receiver<Exchange>,
    endings: Vec<Sender<Ending>>,
}

impl Scene {
    fn new(servers: usize) -> Scene {
        let (send_began, began) = channel::unbounded();
        let (endings, ended) = (0..servers).map(|_| channel::unbounded()).unzip();
        let tier = Arc::new(Scripted { began: send_began, endings: ended });
        Scene { batcher: Arc::new(Batcher::new(tier, PATIENCE)), began, endings }
    }

    /// Submits requests as a task does, without waiting.
    fn submit(&self, requests: Vec<Request>) -> BoxFuture<'static, Answers> {
        let batcher = self.batcher.clone();
        let mut call: BoxFuture<'static, Answers> = Box::pin(async move { batcher.run(Caller::Task, requests).await });
        assert!(poll_once(call.as_mut()).is_none());
        call
    }

    /// Submits one request that stays under way, so that what follows has to wait.
    fn occupy(&self) -> BoxFuture<'static, Answers> {
        let call = self.submit(gets(&["0:first"]));
        assert_eq!(self.next_keys(), ["0:first"]);
        call
    }

    fn next(&self) -> Exchange {
        self.began.recv_timeout(PATIENCE).expect("an exchange begins")
    }

    fn next_keys(&self) -> Vec<String> {
        self.next().keys
    }

    fn end(&self, server: usize, ending: Ending) {
        self.endings[server].send(ending).unwrap();
    }
}

fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    match Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn get(key: &str) -> Request {
    Request::get(WireKey::new(key).unwrap(), Route::ByKey)
}

fn gets(keys: &[&str]) -> Vec<Request> {
    keys.iter().map(|key| get(key)).collect()
}

fn many_gets(name: char, count: usize) -> Vec<Request> {
    (0..count).map(|number| get(&format!("0:{name}{number}"))).collect()
}

fn hits(keys: &[&str]) -> Vec<Reply> {
    keys.iter().map(|key| hit(key.as_bytes())).collect()
}

fn replies(answers: Answers) -> Vec<Reply> {
    answers.into_iter().map(Result::unwrap).collect()
}

fn kinds(answers: Answers) -> Vec<RemoteErrorKind> {
    answers.into_iter().map(|answer| answer.unwrap_err().kind()).collect()
}

#[test]
fn what_waits_shares_the_next_exchange_and_everyone_gets_their_own_answers() {
    let scene = Scene::new(1);
    let first = scene.occupy();
    let second = scene.submit(gets(&["0:a", "0:b"]));
    let third = scene.submit(gets(&["0:c"]));
    let fourth = scene.submit(gets(&["0:d", "0:e", "0:f"]));
    scene.end(0, Ending::Answers);
    assert_eq!(scene.next_keys(), ["0:a", "0:b", "0:c", "0:d", "0:e", "0:f"]);
    scene.end(0, Ending::Answers);
    assert_eq!(replies(block_on(first)), hits(&["0:first"]));
    assert_eq!(replies(block_on(fourth)), hits(&["0:d", "0:e", "0:f"]));
    assert_eq!(replies(block_on(third)), hits(&["0:c"]));
    assert_eq!(replies(block_on(second)), hits(&["0:a", "0:b"]));
    let stats = scene.batcher.stats();
    let expected = BatchStats { jobs: 4, batches: 2, commands: 7, largest_batch: 6, refused: 0, timed_out: 0 };
    assert_eq!(stats, expected);
}

#[test]
fn nothing_is_sent_for_no_requests() {
    let scene = Scene::new(2);
    for caller in [Caller::Thread, Caller::Task] {
        assert!(block_on(scene.batcher.run(caller, Vec::new())).is_empty());
    }
    assert!(scene.began.is_empty());
}

#[test]
fn a_batch_stays_below_its_caps_and_goes_on_with_what_fits() {
    let scene = Scene::new(1);
    let first = scene.occupy();
    let a = scene.submit(many_gets('a', 200));
    let b = scene.submit(many_gets('b', 100));
    let c = scene.submit(many_gets('c', 56));
    let value = vec![0; MAX_BATCH_BYTES];
    let key = WireKey::new("0:large").unwrap();
    let large = Request::set(key, Route::ByKey, value, Expiry::Never, SetMode::Always, None);
    let large = scene.submit(vec![large]);
    let d = scene.submit(gets(&["0:d"]));
    for _ in 0..4 {
        scene.end(0, Ending::Answers);
    }
    let exchange = scene.next_keys();
    assert_eq!((exchange.len(), &*exchange[199], &*exchange[200]), (256, "0:a199", "0:c0"));
    let exchange = scene.next_keys();
    assert_eq!((exchange.len(), &*exchange[0], &*exchange[100]), (101, "0:b0", "0:d"));
    // More than any batch holds: it goes alone.
    assert_eq!(scene.next_keys(), ["0:large"]);
    for call in [first, a, b, c, large, d] {
        assert!(block_on(call).iter().all(Result::is_ok));
    }
}

/// A store runs a batch on the connection of the first cas in it, and fences those that were read on another.
#[test]
fn jobs_whose_cas_come_from_different_connections_do_not_share_an_exchange() {
    let scene = Scene::new(1);
    let delete = |name: &str, value, connection| {
        vec![Request::delete(WireKey::new(name).unwrap(), Some(Cas { value, connection }))]
    };
    let calls = [
        scene.occupy(),
        scene.submit(gets(&["0:none"])),
        scene.submit(delete("0:one", 1, 1)),
        scene.submit(delete("0:two", 1, 2)),
        scene.submit(delete("0:three", 1, 3)),
        scene.submit(delete("0:one-again", 2, 1)),
        // No store gives out a cas of 0, so its connection does not matter.
        scene.submit(delete("0:zero", 0, 4)),
        scene.submit(delete("0:two-again", 2, 2)),
    ];
    for _ in 0..4 {
        scene.end(0, Ending::Answers);
    }
    assert_eq!(scene.next_keys(), ["0:none", "0:one", "0:one-again", "0:zero"]);
    assert_eq!(scene.next_keys(), ["0:two", "0:two-again"]);
    assert_eq!(scene.next_keys(), ["0:three"]);
    for call in calls {
        assert!(block_on(call).iter().all(Result::is_ok));
    }
}

#[test]
fn what_does_not_fit_is_never_more_than_its_cap_and_never_starves() {
    let scene = Scene::new(1);
    let first = scene.occupy();
    let connections = MAX_PASSED_OVER as u64 + 5;
    let calls: Vec<_> = (0..3 * connections)
        .map(|number| {
            let cas = Cas { value: 1, connection: 1 + number % connections };
            scene.submit(vec![Request::delete(WireKey::new(format!("0:{number}")).unwrap(), Some(cas))])
        })
        .collect();
    drop(scene.endings);
    block_on(first);
    for call in calls {
        assert!(block_on(call)[0].is_ok());
    }
}

#[test]
fn a_thread_does_its_own_exchange_where_the_way_is_free() {
    let scene = Scene::new(1);
    scene.end(0, Ending::Answers);
    let answers = block_on(scene.batcher.run(Caller::Thread, gets(&["0:a"])));
    assert_eq!(replies(answers), hits(&["0:a"]));
    assert_eq!(scene.next().thread, thread::current().id());
    // A task never does.
    scene.end(0, Ending::Answers);
    block_on(scene.batcher.run(Caller::Task, gets(&["0:b"])));
    assert_ne!(scene.next().thread, thread::current().id());

    // With two calls on the way, the third joins them.
    let calls = [scene.occupy(), scene.submit(gets(&["0:c"]))];
    let batcher = scene.batcher.clone();
    let late = thread::spawn(move || block_on(batcher.run(Caller::Thread, gets(&["0:d"]))));
    let exchange = scene.next();
    assert_eq!((exchange.keys, exchange.thread), (vec!["0:c".to_owned(), "0:d".to_owned()], late.thread().id()));
    scene.end(0, Ending::Answers);
    scene.end(0, Ending::Answers);
    assert_eq!(replies(late.join().unwrap()), hits(&["0:d"]));
    for call in calls {
        assert!(block_on(call)[0].is_ok());
    }
    assert_eq!(scene.batcher.lanes[0].road.under_way(), 0);
}

/// The third and the fourth find the way occupied. The third takes what waits itself; the fourth, while that one is stuck, goes to
/// sleep, and would never be woken if nobody was rung for.
#[test]
fn what_a_stuck_thread_leaves_in_the_queue_is_carried_out_by_another() {
    let scene = Scene::new(1);
    let calls: Vec<_> = ["0:a", "0:b", "0:c", "0:d"]
        .into_iter()
        .map(|key| {
            let batcher = scene.batcher.clone();
            let call = thread::spawn(move || block_on(batcher.run(Caller::Thread, gets(&[key]))));
            let exchange = scene.next();
            assert_eq!(exchange.keys, [key]);
            assert_eq!(exchange.thread == call.thread().id(), key != "0:d");
            call
        })
        .collect();
    drop(scene.endings);
    for call in calls {
        assert!(call.join().unwrap()[0].is_ok());
    }
}

#[test]
fn what_a_thread_carries_out_for_others_ends_by_its_own_deadline() {
    let scene = Scene::new(1);
    let lane = &scene.batcher.lanes[0];
    let other = lane.queue_up(gets(&["0:other"]).into(), now() + PATIENCE);
    let own = lane.queue_up(gets(&["0:own"]).into(), now() + PATIENCE - PATIENCE / 16);
    scene.end(0, Ending::Answers);
    assert_eq!(replies(block_on(scene.batcher.wait(Caller::Thread, own))), hits(&["0:own"]));
    let exchange = scene.next();
    assert_eq!((exchange.keys.len(), exchange.thread), (2, thread::current().id()));
    assert!(exchange.timeout <= PATIENCE - PATIENCE / 16);
    assert_eq!(replies(block_on(scene.batcher.wait(Caller::Thread, other))), hits(&["0:other"]));
}

#[test]
fn a_thread_with_little_time_left_carries_out_nothing_for_others() {
    let scene = Scene::new(1);
    let late = scene.batcher.lanes[0].queue_up(gets(&["0:late"]).into(), now() + PATIENCE / 2);
    scene.end(0, Ending::Answers);
    assert_eq!(replies(block_on(scene.batcher.wait(Caller::Thread, late))), hits(&["0:late"]));
    assert_ne!(scene.next().thread, thread::current().id());
}

#[test]
fn a_thread_leaves_it_to_the_io_thread_to_give_back_the_leases_of_others() {
    let scene = Scene::new(1);
    let lane = &scene.batcher.lanes[0];
    let dropped = lane.queue_up(gets(&["0:dropped"]).into(), now() + PATIENCE);
    thread::scope(|scope| {
        let own = lane.queue_up(gets(&["0:own"]).into(), now() + PATIENCE);
        let leading = scope.spawn(|| block_on(scene.batcher.wait(Caller::Thread, own)));
        assert_eq!(scene.next_keys(), ["0:dropped", "0:own"]);
        drop(dropped);
        scene.end(0, Ending::Wins);
        let given_back = scene.next();
        assert_eq!(given_back.keys, ["0:dropped"]);
        assert_ne!(given_back.thread, leading.thread().id());
        assert!(matches!(leading.join().unwrap()[..], [Ok(Reply::Won(_))]));
        scene.end(0, Ending::Answers);
    });
}

#[test]
fn a_full_queue_is_an_answer() {
    let scene = Scene::new(1);
    let first = scene.occupy();
    let waiting: Vec<_> = (0..MAX_QUEUED_JOBS).map(|_| scene.submit(gets(&["0:a"]))).collect();
    for caller in [Caller::Task, Caller::Thread] {
        let refused = block_on(scene.batcher.run(caller, gets(&["0:b", "0:c"])));
        assert_eq!(kinds(refused), [RemoteErrorKind::Unavailable; 2]);
    }
    drop(scene.endings);
    for call in waiting.into_iter().chain([first]) {
        assert!(block_on(call)[0].is_ok());
    }
    assert_eq!(scene.batcher.stats().refused, 2);
    let road = &scene.batcher.lanes[0].road;
    assert_eq!(road.queue.bytes(), 0);
    assert!(block_on(scene.batcher.run(Caller::Task, gets(&["0:d"])))[0].is_ok());
}

#[test]
fn a_queue_holds_a_bounded_number_of_bytes_beyond_one_call_of_any_size() {
    let scene = Scene::new(1);
    let large = || {
        let key = WireKey::new("0:large").unwrap();
        let value = vec![0; MAX_QUEUED_BYTES];
        vec![Request::set(key, Route::ByKey, value, Expiry::Never, SetMode::Always, None)]
    };
    let first = scene.occupy();
    let waiting = scene.submit(large());
    for requests in [large(), gets(&["0:a"])] {
        let refused = block_on(scene.batcher.run(Caller::Task, requests));
        assert_eq!(kinds(refused), [RemoteErrorKind::Unavailable]);
    }
    drop(scene.endings);
    for call in [first, waiting] {
        assert!(block_on(call)[0].is_ok());
    }
    assert!(block_on(scene.batcher.run(Caller::Task, large()))[0].is_ok());
}

#[test]
fn a_call_whose_time_is_up_in_the_queue_is_never_sent_and_says_so() {
    for caller in [Caller::Thread, Caller::Task] {
        let scene = Scene::new(1);
        let first = scene.occupy();
        let passage = scene.batcher.lanes[0].submit(gets(&["0:late"]).into(), now());
        let mut withdrawn = scene.batcher.lanes[0].submit(gets(&["0:withdrawn"]).into(), now() + PATIENCE);
        // The I/O thread will find its time not up yet, but nobody there.
        withdrawn.deadline = now();
        for passage in [passage, withdrawn] {
            let answers = block_on(scene.batcher.wait(caller, passage));
            assert_eq!(kinds(answers), [RemoteErrorKind::Unavailable]);
        }
        let last = scene.submit(gets(&["0:last"]));
        drop(scene.endings);
        assert_eq!(scene.began.recv_timeout(PATIENCE).unwrap().keys, ["0:last"]);
        for call in [first, last] {
            assert!(block_on(call)[0].is_ok());
        }
        assert_eq!(scene.batcher.stats().timed_out, 2);
        assert_eq!(scene.batcher.lanes[0].road.under_way(), 0);
    }
}

#[test]
fn a_caller_leaves_a_stuck_store_at_its_deadline() {
    for caller in [Caller::Thread, Caller::Task] {
        let scene = Scene::new(1);
        let mut passage = scene.batcher.lanes[0].submit(gets(&["0:stuck"]).into(), now() + PATIENCE);
        assert_eq!(scene.next_keys(), ["0:stuck"]);
        passage.deadline = now();
        let job = passage.job.clone();
        let answers = block_on(scene.batcher.wait(caller, passage));
        assert_eq!(kinds(answers), [RemoteErrorKind::TimedOut]);
        scene.end(0, Ending::Answers);
        scene.end(0, Ending::Answers);
        assert!(block_on(scene.batcher.run(Caller::Task, gets(&["0:next"])))[0].is_ok());
        // The late answers went nowhere, and nobody keeps them but this test.
        assert_eq!(Arc::strong_count(&job), 1);
    }
}

#[test]
fn a_future_that_is_dropped_leaves_no_waker_behind() {
    struct Count;
    impl Wake for Count {
        fn wake(self: Arc<Self>) {}
    }
    let scene = Scene::new(1);
    let first = scene.occupy();
    let count = Arc::new(Count);
    let waker = Waker::from(count.clone());
    let mut dropped = Box::pin(scene.batcher.run(Caller::Task, gets(&["0:dropped"])));
    assert!(dropped.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    drop(dropped);
    // The timer that its deadline was set on lets go of it when it next looks.
    let deadline = now() + PATIENCE;
    while Arc::strong_count(&count) > 1 && now() < deadline {
        thread::yield_now();
    }
    assert_eq!(Arc::strong_count(&count), 1);
    drop(scene.endings);
    assert!(block_on(first)[0].is_ok());
    assert_eq!(scene.began.recv_timeout(PATIENCE).unwrap().keys, ["0:dropped"]);
}

#[test]
fn a_store_that_panics_is_an_error_and_the_next_call_works() {
    let scene = Scene::new(1);
    for caller in [Caller::Thread, Caller::Task] {
        scene.end(0, Ending::Panic);
        let answers = block_on(scene.batcher.run(caller, gets(&["0:a", "0:b"])));
        assert_eq!(kinds(answers), [RemoteErrorKind::Protocol; 2]);
        scene.end(0, Ending::Answers);
        let answers = block_on(scene.batcher.run(caller, gets(&["0:a"])));
        assert_eq!(replies(answers), hits(&["0:a"]));
    }
}

#[test]
fn a_command_that_the_store_leaves_out_is_an_error_for_its_caller_alone() {
    let scene = Scene::new(1);
    let first = scene.occupy();
    let (second, third) = (scene.submit(gets(&["0:a"])), scene.submit(gets(&["0:b", "0:c"])));
    scene.end(0, Ending::Answers);
    scene.end(0, Ending::OneTooFew);
    assert!(block_on(first)[0].is_ok());
    assert_eq!(replies(block_on(second)), hits(&["0:a"]));
    let third = block_on(third);
    assert_eq!(third[0].as_ref().unwrap(), &hit(b"0:b"));
    assert_eq!(third[1].as_ref().unwrap_err().kind(), RemoteErrorKind::Protocol);
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    struct Bad;
    impl Wake for Bad {
        fn wake(self: Arc<Self>) {
            panic!("scripted");
        }
    }
    let scene = Scene::new(1);
    let first = scene.occupy();
    let mut bad = pin!(scene.batcher.run(Caller::Task, gets(&["0:bad"])));
    let waker = Waker::from(Arc::new(Bad));
    assert!(bad.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let good = scene.submit(gets(&["0:good"]));
    scene.end(0, Ending::Answers);
    scene.end(0, Ending::Answers);
    for call in [first, good] {
        assert!(block_on(call)[0].is_ok());
    }
    assert!(block_on(poll_fn(|context| bad.as_mut().poll(context)))[0].is_ok());
}

#[test]
fn the_parts_of_a_call_are_under_way_at_the_same_time_and_a_stuck_server_delays_its_own_only() {
    let scene = Scene::new(3);
    let mut spread = scene.submit(gets(&["0:a", "1:b", "0:c", "2:d"]));
    let mut began = [(); 3].map(|()| scene.next());
    began.sort_by_key(|exchange| exchange.server);
    assert_eq!(began.map(|exchange| exchange.keys.join(" ")), ["0:a 0:c", "1:b", "2:d"]);
    scene.end(1, Ending::Answers);
    scene.end(1, Ending::Answers);
    scene.end(2, Ending::Answers);
    let other = block_on(scene.batcher.run(Caller::Task, gets(&["1:e"])));
    assert_eq!(replies(other), hits(&["1:e"]));
    assert!(poll_once(spread.as_mut()).is_none());
    scene.end(0, Ending::Answers);
    assert_eq!(replies(block_on(spread)), hits(&["0:a", "1:b", "0:c", "2:d"]));
}

/// A load of several keys failed, whose leases had been won on two connections. It gave them back with one call, of which the store
/// was sent the part of the first connection alone; the rest was answered to be fenced, and those keys stayed held for the leases'
/// term.
#[test]
fn requests_of_one_call_that_insist_on_different_connections_are_all_sent() {
    let delete =
        |name: &str, value, connection| Request::delete(WireKey::new(name).unwrap(), Some(Cas { value, connection }));
    for caller in [Caller::Task, Caller::Thread] {
        let scene = Scene::new(1);
        let batcher = scene.batcher.clone();
        let requests = vec![
            get("0:any"),
            delete("0:a", 5, 1),
            delete("0:b", 6, 2),
            get("0:after-b"),
            delete("0:c", 7, 1),
            // No store gives out a cas of 0, so its connection does not matter.
            delete("0:after-c", 0, 3),
        ];
        let call = thread::spawn(move || block_on(batcher.run(caller, requests)));
        drop(scene.endings);
        let mut exchanges =
            [scene.began.recv_timeout(PATIENCE), scene.began.recv_timeout(PATIENCE)].map(|began| began.unwrap().keys);
        exchanges.sort_unstable();
        assert_eq!(exchanges[0], ["0:any", "0:a", "0:c", "0:after-c"]);
        assert_eq!(exchanges[1], ["0:b", "0:after-b"]);
        assert_eq!(replies(call.join().unwrap()), hits(&["0:any", "0:a", "0:b", "0:after-b", "0:c", "0:after-c"]));
    }
}

#[test]
fn a_thread_does_one_part_itself_while_the_others_are_on_their_way() {
    let scene = Scene::new(3);
    let batcher = scene.batcher.clone();
    let call = thread::spawn(move || {
        (thread::current().id(), block_on(batcher.run(Caller::Thread, gets(&["0:a", "1:b", "2:c", "1:d"]))))
    });
    let threads: Vec<_> = (0..3).map(|_| scene.next().thread).collect();
    drop(scene.endings);
    let (caller, answers) = call.join().unwrap();
    assert_eq!(threads.iter().filter(|thread| **thread == caller).count(), 1);
    assert_eq!(replies(answers), hits(&["0:a", "1:b", "2:c", "1:d"]));
}

#[test]
fn threads_end_with_the_batcher_which_does_not_wait_for_them() {
    let scene = Scene::new(2);
    let tier = Arc::downgrade(&scene.batcher.tier);
    let call = scene.submit(gets(&["0:stuck", "1:stuck"]));
    scene.next();
    scene.next();
    drop(call);
    drop(scene.batcher);
    assert!(tier.upgrade().is_some());
    drop(scene.endings);
    let deadline = now() + PATIENCE;
    while tier.strong_count() > 0 && now() < deadline {
        thread::yield_now();
    }
    assert_eq!(tier.strong_count(), 0);
}

#[test]
fn leases_that_nobody_waits_for_any_more_are_given_back() {
    use crate::remote::in_memory::InMemoryRemote;

    let store = InMemoryRemote::new();
    let batcher = Batcher::new(Arc::new(store.clone()), Duration::from_secs(20));
    let key = WireKey::new("k").unwrap();
    let take = || {
        let action = Action::Get { value: true, lease: Some(Duration::from_secs(60)), touch: None };
        vec![Request::new(key.clone(), Route::ByKey, action)]
    };
    for _ in 0..200 {
        // Polled once, so that it is on its way, and dropped at any moment of that.
        let mut call = Box::pin(batcher.run(Caller::Task, take()));
        if let Poll::Ready(answers) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            // It came before anybody could drop it, and is the caller's.
            if let [Ok(Reply::Won(cas))] = answers[..] {
                drop(block_on(batcher.run(Caller::Task, vec![Request::delete(key.clone(), Some(cas))])));
            }
        }
        for _ in 0..fastrand::u32(..200) {
            std::hint::spin_loop();
        }
        drop(call);
    }
    // Behind all of them in the queue.
    let held_back = || matches!(block_on(batcher.run(Caller::Task, take())).pop(), Some(Ok(Reply::Won(_))));
    let deadline = now() + Duration::from_secs(20);
    while !held_back() {
        assert!(now() < deadline, "a lease is held that nobody has");
    }
}

/// The answer came in time, but the future was not polled before its time was over: what gives the lease back has its own.
#[test]
fn a_lease_whose_caller_comes_too_late_for_it_is_given_back() {
    use crate::remote::in_memory::InMemoryRemote;
    use crate::remote::tier::RemoteTier;

    let store = InMemoryRemote::new();
    let limit = Duration::from_millis(250);
    let batcher = Batcher::new(Arc::new(store.clone()), limit);
    let key = WireKey::new("k").unwrap();
    let look = Action::Get { value: false, lease: None, touch: None };
    let stands = || {
        let answer = store.run(&[Command { key: &key, route: Route::ByKey, action: look }], limit).pop();
        matches!(answer, Some(Ok(Reply::Busy(_))))
    };
    let take = Action::Get { value: true, lease: Some(Duration::from_secs(60)), touch: None };
    let deadline = now() + PATIENCE;
    // A machine that is busy may answer before the first poll is over, or not in time: then it is tried again.
    let call = loop {
        store.flush();
        let mut call = Box::pin(batcher.run(Caller::Task, vec![Request::new(key.clone(), Route::ByKey, take)]));
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            let begun = now();
            while now() < begun + 2 * limit {
                thread::yield_now();
            }
            if stands() {
                break call;
            }
        }
        assert!(now() < deadline, "the lease is never taken");
    };
    drop(call);
    while stands() {
        assert!(now() < deadline, "a lease is held that nobody has");
        std::thread::yield_now();
    }
}

/// The answer of one server is there while the other hangs, and then nobody waits any more.
#[test]
fn a_call_to_two_servers_that_is_dropped_half_way_gives_back_the_lease_that_it_has() {
    use std::sync::atomic::AtomicBool;

    use crate::remote::in_memory::InMemoryRemote;
    use crate::remote::tier::RemoteTier;

    /// Two servers over one store, by the last letter of keys. The second hangs until it is let go.
    struct Two(InMemoryRemote, Arc<AtomicBool>);

    impl RemoteTier for Two {
        fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
            while self.server_of(batch[0].key, batch[0].route) == 1 && !self.1.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            self.0.run(batch, timeout)
        }

        fn max_value_len(&self) -> usize {
            self.0.max_value_len()
        }

        fn servers(&self) -> usize {
            2
        }

        fn server_of(&self, key: &WireKey, _: Route) -> usize {
            usize::from(key.as_bytes().ends_with(b"b"))
        }
    }

    let (store, goes_on) = (InMemoryRemote::new(), Arc::new(AtomicBool::new(false)));
    let limit = Duration::from_secs(20);
    let batcher = Batcher::new(Arc::new(Two(store.clone(), goes_on.clone())), limit);
    let keys = ["a", "b"].map(|key| WireKey::new(key).unwrap());
    let stands = || {
        let action = Action::Get { value: false, lease: None, touch: None };
        let answer = store.run(&[Command { key: &keys[0], route: Route::ByKey, action }], limit).pop();
        matches!(answer, Some(Ok(Reply::Busy(_))))
    };
    let action = Action::Get { value: true, lease: Some(Duration::from_secs(60)), touch: None };
    let take: Vec<_> = keys.iter().map(|key| Request::new(key.clone(), Route::ByKey, action)).collect();
    let mut call = Box::pin(batcher.run(Caller::Task, take));
    let deadline = now() + limit;
    let mut polls_since = 0;
    // Often enough for whatever has arrived to have been seen.
    while polls_since < 1_000 {
        assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(now() < deadline, "the lease is never taken");
        polls_since += u32::from(stands());
        std::thread::yield_now();
    }
    drop(call);
    goes_on.store(true, Ordering::Relaxed);
    while stands() {
        assert!(now() < deadline, "a lease is held that nobody has");
        std::thread::yield_now();
    }
}
