//! The network: what may become of a message between a process and a server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use larder::sim::{self, Bell};
use larder::{Cas, Command, RemoteError, RemoteErrorKind, RemoteTier, Reply, Route, WireKey};

use crate::history::{note, note_detail};
use crate::oracle::Oracle;
use crate::plan::{MS, Plan};
use crate::server::{Answers, Exchange, Owned, Packet, Server};

/// The longest value that servers take.
const MAX_VALUE_LEN: usize = (1 << 20) - 512;

/// All ways between processes and servers.
pub struct Network {
    pub servers: Vec<Arc<Server>>,
    delay_ns: u64,
    gap_ns: u64,
    gaps: u8,
    loss: u32,
    twice: u32,
    state: Mutex<Weather>,
    oracle: Arc<Oracle>,
}

/// How the network is at the moment.
struct Weather {
    random: Rng,
    last_connection: u64,
    /// By process and server.
    cut_to: BTreeSet<(usize, usize)>,
    cut_from: BTreeSet<(usize, usize)>,
    lossy_until: u64,
    /// Until when messages take up to so long.
    slow: (u64, u64),
    /// By process: until when answers of the first server take so much longer, and those of the others.
    late: BTreeMap<usize, (u64, u64, u64)>,
}

/// What becomes of an exchange.
struct Fate {
    /// How long the request is on its way; `None` if it is lost.
    there_ns: Option<u64>,
    back_ns: Option<u64>,
    /// How many commands get through.
    reaches: usize,
    gaps_ns: Vec<u64>,
    again_ns: Vec<Option<u64>>,
}

impl Network {
    pub fn new(plan: &Plan, servers: Vec<Arc<Server>>, oracle: Arc<Oracle>) -> Arc<Network> {
        let weather = Weather {
            random: Rng::with_seed(plan.seed ^ 0x0E_7E_0E_7E),
            last_connection: 0,
            cut_to: BTreeSet::new(),
            cut_from: BTreeSet::new(),
            lossy_until: 0,
            slow: (0, 0),
            late: BTreeMap::new(),
        };
        Arc::new(Network {
            servers,
            delay_ns: plan.delay_ns,
            gap_ns: plan.gap_ns,
            gaps: plan.gaps,
            loss: plan.faults.loss,
            twice: plan.faults.twice,
            state: Mutex::new(weather),
            oracle,
        })
    }

    /// Returns the way of a process to the servers, with connections of its own.
    pub fn link(self: &Arc<Self>, process: usize) -> Link {
        Link { network: self.clone(), process, pool: Mutex::new(Pool::default()), returned: Bell::default() }
    }

    pub fn cut(&self, process: usize, server: usize, to: bool, from: bool) {
        let mut weather = self.state.lock().unwrap();
        if to {
            weather.cut_to.insert((process, server));
        }
        if from {
            weather.cut_from.insert((process, server));
        }
    }

    pub fn mend(&self, process: usize, server: usize) {
        let mut weather = self.state.lock().unwrap();
        weather.cut_to.remove(&(process, server));
        weather.cut_from.remove(&(process, server));
    }

    pub fn lose_until(&self, moment: u64) {
        self.state.lock().unwrap().lossy_until = moment;
    }

    pub fn slow_until(&self, moment: u64, longest_ns: u64) {
        self.state.lock().unwrap().slow = (moment, longest_ns);
    }

    /// Has answers of the first server to a process take so much longer until a moment, and those of the others.
    pub fn late_until(&self, process: usize, moment: u64, first_ns: u64, others_ns: u64) {
        self.state.lock().unwrap().late.insert(process, (moment, first_ns, others_ns));
    }

    /// Returns whether a process has heard that a connection was closed by its server's end.
    fn is_closed(&self, process: usize, Connection { server, life, .. }: Connection) -> bool {
        let weather = self.state.lock().unwrap();
        let ended = life.and_then(|life| self.servers[server].ended(life));
        !weather.cut_from.contains(&(process, server))
            && ended.is_some_and(|ended| sim::now() > ended.max(weather.slow.0) + weather.slow.1 + self.delay_ns)
    }

    fn fate(&self, process: usize, server: usize, commands: usize) -> Fate {
        let now = sim::now();
        let mut weather = self.state.lock().unwrap();
        let Weather { random, cut_to, cut_from, lossy_until, slow, late, .. } = &mut *weather;
        let late_ns = late
            .get(&process)
            .filter(|(until, ..)| *until > now)
            .map_or(0, |(_, first, others)| if server == 0 { *first } else { *others });
        let way = |random: &mut Rng| {
            let usual = random.u64(self.delay_ns / 10..=self.delay_ns);
            if slow.0 > now { usual + random.u64(..=slow.1) } else { usual }
        };
        let is_lossy = *lossy_until > now;
        let lost = |random: &mut Rng| is_lossy && random.u32(..1_000) < self.loss;
        let (is_lost, is_unheard, is_torn) = (lost(random), lost(random), lost(random));
        let there_ns = (!is_lost && !cut_to.contains(&(process, server))).then(|| way(random));
        let back_ns =
            (!is_unheard && !is_torn && !cut_from.contains(&(process, server))).then(|| late_ns + way(random));
        let reaches = if is_torn { random.usize(..commands) } else { commands };
        // Of one write, a server reads what has arrived, and others' commands come in between.
        let is_stretched = random.u8(..8) < self.gaps;
        let gaps_ns = (0..commands)
            .map(|at| if at > 0 && is_stretched && random.bool() { random.u64(..=self.gap_ns) } else { 0 })
            .collect();
        let again_ns =
            (0..commands).map(|_| (random.u32(..1_000) < self.twice).then(|| random.u64(..500 * MS))).collect();
        drop(weather);
        if there_ns.is_none() || back_ns.is_none() {
            self.oracle.disturbed(Some(process), now);
        }
        Fate { there_ns, back_ns, reaches, gaps_ns, again_ns }
    }
}

/// A process's way to the servers.
pub struct Link {
    network: Arc<Network>,
    process: usize,
    pool: Mutex<Pool>,
    returned: Bell,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Those in use.
    lent: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    id: u64,
    server: usize,
    /// The life of the server that it was made in, once it has been heard of.
    life: Option<u64>,
}

impl Link {
    /// Takes the connection of the first cas that still has one, or any.
    fn take(&self, server: usize, commands: &[Command<'_>], deadline: u64) -> Result<Connection, RemoteError> {
        let mut pool = self.pool.lock().unwrap();
        // As whoever takes one looks whether it has been closed.
        pool.idle.retain(|idle| idle.server != server || !self.network.is_closed(self.process, *idle));
        for cas in commands.iter().filter_map(|command| cas_of(command)) {
            loop {
                if let Some(at) = pool.idle.iter().position(|idle| idle.id == cas.connection && idle.server == server) {
                    let connection = pool.idle.swap_remove(at);
                    pool.lent.insert(connection.id);
                    return Ok(connection);
                }
                if !pool.lent.contains(&cas.connection) {
                    break;
                }
                drop(pool);
                self.returned.wait(Some(deadline));
                pool = self.pool.lock().unwrap();
                if sim::now() >= deadline {
                    return Err(RemoteError::new(RemoteErrorKind::Unavailable, "the connection is in use"));
                }
            }
        }
        let idle = pool.idle.iter().position(|idle| idle.server == server).map(|at| pool.idle.swap_remove(at));
        let connection = idle.unwrap_or_else(|| {
            let mut weather = self.network.state.lock().unwrap();
            weather.last_connection += 1;
            Connection { id: weather.last_connection, server, life: None }
        });
        pool.lent.insert(connection.id);
        Ok(connection)
    }

    fn give_back(&self, connection: Connection, is_sound: bool) {
        let mut pool = self.pool.lock().unwrap();
        pool.lent.remove(&connection.id);
        if is_sound {
            pool.idle.push(connection);
        }
        drop(pool);
        self.returned.ring();
    }

    /// Runs commands of one server.
    fn exchange(&self, server: usize, commands: &[Command<'_>], deadline: u64) -> Vec<Result<Reply, RemoteError>> {
        let mut connection = match self.take(server, commands, deadline) {
            Ok(connection) => connection,
            Err(error) => return vec![Err(error); commands.len()],
        };
        let id = connection.id;
        let may_run = |command: &&Command<'_>| cas_of(command).is_none_or(|cas| cas.connection == id);
        let runnable: Vec<Command<'_>> = commands.iter().filter(may_run).copied().collect();
        let (answers, is_sound) = self.send(&mut connection, &runnable, deadline);
        self.give_back(connection, is_sound);
        let mut answers = answers.into_iter();
        let answer = |command: &Command<'_>| {
            if may_run(&command) { answers.next().unwrap_or_else(|| Err(timed_out())) } else { Ok(Reply::Fenced) }
        };
        commands.iter().map(answer).collect()
    }

    fn send(
        &self,
        connection: &mut Connection,
        commands: &[Command<'_>],
        deadline: u64,
    ) -> (Vec<Result<Reply, RemoteError>>, bool) {
        if commands.is_empty() {
            return (Vec::new(), true);
        }
        let count = commands.len();
        let answers = Answers { replies: vec![None; count], left: count, ready: None, life: None, broken: false };
        let exchange = Arc::new(Exchange { state: Mutex::new(answers), changed: Bell::default() });
        let fate = self.network.fate(self.process, connection.server, count);
        let (server, id) = (connection.server, connection.id);
        note_detail(Some(self.process), || {
            let keys: Vec<_> =
                commands.iter().map(|command| command.key.as_bytes().escape_ascii().to_string()).collect();
            format!("    asks server {server} on connection {id}: {}", keys.join(", "))
        });
        if let Some(there) = fate.there_ns {
            let mut packets = Vec::with_capacity(count);
            let mut arrives = sim::now() + there;
            for (at, command) in commands.iter().enumerate().take(fate.reaches) {
                let Some(action) = Owned::new(command.action) else { continue };
                arrives += fate.gaps_ns[at];
                if let Some(later) = fate.again_ns[at].filter(|_| action.bears_repetition()) {
                    packets.push(Packet::new(arrives + later, connection.id, connection.life, command, action.clone()));
                }
                let mut packet = Packet::new(arrives, connection.id, connection.life, command, action);
                packet.answer = Some((exchange.clone(), at));
                packet.reply_ns = fate.back_ns;
                packets.push(packet);
            }
            self.network.servers[connection.server].receive(packets);
        }
        let mut answers = exchange.state.lock().unwrap();
        loop {
            let now = sim::now();
            if answers.ready.is_some_and(|ready| ready <= now) {
                break;
            }
            if now >= deadline {
                drop(answers);
                note(Some(self.process), format!("times out on server {}", connection.server));
                self.network.oracle.disturbed(Some(self.process), now);
                return (vec![Err(timed_out()); count], false);
            }
            let until = answers.ready.map_or(deadline, |ready| ready.min(deadline));
            drop(answers);
            exchange.changed.wait(Some(until));
            answers = exchange.state.lock().unwrap();
        }
        connection.life = answers.life;
        note_detail(Some(self.process), || format!("    hears server {server} on connection {id}"));
        let is_sound = !answers.broken;
        if !is_sound {
            self.network.oracle.disturbed(Some(self.process), sim::now());
        }
        (answers.replies.iter_mut().map(|reply| reply.take().unwrap_or_else(|| Err(timed_out()))).collect(), is_sound)
    }
}

impl RemoteTier for Link {
    fn run(&self, batch: &[Command<'_>], timeout: Duration) -> Vec<Result<Reply, RemoteError>> {
        let deadline = sim::now() + u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX / 4);
        let mut answers: Vec<Option<Result<Reply, RemoteError>>> = vec![None; batch.len()];
        for server in 0..self.servers() {
            let at: Vec<usize> =
                (0..batch.len()).filter(|at| self.server_of(batch[*at].key, batch[*at].route) == server).collect();
            let commands: Vec<Command<'_>> = at.iter().map(|at| batch[*at]).collect();
            if !commands.is_empty() {
                let replies = self.exchange(server, &commands, deadline);
                at.into_iter().zip(replies).for_each(|(at, reply)| answers[at] = Some(reply));
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(timed_out()))).collect()
    }

    fn max_value_len(&self) -> usize {
        MAX_VALUE_LEN
    }

    fn servers(&self) -> usize {
        self.network.servers.len()
    }

    fn server_of(&self, key: &WireKey, route: Route) -> usize {
        match route {
            Route::Control => 0,
            Route::ByKey => {
                let hash = ahash::RandomState::with_seeds(5, 6, 7, 8).hash_one(key.as_bytes());
                hash as usize % self.servers()
            }
        }
    }

    fn dedicated(&self) -> Option<Box<dyn RemoteTier>> {
        Some(Box::new(self.network.link(self.process)))
    }
}

fn cas_of(command: &Command<'_>) -> Option<Cas> {
    match command.action {
        larder::Action::Set { cas, .. } | larder::Action::Delete { cas } => cas,
        larder::Action::Touch { cas, .. } => Some(cas),
        _ => None,
    }
}

fn timed_out() -> RemoteError {
    RemoteError::new(RemoteErrorKind::TimedOut, "no answer in time")
}
