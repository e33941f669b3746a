//! Interference at every moment of a verb: before and after each exchange that it makes, and within its loader.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use larder::{EntryOptions, Load};

use super::gate::When;
use super::{HOUR, Pages, Stand, own};
use crate::support::eventually;

/// What the remote tier, and the local one of the process, hold when the verb begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setup {
    Vacant,
    /// Another process has written the value.
    Remote,
    /// As before, and its group was expired since.
    RemoteStale,
    /// As before, and its group was invalidated since.
    RemoteDead,
    /// In the local tier as well, and stale in both.
    BothStale,
    /// Another process has written the value, and it is past its soft deadline by now.
    Aged,
}

const SETUPS: [Setup; 6] =
    [Setup::Vacant, Setup::Remote, Setup::RemoteStale, Setup::RemoteDead, Setup::BothStale, Setup::Aged];

/// When a loader names its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    Early,
    Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    GetMany,
    Load(Naming),
    /// A load that answers, if it may, that nothing has changed.
    Revalidate,
    Insert,
    InsertMany,
    Add,
}

const VERBS: [Verb; 8] = [
    Verb::Get,
    Verb::GetMany,
    Verb::Load(Naming::Early),
    Verb::Load(Naming::Late),
    Verb::Revalidate,
    Verb::Insert,
    Verb::InsertMany,
    Verb::Add,
];

impl Verb {
    fn gives_a_value(self) -> bool {
        matches!(self, Verb::Insert | Verb::InsertMany | Verb::Add)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interference {
    Remove,
    RemoveMany,
    Insert,
    InvalidateGroup,
    ExpireGroup,
    ExpireKey,
    ClearCache,
    ClearNamespace,
    Flush,
}

const INTERFERENCES: [Interference; 9] = [
    Interference::Remove,
    Interference::RemoveMany,
    Interference::Insert,
    Interference::InvalidateGroup,
    Interference::ExpireGroup,
    Interference::ExpireKey,
    Interference::ClearCache,
    Interference::ClearNamespace,
    Interference::Flush,
];

/// A moment of a verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Exchange(usize, When),
    /// In the loader: after it has read the database, before it names its groups.
    BeforeNaming,
    /// In the loader, at its end.
    AfterNaming,
}

/// What a test can see of one case.
struct Case {
    name: String,
    setup: Setup,
    verb: Verb,
    moment: Moment,
    interference: Interference,
    /// Whether the process of the verb interferes with itself, or another one does.
    own: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { setup, verb, moment, interference, own, .. } = self;
        write!(f, "{verb:?} from {setup:?}, {interference:?} at {moment:?}, own: {own}")
    }
}

fn in_group() -> EntryOptions {
    EntryOptions::new().groups(["g"])
}

/// So short that whoever reads the value from the store, and takes it to be a second older than it is, finds it stale.
const SHORT: Duration = Duration::from_millis(500);

/// What the caches are filled from.
#[derive(Clone, Default)]
struct Database(Arc<AtomicU64>);

impl Database {
    fn read(&self) -> String {
        self.0.load(Ordering::SeqCst).to_string()
    }

    fn write(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }

    fn load(&self, pages: &Pages) -> String {
        pages
            .get_or_load("k", |load| {
                load.groups(["g"]);
                Ok::<_, Infallible>(self.read())
            })
            .unwrap()
    }
}

fn prepare(stand: &Stand, name: &str, setup: Setup, verb: Verb) -> (Pages, Database) {
    let database = Database::default();
    database.write(1);
    let other = stand.bystander(name);
    // A process that expects other groups than the ones that its values turn out to have.
    let pages = stand.process(name);
    let insert = || assert!(other.insert_with(own("k"), own("1"), in_group()).is_through());
    match setup {
        Setup::Vacant => {}
        Setup::Remote => insert(),
        Setup::RemoteStale => {
            insert();
            assert!(other.expire_group("g").is_acknowledged());
        }
        Setup::RemoteDead => {
            insert();
            assert!(other.invalidate_group("g").is_acknowledged());
        }
        Setup::Aged => {
            let aged = in_group().soft_ttl(SHORT).hard_ttl(HOUR);
            assert!(other.insert_with(own("k"), own("1"), aged).is_through());
        }
        Setup::BothStale => {
            insert();
            assert_eq!(pages.get("k").as_deref(), Some("1"));
            assert!(pages.expire_group("g").is_acknowledged());
        }
    }
    if verb.gives_a_value() {
        // What is given is as new as it gets, until somebody interferes.
        database.write(5);
    }
    (pages, database)
}

fn act(case: &Case, pages: &Pages, database: &Database) {
    database.write(9);
    let done = match case.interference {
        Interference::Remove => pages.remove("k").is_acknowledged(),
        Interference::RemoveMany => pages.remove_many(["k"]).is_acknowledged(),
        Interference::Insert => pages.insert_with(own("k"), own("9"), in_group()).is_through(),
        Interference::InvalidateGroup => pages.invalidate_group("g").is_acknowledged(),
        Interference::ExpireGroup => pages.expire_group("g").is_acknowledged(),
        Interference::ExpireKey => pages.expire("k").is_acknowledged(),
        Interference::ClearCache => pages.clear().is_acknowledged(),
        Interference::ClearNamespace => pages.namespace().clear().is_acknowledged(),
        Interference::Flush => true,
    };
    assert!(done, "{case}");
}

fn run(verb: Verb, pages: &Pages, database: &Database, in_loader: impl Fn(Moment)) {
    match verb {
        Verb::Get => drop(pages.get("k")),
        Verb::GetMany => drop(pages.get_many(["j", "k"])),
        Verb::Load(naming) => {
            let loader = |load: Load<String>| {
                if naming == Naming::Early {
                    load.groups(["g"]);
                }
                let value = database.read();
                in_loader(Moment::BeforeNaming);
                load.groups(["g"]);
                in_loader(Moment::AfterNaming);
                Ok::<_, Infallible>(value)
            };
            pages.get_or_load("k", loader).unwrap();
        }
        Verb::Revalidate => {
            let loader = |load: Load<String>| {
                load.soft_ttl(SHORT);
                load.hard_ttl(HOUR);
                let value = database.read();
                in_loader(Moment::BeforeNaming);
                let unchanged = load.stale() == Some(&value);
                let value = if unchanged { load.not_modified().unwrap() } else { (load.groups(["g"]), value).1 };
                in_loader(Moment::AfterNaming);
                Ok::<_, Infallible>(value)
            };
            pages.get_or_load("k", loader).unwrap();
        }
        Verb::Insert => drop(pages.insert_with(own("k"), own("5"), in_group())),
        Verb::InsertMany => drop(pages.insert_many([(own("j"), own("5")), (own("k"), own("5"))])),
        Verb::Add => drop(pages.add(own("k"), own("5"))),
    }
}

fn check(stand: &Stand, case: &Case, pages: &Pages, database: &Database) {
    if !case.own {
        // What another process has done counts here from the next look at the journal on.
        pages.namespace().poll_now().unwrap();
    }
    let newcomer = stand.bystander(&case.name);
    if case.verb.gives_a_value() {
        let (mine, others) = (pages.get("k"), newcomer.get("k"));
        let agree = mine.is_none() || others.is_none() || mine == others;
        assert!(agree, "{case}: {mine:?} here, {others:?} there");
        // A bump takes what is on its way along. (What is added is in no group but the roots.)
        let everything = matches!(case.interference, Interference::ClearCache | Interference::ClearNamespace);
        if case.own && (everything || case.interference == Interference::InvalidateGroup && case.verb == Verb::Insert) {
            assert_eq!((mine, others), (None, None), "{case}");
        }
        return;
    }
    if case.interference == Interference::Flush {
        return;
    }
    let kills = !matches!(case.interference, Interference::ExpireGroup | Interference::ExpireKey);
    if kills {
        let mine = pages.get("k");
        assert!(mine.is_none() || mine.as_deref() == Some("9"), "{case}: {mine:?} here");
    }
    // A load that hears in the journal what was done before it began, as this process does of its own, is not kept.
    eventually(&format!("{case}: a load to be kept"), || {
        assert_eq!(database.load(pages), "9", "{case}: here");
        let kept = pages.get("k")?;
        assert!(!kills || kept == "9", "{case}: {kept} here, again");
        (kept == "9").then_some(())
    });
    assert_eq!(database.load(&newcomer), "9", "{case}: there");
    assert_eq!(database.load(&stand.bystander(&case.name)), "9", "{case}: there, again");
}

fn run_case(stand: &Stand, case: Case) {
    let (pages, database) = prepare(stand, &case.name, case.setup, case.verb);
    let case = Arc::new(case);
    let actor = if case.own { pages.clone() } else { stand.bystander(&case.name) };
    let interfere = {
        let (case, database, flush) = (case.clone(), database.clone(), stand.flusher());
        move || if case.interference == Interference::Flush { flush() } else { act(&case, &actor, &database) }
    };
    let gate = &stand.gate;
    gate.reset();
    if let Moment::Exchange(number, when) = case.moment {
        gate.at(number, when, interfere);
        run(case.verb, &pages, &database, |_| {});
    } else {
        run(case.verb, &pages, &database, |moment| {
            if moment == case.moment {
                interfere();
            }
        });
    }
    // Neither where the verb took another turn, nor where it ran no loader.
    let happened = database.read() == "9" || case.interference == Interference::Flush;
    gate.reset();
    if happened {
        check(stand, &case, &pages, &database);
    }
}

fn at_every_moment(stand: &Stand, interferences: &[Interference]) {
    for verb in VERBS {
        // A load revalidates what only time has made stale. For all others it is like any.
        for setup in SETUPS.into_iter().filter(|setup| (*setup == Setup::Aged) == (verb == Verb::Revalidate)) {
            let name = stand.fresh();
            let (pages, database) = prepare(stand, &name, setup, verb);
            stand.gate.reset();
            run(verb, &pages, &database, |_| {});
            let exchanges = stand.gate.log().len();
            let mut moments: Vec<_> = (0..exchanges)
                .flat_map(|number| [When::Before, When::After].map(|when| Moment::Exchange(number, when)))
                .collect();
            if matches!(verb, Verb::Load(_) | Verb::Revalidate) {
                moments.extend([Moment::BeforeNaming, Moment::AfterNaming]);
            }
            for moment in moments {
                for &interference in interferences {
                    for own in [true, false] {
                        let name = stand.fresh();
                        run_case(stand, Case { name, setup, verb, moment, interference, own });
                    }
                }
            }
        }
    }
}

/// Every interleaving of a verb with one interference, cut at the verb's exchanges and loader: what a process has invalidated
/// never comes back, there or elsewhere, nor in another process once that has looked at the journal.
#[test]
fn nothing_invalidated_comes_back_at_any_moment_in_memory() {
    at_every_moment(&Stand::memory(), &INTERFERENCES);
}

#[cfg(feature = "memcached")]
#[test]
fn nothing_invalidated_comes_back_at_any_moment_from_memcached() {
    at_every_moment(
        &Stand::memcached(1),
        &[
            Interference::Remove,
            Interference::Insert,
            Interference::ExpireKey,
            Interference::InvalidateGroup,
            Interference::ClearNamespace,
            Interference::Flush,
        ],
    );
}

/// What differs with the number of servers: which commands share one.
#[cfg(feature = "memcached")]
#[test]
fn nothing_invalidated_comes_back_at_any_moment_from_three_memcacheds() {
    at_every_moment(
        &Stand::memcached(3),
        &[Interference::Remove, Interference::InvalidateGroup, Interference::ClearCache],
    );
}
