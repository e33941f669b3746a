//! A remote tier that cannot be reached, does not answer, talks nonsense, or loses its answers.

use std::time::Duration;

use larder::{Added, Bump, EntryOptions, InMemoryRemote, Receipt, RemoteErrorKind, RemoteTier, Write};

use super::gate::{Kind, When};
use super::{HOUR, Pages, Stand, load, own, pages};
use crate::support::PATIENCE;

/// More debts than are kept apart.
const MANY: usize = (1 << 14) + 1;

fn in_group() -> EntryOptions {
    EntryOptions::new().groups(["g"])
}

fn pending(bump: Bump) -> Receipt {
    let Bump::Pending(receipt) = bump else { panic!("nothing can be acknowledged") };
    receipt
}

/// As [`pending`], while the store is off: nothing can be settled.
fn unsettled(bump: Bump) -> Receipt {
    let receipt = pending(bump);
    assert!(!receipt.is_settled() && !receipt.wait(Duration::ZERO));
    receipt
}

/// Every verb works on the local tier, and says that the remote one did not.
fn everything_works_locally(pages: &Pages) {
    let errors = pages.remote_stats();
    assert_eq!(pages.get("none"), None);
    assert_eq!(pages.get_many(["none", "neither"]), [None, None]);
    assert_eq!(load(pages, "l", "1", &["g"]), "1");
    assert_eq!(load(pages, "l", "2", &["g"]), "1");
    let Write::LocalOnly(error, receipt) = pages.insert_with(own("k"), own("1"), in_group()) else { panic!("stored") };
    assert!(!error.to_string().is_empty());
    assert!(!receipt.is_settled() && !receipt.wait(Duration::ZERO));
    assert_eq!(pages.get("k").as_deref(), Some("1"));
    assert!(matches!(pages.add(own("a"), own("1")), Added::Stored(Write::LocalOnly(..))));
    assert!(matches!(pages.add(own("a"), own("2")), Added::Present));
    assert_eq!(pages.get("a").as_deref(), Some("1"));
    let writes = pages.insert_many([(own("m"), own("1")), (own("n"), own("2"))]);
    assert!(writes.iter().all(|write| matches!(write, Write::LocalOnly(..))));
    assert_eq!(pages.get_many(["m", "n"]), [Some(own("1")), Some(own("2"))]);
    unsettled(pages.expire("m"));
    assert_eq!(load(pages, "m", "refreshed", &[]), "refreshed");
    unsettled(pages.remove("n"));
    assert_eq!(pages.get("n"), None);
    unsettled(pages.expire_group("g"));
    assert_eq!(load(pages, "k", "refreshed", &["g"]), "refreshed");
    unsettled(pages.invalidate_group("g"));
    assert_eq!((pages.get("k"), pages.get("l")), (None, None));
    unsettled(pages.clear());
    assert_eq!(pages.get("a"), None);
    assert_eq!(load(pages, "a", "again", &[]), "again");
    unsettled(pages.namespace().clear());
    assert_eq!(pages.get("a"), None);
    let seen = pages.remote_stats() - errors;
    assert!(seen.errors > 0 && seen.hits_fresh + seen.hits_stale + seen.stores == 0, "{seen:?}");
    assert!(pages.namespace().owed() > 0);
}

fn impatient(name: &str, tier: impl RemoteTier) -> Pages {
    let builder = larder::Namespace::builder(name, tier).version("1").trust(HOUR);
    pages(&builder.timeout(Duration::from_millis(50)).build().unwrap(), |pages| pages)
}

#[test]
fn every_verb_works_while_the_store_in_memory_is_off() {
    let memory = InMemoryRemote::new();
    memory.offline(true);
    everything_works_locally(&impatient("off", memory));
}

#[cfg(feature = "memcached")]
mod memcached {
    use std::time::Instant;

    use larder::Memcached;

    use super::*;
    use crate::support::fake_server::{After, FakeServer};
    use crate::support::memcached::Server;

    /// What all the verbs may take together: less than one exchange each, because the breaker opens.
    const SOON: Duration = Duration::from_secs(10);

    fn client(addr: impl std::fmt::Display) -> Memcached {
        Memcached::builder().server(addr).build().unwrap()
    }

    fn quickly(what: &str, addr: impl std::fmt::Display) {
        let start = Instant::now();
        everything_works_locally(&impatient("off", client(addr)));
        assert!(start.elapsed() < SOON, "{what} took {:?}", start.elapsed());
    }

    #[test]
    fn every_verb_works_while_nobody_listens() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        quickly("a refused port", free);
    }

    #[test]
    fn every_verb_works_while_the_server_is_silent() {
        let server = FakeServer::silent();
        quickly("a silent server", server.addr());
        let greeting = FakeServer::start(|mut peer| {
            peer.greet();
            peer.wait_for_end();
        });
        quickly("a server that greets and is silent then", greeting.addr());
    }

    #[test]
    fn every_verb_works_while_the_server_talks_nonsense() {
        for answer in
            ["\r\n", "HD\r\n", "VA 99999999999 c1\r\n", "VA 3 c1 O9\r\nabc\r\n", "NF O0\r\nHTTP/1.1 400\r\n\r\n"]
        {
            for after in [After::Stay, After::Close] {
                let server = FakeServer::answering(answer, after);
                quickly(answer, server.addr());
            }
        }
    }

    #[test]
    fn every_verb_works_after_the_server_was_killed() {
        let mut server = Server::start();
        let pages = impatient("off", client(server.addr()));
        assert!(pages.insert(own("before"), own("1")).is_through());
        server.kill();
        assert_eq!(pages.get("before").as_deref(), Some("1"));
        everything_works_locally(&pages);
    }

    #[test]
    fn a_server_that_comes_back_learns_what_it_missed() {
        let mut server = Server::start();
        let (mine, others) = (impatient("back", client(server.addr())), impatient("back", client(server.addr())));
        assert!(mine.insert(own("k"), own("1")).is_through());
        server.kill();
        let receipt = pending(mine.remove("k"));
        let bump = pending(mine.invalidate_group("g"));
        server.restart();
        assert!(receipt.wait(crate::support::PATIENCE) && bump.wait(crate::support::PATIENCE));
        assert_eq!(mine.namespace().owed(), 0);
        // Until it has looked at the journal, it writes by tokens that are lost.
        let seen = crate::support::eventually("a write to reach the other process", || {
            let written = mine.insert(own("k"), own("2"));
            written.is_through().then(|| others.get("k")).flatten()
        });
        assert_eq!(seen, "2");
    }

    #[test]
    fn one_server_of_three_takes_only_its_own_items_along() {
        let mut stand = Stand::memcached(3);
        let name = stand.fresh();
        let pages = impatient(&name, stand.gate.ungated());
        let keys: Vec<String> = (0..60).map(|number| format!("k{number}")).collect();
        assert!(pages.insert_many(keys.iter().map(|key| (key.clone(), own("1")))).iter().all(Write::is_through));
        stand.servers[1].kill();
        let reader = impatient(&name, stand.gate.ungated());
        let found = reader.get_many(keys.iter().map(String::as_str)).iter().flatten().count();
        // The one that holds the tokens takes all along, because no value can be judged without them.
        assert!(found < keys.len(), "{found}");
        for key in &keys {
            assert_eq!(pages.get(key.as_str()).as_deref(), Some("1"));
            let _ = pages.remove(key.as_str());
            assert_eq!(pages.get(key.as_str()), None);
        }
    }
}

/// Does `act` while the store is off, or loses its answers, and returns what there is to wait for.
fn meanwhile(memory: &InMemoryRemote, offline: bool, act: impl FnOnce() -> Receipt) -> Receipt {
    if offline {
        memory.offline(true);
    } else {
        // One more than it takes: the thread that follows the journal may still be at its first look.
        memory.lose_replies(2);
    }
    let receipt = act();
    memory.offline(false);
    memory.lose_replies(0);
    receipt
}

#[test]
fn nothing_old_is_back_after_an_outage() {
    type Act = fn(&Pages) -> Receipt;
    let acts: [(&str, Act); 7] = [
        ("remove", |pages| pending(pages.remove("k"))),
        ("remove_many", |pages| pending(pages.remove_many(["j", "k"]))),
        ("insert", |pages| match pages.insert_with(own("k"), own("2"), in_group()) {
            Write::LocalOnly(_, receipt) | Write::Nowhere(_, _, receipt) => receipt,
            other => panic!("{other:?}"),
        }),
        ("invalidate", |pages| pending(pages.invalidate_group("g"))),
        ("expire", |pages| pending(pages.expire("k"))),
        ("clear", |pages| pending(pages.clear())),
        ("clear all", |pages| pending(pages.namespace().clear())),
    ];
    for (what, act) in acts {
        for capacity in [0, 1_000] {
            for offline in [true, false] {
                let case = format!("{what}, capacity {capacity}, offline {offline}");
                let stand = Stand::memory();
                let memory = stand.memory.clone().unwrap();
                let name = stand.fresh();
                let mine = super::process(&name, stand.gate.clone(), |pages| pages.capacity(capacity));
                let newcomer = || super::process(&name, stand.gate.ungated(), |pages| pages.capacity(0));
                assert!(matches!(
                    mine.insert_with(own("k"), own("1"), in_group()),
                    Write::Through | Write::RemoteOnly(_)
                ));
                let receipt = meanwhile(&memory, offline, || act(&mine));
                // The others may not know yet; from when it is settled on they do.
                let was_settled = receipt.is_settled();
                let there = newcomer().get("k");
                assert!(!was_settled || there.as_deref() != Some("1"), "{case}: {there:?}");
                assert_ne!((mine.get("k").as_deref(), capacity), (Some("1"), 0), "{case}");
                if what != "expire" {
                    assert_ne!(mine.get("k").as_deref(), Some("1"), "{case}");
                }
                assert!(receipt.wait(HOUR), "{case}");
                assert!(receipt.is_settled() && mine.namespace().owed() == 0, "{case}");
                assert_ne!(newcomer().get("k").as_deref(), Some("1"), "{case}");
                assert_eq!(load(&newcomer(), "k", "3", &["g"]), "3", "{case}");
            }
        }
    }
}

/// A debt that another caller pays while this one reads.
#[test]
fn a_debt_that_is_paid_during_a_read_counts_until_the_read_is_judged() {
    let stand = Stand::memory();
    let memory = stand.memory.clone().unwrap();
    let name = stand.fresh();
    let mine = super::process(&name, stand.gate.clone(), |pages| pages.capacity(0));
    for (what, asked) in [("item", Kind::Read), ("group", Kind::ReadToken)] {
        assert!(matches!(mine.insert_with(own("k"), own("old"), in_group()), Write::RemoteOnly(_)));
        memory.offline(true);
        // More than one batch pays, so that the read of the old value does not pay its debt first.
        (0..200).for_each(|number| drop(mine.remove(format!("other {what} {number}").as_str())));
        let receipt = if what == "item" { pending(mine.remove("k")) } else { pending(mine.invalidate_group("g")) };
        memory.offline(false);
        let payer = receipt.clone();
        // By what is asked, and not by its number: whoever pays the debts makes exchanges, too.
        stand.gate.rewrite(move |command, reply| {
            assert!(Kind::of(command) != asked || payer.wait(HOUR));
            reply
        });
        assert_eq!(mine.get("k"), None, "{what}");
        assert!(receipt.is_settled());
    }
}

#[test]
fn too_many_debts_become_a_bump_of_the_namespace() {
    let stand = Stand::memory();
    let memory = stand.memory.clone().unwrap();
    let name = stand.fresh();
    let (mine, others) = (stand.process(&name), stand.bystander(&name));
    assert!(others.insert(own("k"), own("1")).is_through());
    assert!(others.insert(own("unrelated"), own("1")).is_through());
    memory.offline(true);
    let first = pending(mine.remove("k"));
    let gone: Vec<String> = (0..MANY).map(|number| format!("gone {number}")).collect();
    pending(mine.remove_many(gone.iter().map(String::as_str)));
    assert!(mine.namespace().owed() < MANY);
    memory.offline(false);
    // Whether the bump of the namespace has come through by now or not, this process takes nothing from before it.
    assert_eq!(mine.get("k"), None);
    assert_eq!(mine.get("unrelated"), None);
    assert!(first.wait(HOUR));
    assert_eq!(stand.bystander(&name).get_many(["k", "unrelated"]), [None, None]);
    assert_eq!(load(&mine, "k", "2", &[]), "2");
    assert_eq!(stand.bystander(&name).get("k").as_deref(), Some("2"));
}

#[test]
fn a_receipt_of_many_debts_is_settled_without_pauses() {
    let stand = Stand::memory();
    let memory = stand.memory.clone().unwrap();
    let mine = stand.process(&stand.fresh());
    memory.offline(true);
    let keys: Vec<String> = (0..8_000).map(|number| format!("k{number}")).collect();
    let receipt = pending(mine.remove_many(keys.iter().map(String::as_str)));
    assert_eq!(mine.namespace().owed(), keys.len());
    memory.offline(false);
    stand.gate.reset();
    assert!(receipt.wait(HOUR));
    // For each batch, the deletions and then the journal.
    assert!(stand.gate.log().len() <= 2 * (keys.len() / 64 + 1));
}

#[test]
fn an_error_says_what_the_store_said() {
    let memory = InMemoryRemote::new();
    let pages = impatient("errors", memory.clone());
    memory.offline(true);
    let Added::Stored(Write::LocalOnly(error, receipt)) = pages.add(own("a"), own("1")) else { panic!("offline") };
    assert_eq!(
        (error.kind(), receipt.error().unwrap().kind()),
        (RemoteErrorKind::Unavailable, RemoteErrorKind::Unavailable)
    );
    let Write::LocalOnly(error, _) = pages.insert(own("k"), own("1")) else { panic!("offline") };
    assert_eq!(error.kind(), RemoteErrorKind::Unavailable);
    assert_eq!(pending(pages.remove("k")).error().unwrap().kind(), RemoteErrorKind::Unavailable);
}

/// An insert whose answer is lost was carried out: the value is deleted again later, and never comes back after a newer one.
#[test]
fn an_insert_without_an_answer_never_overtakes_a_newer_one() {
    for lost in 0..3 {
        let stand = Stand::memory();
        let memory = stand.memory.clone().unwrap();
        let name = stand.fresh();
        let mine = super::process(&name, stand.gate.clone(), |pages| pages.capacity(0));
        assert!(matches!(mine.insert(own("k"), own("1")), Write::RemoteOnly(_)));
        stand.gate.reset();
        let losing = memory.clone();
        stand.gate.at(lost, When::Before, move || losing.lose_replies(1));
        let Write::Nowhere(_, _, receipt) = mine.insert(own("k"), own("2")) else { panic!("{lost}: an answer") };
        memory.lose_replies(0);
        assert!(matches!(mine.insert(own("k"), own("3")), Write::RemoteOnly(_)), "{lost}");
        // Until then the key is owed a deletion, and counts as a miss for this process alone.
        assert!(receipt.wait(PATIENCE), "{lost}");
        let found = mine.get("k");
        assert!(found.is_none() || found.as_deref() == Some("3"), "{lost}: {found:?}");
        assert_eq!(stand.bystander(&name).get("k"), found, "{lost}");
    }
}
