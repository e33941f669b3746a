//! Worker processes, and what they are told.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use shared::order::{Numbered, Order, Report, Settings, Shelf};

/// How long a report is waited for: the longest runs make tens of thousands of bumps.
const PATIENCE: Duration = Duration::from_secs(300);

/// A worker process; killed when dropped.
pub(crate) struct Worker {
    child: Child,
    orders: Mutex<Orders>,
    reports: Arc<Mutex<Desks>>,
}

struct Orders {
    to: ChildStdin,
    next: u64,
}

/// By the number of an order: where the reports on it go.
type Desks = HashMap<u64, Sender<Report>>;

/// An order that is being carried out.
pub(crate) struct Task {
    pub(crate) number: u64,
    reports: Receiver<Report>,
}

impl Worker {
    /// Starts one, and waits until it does as it is told.
    pub(crate) fn start(settings: &Settings) -> Worker {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder-worker"));
        command.arg(serde_json::to_string(settings).expect("settings as JSON"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start a worker");
        let to = child.stdin.take().expect("a pipe to the worker");
        let from = BufReader::new(child.stdout.take().expect("a pipe from the worker"));
        let reports = Arc::<Mutex<Desks>>::default();
        let desks = Arc::clone(&reports);
        thread::spawn(move || {
            for line in from.lines().map_while(Result::ok) {
                let Numbered::<Report> { number, what } = serde_json::from_str(&line).expect("a report as JSON");
                if let Some(desk) = desks.lock().unwrap().get(&number) {
                    // Nobody may be interested.
                    _ = desk.send(what);
                }
            }
            // Whoever still waits for a report learns that there will be none.
            desks.lock().unwrap().clear();
        });
        let worker = Worker { child, orders: Mutex::new(Orders { to, next: 0 }), reports };
        _ = worker.local(Shelf::Texts, "none");
        worker
    }

    /// Orders something, without waiting for it.
    pub(crate) fn begin(&self, what: Order) -> Task {
        let mut orders = self.orders.lock().unwrap();
        let number = orders.next;
        orders.next += 1;
        let (desk, reports) = mpsc::channel();
        self.reports.lock().unwrap().insert(number, desk);
        let line = serde_json::to_string(&Numbered { number, what }).expect("an order as JSON");
        writeln!(orders.to, "{line}").expect("tell the worker");
        Task { number, reports }
    }

    /// Orders something, and waits until it is done.
    pub(crate) fn obey(&self, order: Order) {
        match self.begin(order).report() {
            Report::Done => {}
            other => panic!("the worker reports {other:?}"),
        }
    }

    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process, as a crash would, and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("kill a worker");
        self.child.wait().expect("wait for a worker");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may be dead already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Task {
    /// Returns the next report; fails the test if there is none.
    pub(crate) fn report(&self) -> Report {
        match self.reports.recv_timeout(PATIENCE) {
            Ok(Report::Failed(why)) => panic!("a worker failed: {why}"),
            Ok(report) => report,
            Err(RecvTimeoutError::Disconnected) => panic!("a worker ended without a report"),
            Err(RecvTimeoutError::Timeout) => panic!("a worker did not report within {PATIENCE:?}"),
        }
    }

    /// Waits until what was ordered has begun.
    pub(crate) fn began(&self) {
        match self.report() {
            Report::Began => {}
            other => panic!("the worker reports {other:?}"),
        }
    }
}
