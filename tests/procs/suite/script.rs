//! Single verbs, one after the other, in processes of a test's choice.

use shared::clock::{now_ns, ns, sleep_until};
use shared::order::{Loading, Order, Report, Shelf};

use crate::crew::{Task, Worker};
use crate::scene::TRUST;
use crate::support::eventually;

/// When a change was acknowledged.
#[must_use = "others may not know of it yet"]
pub(crate) struct Acknowledged(u64);

impl Acknowledged {
    /// Waits until the bound has passed, and all processes have to know.
    pub(crate) fn wait_until_known(self) {
        sleep_until(self.0 + ns(TRUST));
    }
}

impl Worker {
    /// Reads from the local tier alone.
    pub(crate) fn local(&self, shelf: Shelf, key: &str) -> Option<String> {
        self.value(Order::Local { shelf, key: key.to_owned() })
    }

    pub(crate) fn get(&self, shelf: Shelf, key: &str) -> Option<String> {
        self.value(Order::Get { shelf, key: key.to_owned() })
    }

    /// Reads from both tiers, and returns the copy that is in the local one afterwards.
    pub(crate) fn copy(&self, shelf: Shelf, key: &str) -> Option<String> {
        // A process that was not given the time to look at the journal has no copy for now.
        eventually("a copy in the local tier", || {
            let value = self.get(shelf, key);
            if value.is_none() { Some(None) } else { self.local(shelf, key).map(Some) }
        })
    }

    fn value(&self, order: Order) -> Option<String> {
        match self.begin(order).report() {
            Report::Value(value) => value,
            other => panic!("the worker reports {other:?}"),
        }
    }

    pub(crate) fn insert(&self, shelf: Shelf, key: &str, value: &str) -> Acknowledged {
        self.change(Order::Insert { shelf, key: key.to_owned(), value: value.to_owned() })
    }

    pub(crate) fn remove(&self, shelf: Shelf, key: &str) -> Acknowledged {
        self.change(Order::Remove { shelf, key: key.to_owned() })
    }

    pub(crate) fn expire(&self, shelf: Shelf, key: &str) -> Acknowledged {
        self.change(Order::Expire { shelf, key: key.to_owned() })
    }

    pub(crate) fn clear(&self, shelf: Shelf) -> Acknowledged {
        self.change(Order::Clear { shelf })
    }

    fn change(&self, order: Order) -> Acknowledged {
        self.obey(order);
        Acknowledged(now_ns())
    }

    /// Begins a load that ends when it is told to; fails the test if the key needs none.
    pub(crate) fn load(&self, shelf: Shelf, key: &str, value: &str) -> Task {
        let (key, value) = (key.to_owned(), value.to_owned());
        let load = self.begin(Order::Load { shelf, key, value, callers: 1, at_ns: 0, loading: Loading::UntilTold });
        load.began();
        load
    }

    /// Lets a load end, and returns what its caller got.
    pub(crate) fn finish(&self, load: &Task) -> String {
        self.obey(Order::Finish { load: load.number });
        match load.report() {
            Report::Loaded(mut answers) => answers.remove(0).value,
            other => panic!("the worker reports {other:?}"),
        }
    }

    pub(crate) fn load_now(&self, shelf: Shelf, key: &str, value: &str) -> String {
        self.finish(&self.load(shelf, key, value))
    }
}
