//! What orders are carried out with.

use std::collections::HashMap;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};

use larder::{Namespace, Postcard, RawBytes, TieredCache};
use shared::order::{Loading, Numbered, Order, Report, Settings, Shelf};
use shared::truth::{Truth, Versions, note_load};

use crate::bumper::Bumper;
use crate::reader;
use crate::setup;
use crate::shelf::{Callers, Goods};

/// Enough for every key of every test.
const CAPACITY: u64 = 1_000;

pub(crate) type Groups = TieredCache<u32, Versions>;

pub(crate) struct Desk {
    settings: Settings,
    namespace: Namespace,
    texts: TieredCache<String, String>,
    notes: TieredCache<String, String>,
    numbers: TieredCache<u64, u64>,
    groups: Groups,
    truth: Truth,
    /// By the number of their order: the loads that wait to be told to end.
    waiting: Mutex<HashMap<u64, Sender<()>>>,
    stopped: AtomicBool,
}

impl Desk {
    pub(crate) fn new(settings: Settings) -> Desk {
        let namespace = setup::namespace(&settings);
        let text = |name| TieredCache::builder(&namespace, name).capacity(CAPACITY).codec(RawBytes).build().unwrap();
        Desk {
            texts: text("texts"),
            notes: text("notes"),
            numbers: TieredCache::builder(&namespace, "numbers").capacity(CAPACITY).codec(Postcard).build().unwrap(),
            groups: TieredCache::builder(&namespace, "groups").capacity(CAPACITY).codec(Postcard).build().unwrap(),
            truth: Truth::open(&settings.folder).expect("open the truth"),
            namespace,
            settings,
            waiting: Mutex::default(),
            stopped: AtomicBool::new(false),
        }
    }

    /// Does what it is told, and reports. A panic is reported too, so that nobody waits for an answer in vain.
    pub(crate) fn carry_out(&self, number: u64, order: Order) {
        let done = panic::catch_unwind(AssertUnwindSafe(|| self.follow(number, order)));
        report(number, done.unwrap_or_else(|_| Report::Failed("it panicked: see above".to_owned())));
    }

    fn follow(&self, number: u64, order: Order) -> Report {
        match order {
            Order::Local { shelf, key } => Report::Value(self.goods(shelf).local(&key)),
            Order::Get { shelf, key } => Report::Value(self.goods(shelf).get(&key)),
            Order::Insert { shelf, key, value } => done_if(self.goods(shelf).insert(&key, &value)),
            Order::Remove { shelf, key } => done_if(self.goods(shelf).remove(&key)),
            Order::Expire { shelf, key } => done_if(self.goods(shelf).expire(&key)),
            Order::Clear { shelf } => done_if(self.goods(shelf).clear()),
            Order::Load { shelf, key, value, callers, at_ns, loading } => {
                let told = self.told(number);
                let load = || {
                    note_load(&self.settings.folder, &key).expect("note a load");
                    report(number, Report::Began);
                    match loading {
                        Loading::Takes(time) => std::thread::sleep(time),
                        // Told twice, or by nobody any more: then the load ends as well.
                        Loading::UntilTold => drop(told.lock().unwrap().recv()),
                    }
                };
                let callers = Callers { callers, at_ns, load: &load };
                Report::Loaded(self.goods(shelf).load(&key, &value, callers))
            }
            Order::Finish { load } => {
                let finished = self.waiting.lock().unwrap().remove(&load).is_some_and(|told| told.send(()).is_ok());
                done_if(finished)
            }
            Order::Bump { bumper, bumps, pause } => {
                let bumper = Bumper { namespace: &self.namespace, cache: &self.groups, truth: &self.truth, bumper };
                Report::Bumped(bumper.bump(bumps, pause))
            }
            Order::Read => {
                report(number, Report::Began);
                Report::Seen(reader::read(&self.groups, &self.truth, &self.stopped))
            }
            Order::Stop => {
                self.stopped.store(true, Ordering::SeqCst);
                Report::Done
            }
        }
    }

    fn goods(&self, shelf: Shelf) -> &dyn Goods {
        match shelf {
            Shelf::Texts => &self.texts,
            Shelf::Notes => &self.notes,
            Shelf::Numbers => &self.numbers,
        }
    }

    /// Returns where a load hears that it is to end.
    fn told(&self, number: u64) -> Mutex<Receiver<()>> {
        let (told, hears) = mpsc::channel();
        self.waiting.lock().unwrap().insert(number, told);
        Mutex::new(hears)
    }
}

fn done_if(done: bool) -> Report {
    if done { Report::Done } else { Report::Failed("it was not acknowledged".to_owned()) }
}

fn report(number: u64, what: Report) {
    let line = serde_json::to_string(&Numbered { number, what }).expect("a report as JSON");
    // If nobody listens any more, standard input ends too.
    _ = writeln!(io::stdout().lock(), "{line}");
}
