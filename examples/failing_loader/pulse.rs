//! A thread that ticks: it feels when the machine is late, and wakes futures that wait for time to pass.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(2);

/// A tick that comes no later than this after it was due is on time.
const ON_TIME: Duration = Duration::from_millis(2);

#[derive(Default)]
pub(crate) struct Pulse(Arc<Ticks>);

#[derive(Default)]
struct Ticks {
    /// When a tick came late, and by how much.
    late: Mutex<Vec<(Instant, Duration)>>,
    wakers: Mutex<Vec<Waker>>,
}

impl Pulse {
    pub(crate) fn start() -> Pulse {
        let pulse = Pulse::default();
        let ticks = Arc::downgrade(&pulse.0);
        thread::spawn(move || tick(&ticks));
        pulse
    }

    /// Returns how long the machine let a thread wait at most that was due between these moments.
    pub(crate) fn lateness(&self, from: Instant, to: Instant) -> Duration {
        let late = self.0.late.lock().unwrap();
        let within = late.iter().filter(|(at, by)| *at >= from && *at - *by <= to);
        within.map(|(_, by)| *by).max().unwrap_or_default()
    }

    /// Waits as a future.
    pub(crate) async fn sleep(&self, interval: Duration) {
        let until = Instant::now() + interval;
        poll_fn(|context| {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            self.0.wakers.lock().unwrap().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn tick(ticks: &Weak<Ticks>) {
    loop {
        let due = Instant::now() + TICK;
        thread::sleep(TICK);
        let now = Instant::now();
        let Some(ticks) = ticks.upgrade() else { return };
        if now - due > ON_TIME {
            ticks.late.lock().unwrap().push((now, now - due));
        }
        let wakers = std::mem::take(&mut *ticks.wakers.lock().unwrap());
        wakers.into_iter().for_each(Waker::wake);
    }
}
