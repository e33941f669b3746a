//! A server as memcached is one: items in memory, and commands of many connections in the order in which they arrive.

use std::cmp::Ordering;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::sim::{self, Bell};
use larder::{
    Action, Cas, Clock, Command, Expiry, InMemoryRemote, RemoteError, RemoteErrorKind, RemoteTier, Reply, Route,
    SetMode, WireKey,
};

use crate::history::{note, note_detail};
use crate::oracle::Oracle;

/// One server.
pub struct Server {
    pub number: usize,
    pub process: sim::Process,
    oracle: Arc<Oracle>,
    state: Mutex<State>,
    arrived: Bell,
}

#[derive(Default)]
struct State {
    inbox: BinaryHeap<Packet>,
    orders: Vec<Order>,
    sent: u64,
    /// The last life that has ended, and when.
    ended: Option<(u64, u64)>,
}

/// What somebody else does to a server.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Refuses all commands.
    GoDown,
    /// Starts anew, with nothing.
    ComeUp,
    Flush,
    /// Drops an item that was there once, by a number that says which.
    Evict(usize),
    /// All work is over.
    Rest,
    Stop,
}

/// What the server's thread has to itself.
struct Shelf {
    store: InMemoryRemote,
    /// What the store calls the connection that all commands come by.
    door: u64,
    /// How often it has been started.
    life: u64,
    down: bool,
    keys: BTreeSet<Vec<u8>>,
}

/// A command on its way.
pub struct Packet {
    pub arrives: u64,
    sent: u64,
    pub connection: u64,
    /// The life of the server that the connection was made in; `None` for one that is being made.
    pub life: Option<u64>,
    pub key: WireKey,
    pub route: Route,
    pub action: Owned,
    /// Which answer of which exchange it is to have; `None` where nobody hears it.
    pub answer: Option<(Arc<Exchange>, usize)>,
    /// When the answer to the last command reaches who asked, after it was given.
    pub reply_ns: Option<u64>,
}

/// What a command does, with its value.
#[derive(Clone, Debug)]
pub enum Owned {
    Set { value: Vec<u8>, expiry: Expiry, mode: SetMode, cas: Option<Cas> },
    Other(Action<'static>),
}

/// What one exchange waits for.
pub struct Exchange {
    pub state: Mutex<Answers>,
    pub changed: Bell,
}

pub struct Answers {
    pub replies: Vec<Option<Result<Reply, RemoteError>>>,
    pub left: usize,
    /// When who asked hears the answers.
    pub ready: Option<u64>,
    pub life: Option<u64>,
    /// Whether the server has closed the connection.
    pub broken: bool,
}

impl Owned {
    pub fn new(action: Action<'_>) -> Option<Owned> {
        Some(match action {
            Action::Set { value, expiry, mode, cas } => Owned::Set { value: value.to_vec(), expiry, mode, cas },
            Action::Get { value, lease, touch } => Owned::Other(Action::Get { value, lease, touch }),
            Action::Touch { expiry, cas } => Owned::Other(Action::Touch { expiry, cas }),
            Action::Delete { cas } => Owned::Other(Action::Delete { cas }),
            Action::MarkStale { expiry } => Owned::Other(Action::MarkStale { expiry }),
            Action::Increment { delta, initial } => Owned::Other(Action::Increment { delta, initial }),
            Action::Decrement { delta, initial } => Owned::Other(Action::Decrement { delta, initial }),
            _ => return None,
        })
    }

    /// Returns whether a network could have it carried out twice without breaking what TCP promises: a read that nobody waits for
    /// any more, a change under a condition that the first one has made untrue, an entry in the journal.
    pub fn bears_repetition(&self) -> bool {
        match self {
            Owned::Set { mode, cas, .. } => *mode != SetMode::Always || cas.is_some(),
            Owned::Other(Action::Get { lease, .. }) => lease.is_none(),
            Owned::Other(Action::Delete { cas }) => cas.is_some(),
            Owned::Other(_) => false,
        }
    }

    fn action(&self, door: u64) -> Action<'_> {
        let through = |cas: Cas| Cas { value: cas.value, connection: door };
        match self {
            Owned::Set { value, expiry, mode, cas } => {
                Action::Set { value, expiry: *expiry, mode: *mode, cas: cas.map(through) }
            }
            Owned::Other(Action::Touch { expiry, cas }) => Action::Touch { expiry: *expiry, cas: through(*cas) },
            Owned::Other(Action::Delete { cas }) => Action::Delete { cas: cas.map(through) },
            Owned::Other(action) => *action,
        }
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Packet) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Packet {}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Packet) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Packet {
    /// The first to arrive is the greatest, as a heap has it.
    fn cmp(&self, other: &Packet) -> Ordering {
        (other.arrives, other.sent).cmp(&(self.arrives, self.sent))
    }
}

impl Packet {
    pub fn new(arrives: u64, connection: u64, life: Option<u64>, command: &Command<'_>, action: Owned) -> Packet {
        let (key, route) = (command.key.clone(), command.route);
        Packet { arrives, sent: 0, connection, life, key, route, action, answer: None, reply_ns: None }
    }
}

impl Server {
    /// Makes a server, and starts it.
    pub fn start(number: usize, oracle: Arc<Oracle>) -> Arc<Server> {
        let process = sim::process(0);
        let server = Arc::new(Server { number, process, oracle, state: Mutex::default(), arrived: Bell::default() });
        let serving = server.clone();
        _ = sim::spawn(process, "server", move || serving.serve());
        server
    }

    /// Takes an order, which is carried out before the next command.
    pub fn order(&self, order: Order) {
        self.state.lock().unwrap().orders.push(order);
        self.arrived.ring();
    }

    pub fn receive(&self, packets: impl IntoIterator<Item = Packet>) {
        let mut state = self.state.lock().unwrap();
        for mut packet in packets {
            state.sent += 1;
            packet.sent = state.sent;
            state.inbox.push(packet);
        }
        drop(state);
        self.arrived.ring();
    }

    /// Returns when a life ended, whose connections were closed then.
    pub fn ended(&self, life: u64) -> Option<u64> {
        self.state.lock().unwrap().ended.filter(|(ended, _)| life <= *ended).map(|(_, moment)| moment)
    }

    fn serve(&self) {
        let store = InMemoryRemote::new().with_clock(Clock::system());
        let mut shelf = Shelf { store, door: 0, life: 0, down: false, keys: BTreeSet::new() };
        shelf.knock();
        loop {
            let mut state = self.state.lock().unwrap();
            let now = sim::now();
            if !state.orders.is_empty() {
                let order = state.orders.remove(0);
                if let Order::GoDown = order {
                    state.ended = Some((shelf.life, now));
                }
                drop(state);
                if let Order::Stop = order {
                    return self.oracle.outlived(self.number, &shelf.leases());
                }
                if let Order::Rest = order {
                    self.oracle.left_behind(self.number, &shelf.leases());
                }
                if let Order::ComeUp | Order::Flush | Order::Evict(_) = order {
                    self.oracle.lost();
                }
                shelf.obey(self.number, order);
                continue;
            }
            let next = state.inbox.peek().map(|packet| packet.arrives);
            let packet = if next.is_some_and(|arrives| arrives <= now) { state.inbox.pop() } else { None };
            drop(state);
            match packet {
                Some(packet) => shelf.carry_out(packet),
                None => self.arrived.wait(next),
            }
        }
    }
}

impl Shelf {
    fn obey(&mut self, number: usize, order: Order) {
        match order {
            Order::GoDown => self.down = true,
            Order::ComeUp => {
                self.down = false;
                self.life += 1;
                self.store.restart();
                self.knock();
            }
            Order::Flush => self.store.flush(),
            Order::Evict(which) => {
                // The journal as often as all other items together.
                let journal = self.keys.iter().find(|key| key.ends_with(b":j")).filter(|_| which.is_multiple_of(2));
                let Some(key) = journal.or_else(|| self.keys.iter().nth(which / 2 % self.keys.len().max(1))) else {
                    return;
                };
                if WireKey::new(key.clone()).is_ok_and(|key| self.store.evict(&key)) {
                    note(None, format!("server {number} evicts {}", String::from_utf8_lossy(key)));
                }
            }
            Order::Rest | Order::Stop => {}
        }
    }

    /// Finds out what the store calls its present connection.
    fn knock(&mut self) {
        let key = WireKey::new("door").expect("a short word is a key");
        let lease = Action::Get { value: false, lease: Some(Duration::from_secs(1)), touch: None };
        let delete = Action::Delete { cas: None };
        let commands = [lease, delete].map(|action| Command { key: &key, route: Route::ByKey, action });
        if let Some(Ok(Reply::Won(cas))) = self.store.run(&commands, Duration::ZERO).first() {
            self.door = cas.connection;
        }
    }

    /// Returns the keys under which there are leases.
    fn leases(&self) -> Vec<String> {
        let look = Action::Get { value: false, lease: None, touch: None };
        let is_lease = |key: &&Vec<u8>| {
            WireKey::new((*key).clone()).is_ok_and(|key| {
                let command = Command { key: &key, route: Route::ByKey, action: look };
                matches!(self.store.run(&[command], Duration::ZERO)[..], [Ok(Reply::Busy(_))])
            })
        };
        self.keys.iter().filter(is_lease).map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    fn carry_out(&mut self, packet: Packet) {
        let is_refused = self.down || packet.life.is_some_and(|life| life != self.life);
        let reply = if is_refused {
            let kind = if packet.life.is_some() { RemoteErrorKind::Interrupted } else { RemoteErrorKind::Unavailable };
            Err(RemoteError::new(kind, "the server is down, or has been"))
        } else {
            self.keys.insert(packet.key.as_bytes().to_vec());
            let command = Command { key: &packet.key, route: packet.route, action: packet.action.action(self.door) };
            let mut replies = self.store.run(&[command], Duration::ZERO);
            replies.pop().unwrap_or_else(|| Err(RemoteError::new(RemoteErrorKind::Protocol, "no answer")))
        };
        note_detail(None, || {
            let (key, action, connection) = (packet.key.as_bytes().escape_ascii(), &packet.action, packet.connection);
            format!("    on connection {connection}: {key} {action:?} -> {reply:?}")
        });
        let Some((exchange, at)) = packet.answer else { return };
        let mut answers = exchange.state.lock().unwrap();
        answers.broken |= is_refused;
        answers.life = Some(self.life);
        answers.replies[at] = Some(reply.map(|reply| by_connection(reply, packet.connection)));
        answers.left -= 1;
        if answers.left == 0 {
            answers.ready = packet.reply_ns.map(|way| sim::now() + way);
            drop(answers);
            exchange.changed.ring();
        }
    }
}

/// Returns an answer as it is heard on a connection.
fn by_connection(reply: Reply, connection: u64) -> Reply {
    let on = |cas: Cas| Cas { value: cas.value, connection };
    match reply {
        Reply::Hit(mut item) => {
            item.cas = on(item.cas);
            Reply::Hit(item)
        }
        Reply::Won(cas) => Reply::Won(on(cas)),
        Reply::Busy(cas) => Reply::Busy(on(cas)),
        other => other,
    }
}
