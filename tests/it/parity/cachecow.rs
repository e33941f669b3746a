//! `CacheCow`: get or fetch, whose fill counts only while a flag stands that every invalidation takes away.

use std::cell::Cell;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};

use larder::{Codec, CodecError, CodecId, Namespace, RemoteKey, TieredCache, ToKey};

use super::World;
use crate::rules::{Process, own};
use crate::tiered::gate::{Kind, When};

#[test]
fn get_or_fetch() {
    let world = World::new();
    let (ours, theirs) = (world.process(), world.process());
    let fetches = Cell::new(0);
    let get = |process: &Process| {
        let fetched = process.pages.get_or_load("post", |_| {
            fetches.set(fetches.get() + 1);
            Ok::<_, Infallible>(own("First Title"))
        });
        fetched.unwrap()
    };
    for process in [&ours, &ours, &theirs, &theirs] {
        assert_eq!(get(process), "First Title");
    }
    assert_eq!(fetches.get(), 1);
    ours.remove("post");
    assert_eq!((get(&ours), fetches.get()), (own("First Title"), 2));
}

/// Fetches while another process invalidates at `moment`; returns what both find afterwards.
fn invalidated(moment: impl FnOnce(&Process, Process)) {
    let world = World::new();
    let (ours, theirs) = (world.process(), world.process());
    moment(&ours, theirs.clone());
    ours.look();
    for process in [&ours, &theirs, &world.process()] {
        assert_eq!(process.get("post"), None);
    }
}

#[test]
fn an_invalidation_before_the_fetch_leaves_the_cache_clear() {
    invalidated(|ours, theirs| {
        // The flag is set; the fetch has not begun.
        ours.wire.at(Kind::Read, When::After, move || theirs.remove("post"));
        assert_eq!(ours.load("post", "old"), "old");
    });
}

#[test]
fn an_invalidation_between_the_fetch_and_the_fill_leaves_the_cache_clear() {
    invalidated(|ours, theirs| {
        assert_eq!(ours.load_after("post", "old", || theirs.remove("post")), "old");
    });
    // At the last moment: the fill is on its way.
    invalidated(|ours, theirs| {
        ours.wire.at(Kind::Write, When::Before, move || theirs.remove("post"));
        assert_eq!(ours.load("post", "old"), "old");
    });
}

#[test]
fn an_invalidation_after_the_fill_leaves_the_cache_clear() {
    invalidated(|ours, theirs| {
        ours.wire.at(Kind::Write, When::After, {
            let theirs = theirs.clone();
            move || theirs.remove("post")
        });
        assert_eq!(ours.load("post", "old"), "old");
    });
    invalidated(|ours, theirs| {
        assert_eq!(ours.load("post", "old"), "old");
        theirs.remove("post");
    });
}

/// A type with a key, a fetch and a form of its own.
#[derive(Clone, Debug, PartialEq)]
struct BlogPost {
    id: u64,
    title: String,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ByTitle(String);

impl RemoteKey for ByTitle {
    fn encode(&self, key: &mut Vec<u8>) {
        key.extend_from_slice(format!("blog_post$title${}", self.0).as_bytes());
    }
}

struct AsLine;

impl Codec<BlogPost> for AsLine {
    fn id(&self) -> CodecId {
        CodecId::custom::<0>()
    }

    fn encode(&self, post: &BlogPost, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(format!("{} {}", post.id, post.title).as_bytes());
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<BlogPost, CodecError> {
        let line = std::str::from_utf8(bytes).map_err(|error| CodecError::with_source("not UTF-8", error))?;
        let (id, title) = line.split_once(' ').ok_or_else(|| CodecError::new("no title"))?;
        let id = id.parse().map_err(|error| CodecError::with_source("no id", error))?;
        Ok(BlogPost { id, title: title.to_owned() })
    }
}

#[test]
fn each_type_has_its_own_key_fetch_serialize_and_deserialize() {
    static FETCHES: AtomicU32 = AtomicU32::new(0);
    let fetch = |title: &ByTitle, _: larder::Load<BlogPost>| {
        FETCHES.fetch_add(1, Ordering::Relaxed);
        Ok::<_, Infallible>(BlogPost { id: 7, title: title.to_key().0 })
    };
    let world = World::new();
    let start = || {
        let namespace = Namespace::builder("blog", world.store.clone()).build().unwrap();
        TieredCache::builder(&namespace, "posts").capacity(100).codec(AsLine).loader(fetch).build().unwrap()
    };
    let title = ByTitle(own("First Title"));
    let post = BlogPost { id: 7, title: own("First Title") };
    assert_eq!(start().load(&title).unwrap(), post);
    // Another process reads what the first has written.
    let other = start();
    assert_eq!(other.load(&title).unwrap(), post);
    assert_eq!(FETCHES.load(Ordering::Relaxed), 1);
    assert!(other.remove(&title).is_acknowledged());
    assert_eq!(start().load(&title).unwrap(), post);
    assert_eq!(FETCHES.load(Ordering::Relaxed), 2);
}

#[test]
fn no_more_round_trips_than_there() {
    let world = World::new();
    let (ours, theirs) = (world.process(), world.process());
    // The tokens of the groups are known from here on.
    ours.insert("other", "1");
    theirs.insert("other", "1");
    let cost = |process: &Process, work: &dyn Fn()| {
        process.wire.log();
        work();
        process.wire.log()
    };
    // A miss sets the flag; the fill takes it away: two.
    let miss = cost(&ours, &|| assert_eq!(ours.load("post", "1"), "1"));
    assert_eq!(miss, [[Kind::Read], [Kind::Write]]);
    // A hit in the store: one; there, all hits are.
    assert_eq!(cost(&theirs, &|| assert_eq!(theirs.load("post", "2"), "1")), [[Kind::Read]]);
    // Further hits: none.
    assert!(cost(&theirs, &|| assert_eq!(theirs.load("post", "2"), "1")).is_empty());
    // An invalidation: one there. Here one more, which tells the local tiers of all processes.
    assert_eq!(cost(&ours, &|| ours.remove("post")), [[Kind::Delete], [Kind::WriteJournal]]);
}
