//! Changes groups, and writes down when everybody has to know.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use larder::{Bump, Namespace, Receipt};
use shared::clock::now_ns;
use shared::notes::BumpNote;
use shared::truth::{GROUPS, Truth, group_name};

use crate::desk::Groups;
use crate::reader::read_through;

/// How long a bump may be pending after the last one was made: memcached is back by then, or the test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one receipt is waited for before all are looked at: so much later than it was may a bump seem acknowledged.
const SETTLE_EVERY: Duration = Duration::from_millis(5);

/// Between two loads of the bumper's own.
const LOAD_EVERY: Duration = Duration::from_millis(1);

pub(crate) struct Bumper<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) cache: &'a Groups,
    pub(crate) truth: &'a Truth,
    pub(crate) bumper: usize,
}

impl Bumper<'_> {
    /// Bumps random groups, so many times, and waits until all bumps are acknowledged.
    pub(crate) fn bump(&self, bumps: usize, pause: Duration) -> Vec<BumpNote> {
        let (pending, settling) = mpsc::channel();
        // Nothing goes through it: it is over when this end is gone, however that comes about.
        let (working, over) = mpsc::channel();
        let (mut notes, settled) = thread::scope(|scope| {
            // Elsewhere, since a bump must not wait for the one before.
            let settled = scope.spawn(move || settle(settling));
            scope.spawn(move || self.keep_loading(&over));
            let mut notes = Vec::with_capacity(bumps);
            for at in 0..bumps {
                let (note, receipt) = self.bump_one().expect("the truth can be read and written");
                notes.push(note);
                if let Some(receipt) = receipt {
                    pending.send((at, receipt)).expect("somebody settles");
                }
                thread::sleep(pause);
            }
            drop((pending, working));
            (notes, settled.join().expect("settling does not panic"))
        });
        for (at, acknowledged_ns) in settled {
            notes[at].acknowledged_ns = Some(acknowledged_ns);
        }
        notes
    }

    /// Has loads of this process be under way while it bumps. A thread of its own, since a load may have to wait for a process
    /// that holds the lease and is cut off.
    fn keep_loading(&self, over: &Receiver<()>) {
        while over.recv_timeout(LOAD_EVERY) == Err(RecvTimeoutError::Timeout) {
            // That loads succeed is the readers' concern.
            _ = read_through(self.cache, self.truth, fastrand::u32(..GROUPS));
        }
    }

    fn bump_one(&self) -> io::Result<(BumpNote, Option<Receipt>)> {
        let group = fastrand::u32(..GROUPS);
        let version = self.truth.change(group, self.bumper)?;
        let began_ns = now_ns();
        let bump = self.namespace.invalidate_group(&group_name(group));
        let returned_ns = now_ns();
        // Acknowledged or not, this process must not see anything older any more.
        let own_read = self.cache.get(&group).map(|versions| versions.0[self.bumper]);
        let (acknowledged_ns, receipt) = match bump {
            Bump::Acknowledged => (Some(returned_ns), None),
            Bump::Pending(receipt) => (None, Some(receipt)),
            other => panic!("{other:?} is neither acknowledged nor pending"),
        };
        Ok((BumpNote { group, version, began_ns, returned_ns, acknowledged_ns, own_read }, receipt))
    }
}

/// Waits for receipts as they come, and returns when each was acknowledged.
fn settle(pending: Receiver<(usize, Receipt)>) -> Vec<(usize, u64)> {
    let (mut settled, mut waiting) = (Vec::new(), VecDeque::new());
    let mut give_up = None;
    loop {
        match pending.recv_timeout(SETTLE_EVERY) {
            Ok(next) => waiting.push_back(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let give_up = *give_up.get_or_insert_with(|| Instant::now() + PATIENCE);
                if waiting.is_empty() || Instant::now() > give_up {
                    return settled;
                }
            }
        }
        if let Some((_, first)) = waiting.front() {
            // Whether or not it is this one that comes through: waiting drives them all.
            _ = first.wait(SETTLE_EVERY);
        }
        let now = now_ns();
        waiting.retain(|(at, receipt)| {
            let over = receipt.is_settled();
            if over {
                settled.push((*at, now));
            }
            !over
        });
    }
}
