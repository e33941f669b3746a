//! Interference at every moment of a verb: before and after each exchange that it makes, and within its loader.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use larder::{EntryOptions, Load};

use super::gate::{Kind, When};
use super::{Pages, Stand, own};

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
}

const SETUPS: [Setup; 5] = [Setup::Vacant, Setup::Remote, Setup::RemoteStale, Setup::RemoteDead, Setup::BothStale];

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
    Insert,
    InsertMany,
    Add,
}

const VERBS: [Verb; 7] = [
    Verb::Get,
    Verb::GetMany,
    Verb::Load(Naming::Early),
    Verb::Load(Naming::Late),
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

impl Interference {
    fn is_of_the_group(self) -> bool {
        matches!(self, Interference::InvalidateGroup | Interference::ExpireGroup)
    }
}

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
        Verb::Insert => drop(pages.insert_with(own("k"), own("5"), in_group())),
        Verb::InsertMany => drop(pages.insert_many([(own("j"), own("5")), (own("k"), own("5"))])),
        Verb::Add => drop(pages.add(own("k"), own("5"))),
    }
}

/// What the gate saw of a verb.
struct Seen {
    /// How many exchanges there were before its loader.
    before_load: usize,
    /// The last exchange that read tokens.
    last_tokens: usize,
}

/// Returns whether, without a journal, a process cannot know of the interference: a group that nothing told it of before its
/// loader named it, bumped by another process while the load ran.
fn is_known_gap(case: &Case, seen: &Seen) -> bool {
    let while_loading = match case.moment {
        Moment::BeforeNaming | Moment::AfterNaming => true,
        Moment::Exchange(number, _) if number < seen.before_load => false,
        Moment::Exchange(number, When::Before) => number <= seen.last_tokens,
        Moment::Exchange(number, When::After) => number < seen.last_tokens,
    };
    let unknown = case.setup == Setup::Vacant;
    !case.own && unknown && while_loading && case.interference.is_of_the_group()
}

fn check(stand: &Stand, case: &Case, pages: &Pages, database: &Database, seen: &Seen) {
    let newcomer = stand.bystander(&case.name);
    if case.verb.gives_a_value() {
        let (mine, others) = (pages.get("k"), newcomer.get("k"));
        if case.own {
            let agree = mine.is_none() || others.is_none() || mine == others;
            assert!(agree, "{case}: {mine:?} here, {others:?} there");
            // A bump takes what is on its way along. (What is added is in no group but the roots.)
            let everything = matches!(case.interference, Interference::ClearCache | Interference::ClearNamespace);
            if everything || case.interference == Interference::InvalidateGroup && case.verb == Verb::Insert {
                assert_eq!((mine, others), (None, None), "{case}");
            }
        }
        return;
    }
    if case.interference == Interference::Flush {
        return;
    }
    let kills = !matches!(case.interference, Interference::ExpireGroup | Interference::ExpireKey);
    if case.own {
        let mine = pages.get("k");
        if kills {
            assert!(mine.is_none() || mine.as_deref() == Some("9"), "{case}: {mine:?} here");
        }
        assert_eq!(database.load(pages), "9", "{case}: here");
        assert_eq!(pages.get("k").as_deref(), Some("9"), "{case}: here, again");
    }
    if !is_known_gap(case, seen) {
        assert_eq!(database.load(&newcomer), "9", "{case}: there");
        assert_eq!(database.load(&stand.bystander(&case.name)), "9", "{case}: there, again");
    }
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
    let before_load = AtomicUsize::new(usize::MAX);
    let note = || before_load.store(gate.log().len(), Ordering::SeqCst);
    gate.reset();
    if let Moment::Exchange(number, when) = case.moment {
        gate.at(number, when, interfere);
        run(case.verb, &pages, &database, |_| note());
    } else {
        run(case.verb, &pages, &database, |moment| {
            note();
            if moment == case.moment {
                interfere();
            }
        });
    }
    let last_tokens = gate.log().iter().rposition(|kinds| kinds.contains(&Kind::ReadToken)).unwrap_or(0);
    let seen = Seen { before_load: before_load.into_inner(), last_tokens };
    // Neither where the verb took another turn, nor where it ran no loader.
    let happened = database.read() == "9" || case.interference == Interference::Flush;
    gate.reset();
    if happened {
        check(stand, &case, &pages, &database, &seen);
    }
}

fn at_every_moment(stand: &Stand, interferences: &[Interference]) {
    for verb in VERBS {
        for setup in SETUPS {
            let name = stand.fresh();
            let (pages, database) = prepare(stand, &name, setup, verb);
            stand.gate.reset();
            run(verb, &pages, &database, |_| {});
            let exchanges = stand.gate.log().len();
            let mut moments: Vec<_> = (0..exchanges)
                .flat_map(|number| [When::Before, When::After].map(|when| Moment::Exchange(number, when)))
                .collect();
            if matches!(verb, Verb::Load(_)) {
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

/// Every interleaving of a verb with one interference, cut at the verb's exchanges and loader: what this process has
/// invalidated never comes back, here or elsewhere; and no process takes what another has invalidated from the remote tier.
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
