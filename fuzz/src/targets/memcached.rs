//! A peer that sends any bytes to the client of memcached: every command has an answer, none is another's, and no length is
//! taken on the peer's word.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use larder::{Action, Cas, Command, Expiry, Memcached, RemoteTier, Reply, Route, SetMode, WireKey};

use crate::heap;
use crate::input::Input;

/// Far longer than a peer takes that hangs up when it has nothing more to say.
const PATIENCE: Duration = Duration::from_secs(20);

const MAX_VALUE_LEN: usize = 40 << 10;
const MAX_COMMANDS: usize = 8;

/// What an exchange may hold: what a value may have for each command, the buffers, and the errors.
const MAX_HELD: usize = MAX_COMMANDS * (MAX_VALUE_LEN + (4 << 10)) + (1 << 20);

/// The longest text of an error, of which a part may be the peer's.
const MAX_MESSAGE: usize = 1 << 10;

const GREETING: &[u8] = b"VERSION 1.6.40\r\nSTAT cas_enabled yes\r\nEND\r\n";

/// Stands for as many KiB of letters as the byte behind it says, so that short inputs bring long values.
const REPEAT: u8 = 1;

/// The peer that all inputs share. It takes one connection after the other, and says to each what is next.
struct Peer {
    address: SocketAddr,
    script: Arc<Mutex<VecDeque<Vec<u8>>>>,
}

impl Peer {
    fn start() -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the address just bound");
        let script = Arc::<Mutex<VecDeque<Vec<u8>>>>::default();
        let lines = script.clone();
        thread::spawn(move || {
            // Held for a while: to close a connection with requests unread would cut off what was sent.
            let mut held = VecDeque::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let words = lines.lock().unwrap().pop_front().unwrap_or_default();
                // Whoever is spoken to may have hung up.
                _ = stream.write_all(&words).and_then(|()| stream.shutdown(Shutdown::Write));
                held.push_back(stream);
                if held.len() > 4 {
                    held.pop_front();
                }
            }
        });
        Peer { address, script }
    }
}

pub fn run(data: &[u8]) {
    static PEER: OnceLock<Peer> = OnceLock::new();
    let peer = PEER.get_or_init(Peer::start);

    let mut input = Input::new(data);
    let (mut plan, is_rude) = (Input::new(input.chunk()), input.rarely(16));
    let greeting = if is_rude { &[][..] } else { GREETING };
    let words: Vec<Vec<u8>> =
        input.rest().split(|byte| *byte == 0).map(|words| [greeting, &expanded(words)].concat()).collect();
    *peer.script.lock().unwrap() = words.iter().cloned().collect();
    let said = words.concat();

    let builder = Memcached::builder().server(peer.address).connect_timeout(PATIENCE);
    let memcached = builder.max_connections(1).max_value_len(MAX_VALUE_LEN).build().expect("the settings are good");
    let key = WireKey::new("k").expect("a key");
    let mut known = Cas { value: 1, connection: 1 };
    for _ in 0..3 {
        let count = 1 + plan.below(MAX_COMMANDS);
        let batch: Vec<Command<'_>> =
            (0..count).map(|_| Command { key: &key, route: Route::ByKey, action: action(&mut plan, known) }).collect();
        let replies = heap::within(MAX_HELD, || memcached.run(&batch, PATIENCE));
        assert_eq!(replies.len(), batch.len());
        for (command, reply) in batch.iter().zip(replies) {
            match reply {
                Ok(reply) => {
                    check(&command.action, &reply, &said);
                    if let Reply::Hit(item) = reply {
                        known = item.cas;
                    }
                }
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.len() <= MAX_MESSAGE, "{} bytes of an error", text.len());
                    assert!(!text.contains(|letter: char| letter.is_control()), "{text:?}");
                }
            }
        }
    }
}

fn expanded(words: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut words = words.iter();
    while let Some(&byte) = words.next() {
        if byte == REPEAT {
            out.resize(out.len() + words.next().map_or(0, |kib| usize::from(*kib % 64) << 10), b'x');
        } else {
            out.push(byte);
        }
    }
    out
}

fn action(plan: &mut Input<'_>, known: Cas) -> Action<'static> {
    let expiry = Expiry::After(Duration::from_secs(1));
    let cas = plan.rarely(4).then_some(known);
    match plan.below(10) {
        0..=2 => Action::Get { value: true, lease: None, touch: None },
        3 => Action::Get { value: false, lease: None, touch: None },
        4 => Action::Get { value: true, lease: Some(Duration::from_secs(30)), touch: None },
        5 => Action::Touch { expiry, cas: known },
        6 => Action::Set { value: b"value", expiry, mode: SetMode::Always, cas },
        7 => Action::Delete { cas },
        8 => Action::MarkStale { expiry: Some(expiry) },
        _ => Action::Increment { delta: 1, initial: Some((1, Expiry::Never)) },
    }
}

/// Checks that an answer is one to this command, and made of what was said.
fn check(action: &Action<'_>, reply: &Reply, said: &[u8]) {
    let is_answer = match action {
        Action::Get { .. } | Action::Touch { .. } => {
            matches!(reply, Reply::Hit(_) | Reply::Miss | Reply::Won(_) | Reply::Busy(_) | Reply::Fenced)
        }
        Action::Set { .. } => matches!(reply, Reply::Done | Reply::NotStored | Reply::Fenced),
        Action::Delete { .. } => matches!(reply, Reply::Done | Reply::Miss | Reply::Fenced),
        Action::MarkStale { .. } => matches!(reply, Reply::Done | Reply::Miss),
        _ => matches!(reply, Reply::Number(_) | Reply::Miss),
    };
    assert!(is_answer, "{reply:?} to {action:?}");
    if matches!((action, reply), (Action::Get { .. }, Reply::Fenced)) {
        panic!("a command without a cas is fenced");
    }
    let Reply::Hit(item) = reply else { return };
    assert_ne!(item.cas.value, 0, "a cas of 0 is none");
    if let Action::Get { value: true, .. } = action {
        assert!(item.value.len() <= MAX_VALUE_LEN && item.len == item.value.len());
        let announced = format!("VA {} ", item.len).into_bytes();
        let padded = format!("VA 0{}", item.len).into_bytes();
        let is_said = |line: &[u8]| said.windows(line.len()).any(|window| window == line);
        assert!(is_said(&announced) || is_said(&padded) || is_said(b"VA"), "{} bytes came of nothing", item.len);
        let block = [&item.value[..], b"\r\n"].concat();
        assert!(is_said(&block), "a value of {} bytes is not what was sent", item.len);
    } else {
        assert!(item.value.is_empty());
    }
}
