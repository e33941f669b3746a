//! Commands as memcached's meta protocol writes them, and its answers as replies.
//!
//! Requests are written straight into the output, and the lines of usual answers are read where they lie: the `memcache`
//! crate takes eight allocations for each. It tells what all other lines are, those of errors.

use std::time::Duration;

use memcache::exp::{Error as MetaError, MetaResponse, ReturnCode, parse_meta_result};

use crate::clock::real;
use crate::remote::bytes::SharedBytes;
use crate::remote::error::{RemoteError, RemoteErrorKind};
use crate::remote::tier::{Action, Cas, Command, Expiry, Item, Reply, SetMode};
use crate::remote::time::whole_secs;

/// memcached takes a larger expiry for a point in time, in seconds since the Unix epoch.
const MAX_RELATIVE_SECS: u64 = 30 * 24 * 60 * 60;

/// memcached keeps points in time in 32 bits with a sign. A later one would be in the past.
const MAX_ABSOLUTE_SECS: u64 = i32::MAX as u64;

/// What a request may need beside its key and value: command, lengths, flags and line ends are under 130 bytes.
const REQUEST_OVERHEAD: usize = 160;

/// The bytes of a foreign message that an error quotes.
const MAX_QUOTE: usize = 80;

/// Why a command has no reply.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refused this command; the connection goes on.
    Command(RemoteError),
    /// What the connection carries can no longer be told apart: it has to go.
    Connection(RemoteError),
}

/// The first line of an answer.
#[derive(Debug)]
pub(super) struct Header {
    code: ReturnCode,
    /// The length of the data block that follows, without its line end; not above the cap.
    pub(super) value_len: Option<usize>,
    flags: Flags,
}

/// What the flags of an answer say, as far as larder asks for them.
#[derive(Debug, Default)]
struct Flags {
    opaque: Option<u64>,
    cas: Option<u64>,
    size: Option<usize>,
    /// In seconds; negative for an item that never expires.
    ttl: Option<i64>,
    stale: bool,
    won: bool,
    busy: bool,
}

/// Returns no less than the bytes that [`encode`] will write.
pub(super) fn request_len_bound(command: &Command<'_>) -> usize {
    let value = if let Action::Set { value, .. } = command.action { value.len() } else { 0 };
    command.key.as_bytes().len() + value + REQUEST_OVERHEAD
}

/// Appends the request for `command`, which the server will mark its answer with `opaque`. A [`WireKey`] is a key as it is:
/// nothing in it can end it.
///
/// [`WireKey`]: crate::remote::key::WireKey
pub(super) fn encode(command: &Command<'_>, opaque: u64, output: &mut Vec<u8>) {
    let (verb, block) = match command.action {
        Action::Get { .. } | Action::Touch { .. } => ("mg", None),
        Action::Set { value, .. } => ("ms", Some(value)),
        Action::Delete { .. } | Action::MarkStale { .. } => ("md", None),
        Action::Increment { .. } | Action::Decrement { .. } => ("ma", None),
    };
    output.extend_from_slice(verb.as_bytes());
    output.push(b' ');
    output.extend_from_slice(command.key.as_bytes());
    if let Some(block) = block {
        number(output, b" ", block.len() as u64);
    }
    output.extend_from_slice(b" O");
    digits::<16>(output, opaque);
    match command.action {
        Action::Get { value, lease, touch } => {
            if let Some(lease) = lease {
                number(output, b" N", exptime(Expiry::After(lease)));
            }
            // Flags take effect in order: `t` behind `T` tells the new expiry.
            if let Some(expiry) = touch {
                number(output, b" T", exptime(expiry));
            }
            output.extend_from_slice(if value { b" v c t s" } else { b" c t s" });
        }
        Action::Touch { expiry, cas: _ } => {
            number(output, b" T", exptime(expiry));
            output.extend_from_slice(b" c t s");
        }
        Action::Set { expiry, mode, cas, .. } => {
            match mode {
                SetMode::Always => number(output, b" T", exptime(expiry)),
                SetMode::Add => {
                    output.extend_from_slice(b" ME");
                    number(output, b" T", exptime(expiry));
                }
                SetMode::Append => output.extend_from_slice(b" MA"),
            }
            only_if(output, cas);
        }
        Action::Delete { cas } => only_if(output, cas),
        Action::MarkStale { expiry } => {
            output.extend_from_slice(b" I");
            if let Some(expiry) = expiry {
                number(output, b" T", exptime(expiry));
            }
        }
        Action::Increment { delta, initial } => count(output, delta, initial),
        Action::Decrement { delta, initial } => {
            output.extend_from_slice(b" MD");
            count(output, delta, initial);
        }
    }
    output.extend_from_slice(b"\r\n");
    if let Some(block) = block {
        output.extend_from_slice(block);
        output.extend_from_slice(b"\r\n");
    }
}

fn only_if(output: &mut Vec<u8>, cas: Option<Cas>) {
    if let Some(cas) = cas {
        number(output, b" C", cas.value);
    }
}

fn count(output: &mut Vec<u8>, delta: u64, initial: Option<(u64, Expiry)>) {
    output.extend_from_slice(b" v");
    number(output, b" D", delta);
    if let Some((initial, expiry)) = initial {
        // `N0` creates a counter that never expires.
        number(output, b" N", exptime(expiry));
        number(output, b" J", initial);
    }
}

/// Appends a token that is a decimal number behind its flag.
fn number(output: &mut Vec<u8>, flag: &[u8], number: u64) {
    output.extend_from_slice(flag);
    digits::<10>(output, number);
}

/// Appends the digits of a number: at a tenth of what the formatter of the standard library takes, several times a request.
fn digits<const BASE: u64>(output: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; u64::BITS as usize / 3];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b"0123456789abcdef"[(number % BASE) as usize];
        number /= BASE;
        if number == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[first..]);
}

fn exptime(expiry: Expiry) -> u64 {
    match expiry {
        Expiry::Never => 0,
        Expiry::After(duration) => exptime_after(duration, real::since_epoch().as_secs()),
    }
}

fn exptime_after(duration: Duration, unix_now: u64) -> u64 {
    match whole_secs(duration) {
        secs @ 0..=MAX_RELATIVE_SECS => secs,
        // Forgetting an item early is always allowed.
        secs => secs.saturating_add(unix_now).min(MAX_ABSOLUTE_SECS),
    }
}

/// Decodes the first line of the answer to the request that was marked `opaque`, whatever bytes it is made of.
pub(super) fn header(line: &[u8], opaque: u64, max_value_len: usize) -> Result<Header, Failure> {
    let mut tokens = Tokens { rest: line };
    let code = match tokens.next() {
        Some(b"VA") => ReturnCode::Va,
        Some(b"HD") => ReturnCode::Hd,
        Some(b"EN") => ReturnCode::En,
        Some(b"NF") => ReturnCode::Nf,
        Some(b"NS") => ReturnCode::Ns,
        Some(b"EX") => ReturnCode::Ex,
        _ => return Err(unusual(line)),
    };
    let value_len = if code == ReturnCode::Va {
        let len = tokens.next().and_then(parse_len).filter(|len| *len <= max_value_len);
        let too_long = || format!("{} announces a value above the limit of {max_value_len} bytes", quote(line));
        Some(len.ok_or_else(|| protocol(too_long()))?)
    } else {
        None
    };
    let flags = Flags::read(tokens).ok_or_else(|| protocol(format!("{} has a flag that is no number", quote(line))))?;
    // A shifted stream would hand this caller somebody else's value. Miss or not, every answer carries its mark.
    if flags.opaque != Some(opaque) {
        return Err(protocol(format!("the answer {} belongs to another request", quote(line))));
    }
    Ok(Header { code, value_len, flags })
}

/// The parts of a line, which spaces separate.
struct Tokens<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.rest.iter().position(|byte| *byte != b' ')?;
        let rest = &self.rest[start..];
        let (token, rest) = rest.split_at(rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len()));
        self.rest = rest;
        Some(token)
    }
}

impl Flags {
    /// Reads flags, or returns `None` where one does not have the number that belongs to it.
    fn read(tokens: Tokens<'_>) -> Option<Flags> {
        let mut flags = Flags::default();
        for token in tokens {
            let (flag, argument) = token.split_first()?;
            match flag {
                b'O' => flags.opaque = Some(parse::<16>(argument)?),
                b'c' => flags.cas = Some(parse::<10>(argument)?),
                b's' => flags.size = Some(parse_len(argument)?),
                b't' => flags.ttl = Some(parse_ttl(argument)?),
                b'X' => flags.stale = true,
                b'W' => flags.won = true,
                b'Z' => flags.busy = true,
                // A later server may tell more than it is asked.
                _ => {}
            }
        }
        Some(flags)
    }
}

/// Reads a whole number without a sign: at a tenth of what it takes to make it a string and let that be parsed.
fn parse<const BASE: u64>(digits: &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' if BASE == 16 => digit - b'a' + 10,
            _ => return None,
        };
        number = number.checked_mul(BASE)?.checked_add(digit.into())?;
    }
    (!digits.is_empty()).then_some(number)
}

fn parse_len(digits: &[u8]) -> Option<usize> {
    parse::<10>(digits)?.try_into().ok()
}

/// Reads how many seconds an item has left. Negative: it never expires.
fn parse_ttl(digits: &[u8]) -> Option<i64> {
    match digits.strip_prefix(b"-") {
        Some(digits) => i64::try_from(parse::<10>(digits)?).ok().map(i64::wrapping_neg),
        None => parse::<10>(digits)?.try_into().ok(),
    }
}

/// Says what a line is that begins no usual answer.
fn unusual(line: &[u8]) -> Failure {
    match MetaResponse::parse_header(line).and_then(parse_meta_result) {
        Err(error) => refusal(&error),
        Ok(_) => protocol(format!("unexpected answer: {}", quote(line))),
    }
}

/// Turns an answer into the reply to `action`. An item's bytes are left out of it, for whoever has their buffer to put in.
pub(super) fn reply(
    action: &Action<'_>,
    header: &Header,
    value: Option<&[u8]>,
    connection: u64,
) -> Result<Reply, Failure> {
    use ReturnCode::{En, Ex, Hd, Nf, Ns, Va};
    match (action, header.code) {
        (Action::Get { .. } | Action::Touch { .. }, En) | (Action::Delete { .. } | Action::MarkStale { .. }, Nf) => {
            Ok(Reply::Miss)
        }
        (Action::Get { value: true, .. }, Va) | (Action::Get { value: false, .. } | Action::Touch { .. }, Hd) => {
            item(&header.flags, value, connection)
        }
        (Action::Set { .. } | Action::Delete { .. } | Action::MarkStale { .. }, Hd) => Ok(Reply::Done),
        (Action::Set { .. }, Ns) => Ok(Reply::NotStored),
        (Action::Set { .. }, Ex | Nf) | (Action::Delete { .. }, Ex) => Ok(Reply::Fenced),
        (Action::Increment { .. } | Action::Decrement { .. }, Va) => counter(value.unwrap_or_default()),
        (Action::Increment { .. } | Action::Decrement { .. }, Nf) => Ok(Reply::Miss),
        (Action::Increment { .. } | Action::Decrement { .. }, Ns) => {
            Err(Failure::Command(RemoteError::new(RemoteErrorKind::Refused, "memcached did not store the counter")))
        }
        (_, code) => Err(protocol(format!("{code:?} is no answer to this command"))),
    }
}

fn item(flags: &Flags, value: Option<&[u8]>, connection: u64) -> Result<Reply, Failure> {
    let Some(cas) = flags.cas else { return Err(protocol("an item without its cas".to_owned())) };
    if cas == 0 {
        return Err(Failure::Connection(no_cas()));
    }
    let cas = Cas { value: cas, connection };
    let len = match (value, flags.size) {
        (Some(value), Some(size)) if value.len() != size => {
            return Err(protocol(format!("an item of {size} bytes came with {}", value.len())));
        }
        (Some(value), _) => value.len(),
        (None, Some(size)) => size,
        (None, None) => return Err(protocol("an item without its size".to_owned())),
    };
    // Only an empty item with a lease on it is a placeholder. A stale item with a value has `W` and `Z` too: there they
    // speak of who refreshes it.
    if len == 0 && (flags.won || flags.busy) {
        return Ok(if flags.won { Reply::Won(cas) } else { Reply::Busy(cas) });
    }
    Ok(Reply::Hit(Item {
        value: SharedBytes::default(),
        len,
        cas,
        // Negative: never.
        expires_in: flags.ttl.and_then(|secs| u64::try_from(secs).ok()).map(Duration::from_secs),
        stale: flags.stale,
        won: flags.won,
    }))
}

fn counter(value: &[u8]) -> Result<Reply, Failure> {
    let number = std::str::from_utf8(value).ok().and_then(|digits| digits.trim_end_matches(' ').parse().ok());
    number.map(Reply::Number).ok_or_else(|| protocol(format!("{} is no number", quote(value))))
}

/// Sorts the error lines of memcached: those that leave the connection usable, and all others.
fn refusal(error: &MetaError) -> Failure {
    match error {
        MetaError::Server(message) if message.starts_with("out of memory") => {
            Failure::Command(RemoteError::new(RemoteErrorKind::Refused, "memcached is out of memory"))
        }
        MetaError::Server(message) if message.starts_with("object too large") => Failure::Command(RemoteError::new(
            RemoteErrorKind::TooLarge,
            "the value is larger than memcached's item limit (its option -I)",
        )),
        MetaError::Rejected(message) if message.starts_with("cannot increment or decrement") => {
            Failure::Command(RemoteError::new(RemoteErrorKind::Refused, "the item holds no counter"))
        }
        MetaError::Server(message) => {
            let message = format!("memcached failed: {}", quote(message.as_bytes()));
            Failure::Connection(RemoteError::new(RemoteErrorKind::Refused, message))
        }
        other => protocol(format!("unexpected answer: {}", quote(other.to_string().as_bytes()))),
    }
}

/// The error about a server that numbers no versions (its option `-C`).
pub(super) fn no_cas() -> RemoteError {
    let message = "memcached runs without cas, which leases and invalidation need: start it without -C";
    RemoteError::new(RemoteErrorKind::Config, message)
}

pub(super) fn protocol(message: String) -> Failure {
    Failure::Connection(RemoteError::new(RemoteErrorKind::Protocol, message))
}

/// Renders the beginning of foreign bytes as printable ASCII.
pub(super) fn quote(bytes: &[u8]) -> String {
    let (head, more) = match bytes.get(..MAX_QUOTE) {
        Some(head) if bytes.len() > MAX_QUOTE => (head, "…"),
        _ => (bytes, ""),
    };
    format!("\"{}{more}\"", head.escape_ascii())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::remote::key::WireKey;
    use crate::remote::tier::Route;

    const MAX: usize = 1 << 20;

    fn encoded(action: Action<'_>) -> String {
        let key = WireKey::new("k").unwrap();
        let command = Command { key: &key, route: Route::ByKey, action };
        let mut output = Vec::new();
        encode(&command, 0x1f, &mut output);
        assert!(output.len() <= request_len_bound(&command));
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn requests_are_written_as_the_protocol_wants_them() {
        let cas = Some(Cas { value: 7, connection: 1 });
        let second = Expiry::After(Duration::from_millis(1));
        for (action, wire) in [
            (Action::Get { value: true, lease: None, touch: None }, "mg k O1f v c t s\r\n"),
            (
                Action::Get { value: false, lease: Some(Duration::ZERO), touch: Some(Expiry::Never) },
                "mg k O1f N1 T0 c t s\r\n",
            ),
            (Action::Touch { expiry: second, cas: Cas { value: 7, connection: 1 } }, "mg k O1f T1 c t s\r\n"),
            (Action::Set { value: b"ab", expiry: second, mode: SetMode::Always, cas }, "ms k 2 O1f T1 C7\r\nab\r\n"),
            (
                Action::Set { value: b"", expiry: Expiry::Never, mode: SetMode::Add, cas: None },
                "ms k 0 O1f ME T0\r\n\r\n",
            ),
            (Action::Set { value: b"a", expiry: second, mode: SetMode::Append, cas: None }, "ms k 1 O1f MA\r\na\r\n"),
            (Action::Delete { cas }, "md k O1f C7\r\n"),
            (Action::MarkStale { expiry: None }, "md k O1f I\r\n"),
            (Action::MarkStale { expiry: Some(second) }, "md k O1f I T1\r\n"),
            (Action::Increment { delta: 2, initial: None }, "ma k O1f v D2\r\n"),
            (Action::Decrement { delta: 2, initial: Some((5, Expiry::Never)) }, "ma k O1f MD v D2 N0 J5\r\n"),
        ] {
            assert_eq!(encoded(action), wire);
        }
    }

    #[test]
    fn no_request_is_longer_than_its_bound() {
        let key = WireKey::new([b'k'; 250]).unwrap();
        let cas = Some(Cas { value: u64::MAX, connection: u64::MAX });
        let longest = Expiry::After(Duration::MAX);
        let initial = Some((u64::MAX, longest));
        for action in [
            Action::Get { value: true, lease: Some(Duration::MAX), touch: Some(longest) },
            Action::Touch { expiry: longest, cas: Cas { value: u64::MAX, connection: u64::MAX } },
            Action::Set { value: &[0; 1_000], expiry: longest, mode: SetMode::Add, cas },
            Action::Delete { cas },
            Action::MarkStale { expiry: Some(longest) },
            Action::Decrement { delta: u64::MAX, initial },
        ] {
            let command = Command { key: &key, route: Route::ByKey, action };
            let mut output = Vec::new();
            encode(&command, u64::MAX, &mut output);
            assert!(output.len() <= request_len_bound(&command), "{}", output.len());
        }
    }

    #[test]
    fn long_expiries_become_points_in_time() {
        let day = Duration::from_secs(24 * 60 * 60);
        let now = 1_700_000_000;
        assert_eq!(exptime_after(30 * day, now), MAX_RELATIVE_SECS);
        assert_eq!(exptime_after(30 * day + Duration::from_nanos(1), now), now + MAX_RELATIVE_SECS + 1);
        assert_eq!(exptime_after(Duration::MAX, now), MAX_ABSOLUTE_SECS);
    }

    fn decode(action: Action<'_>, line: &str, value: Option<&[u8]>) -> Result<Reply, RemoteErrorKind> {
        header(line.as_bytes(), 1, MAX)
            .and_then(|header| reply(&action, &header, value, 9))
            .map_err(|(Failure::Command(error) | Failure::Connection(error))| error.kind())
    }

    #[test]
    fn leases_are_read_off_empty_items_only() {
        let cas = Cas { value: 7, connection: 9 };
        let plain = Action::Get { value: true, lease: None, touch: None };
        let lease = Action::Get { value: true, lease: Some(Duration::from_secs(1)), touch: None };
        assert_eq!(decode(lease, "VA 0 c7 t-1 s0 O1 W", Some(b"")), Ok(Reply::Won(cas)));
        assert!(matches!(decode(lease, "VA 0 c7 t29 s0 O1 Z", Some(b"")), Ok(Reply::Busy(cas)) if cas.value == 7));
        assert!(matches!(decode(plain, "VA 0 c7 t29 s0 O1 Z", Some(b"")), Ok(Reply::Busy(cas)) if cas.value == 7));
        assert_eq!(decode(plain, "VA 0 c7 t29 s0 O1 X W", Some(b"")), Ok(Reply::Won(cas)));
        let hit = |value: &[u8], stale, won| {
            let expires_in = Some(Duration::from_secs(5));
            let bytes = SharedBytes::default();
            Ok(Reply::Hit(Item { value: bytes, len: value.len(), cas, expires_in, stale, won }))
        };
        assert_eq!(decode(lease, "VA 0 c7 t5 s0 O1", Some(b"")), hit(b"", false, false));
        assert_eq!(decode(lease, "VA 1  c7 t5 s1 h1 O1 later ", Some(b"a")), hit(b"a", false, false));
        assert_eq!(decode(lease, "VA 1 c7 t5 s1 O1 X W", Some(b"a")), hit(b"a", true, true));
        assert_eq!(decode(lease, "VA 1 c7 t5 s1 O1 Z X", Some(b"a")), hit(b"a", true, false));
    }

    #[test]
    fn an_answer_that_does_not_fit_its_request_breaks_the_connection() {
        let get = Action::Get { value: true, lease: None, touch: None };
        let look = Action::Get { value: false, lease: None, touch: None };
        let delete = Action::Delete { cas: None };
        let count = Action::Increment { delta: 1, initial: None };
        for (action, line, value) in [
            (get, "EN O2", None),
            (get, "EN", None),
            (get, "HD c7 t1 s1 O1", None),
            (look, "VA 1 c7 t1 s1 O1", Some(&b"a"[..])),
            (get, "VA 1 t1 s1 O1", Some(b"a")),
            (get, "VA 1 c7 t1 s2 O1", Some(b"a")),
            (get, "VA 1 c t1 s1 O1", Some(b"a")),
            (get, "VA 1 c7 tx s1 O1", Some(b"a")),
            (get, "VA 1 c7 t1 s-1 O1", Some(b"a")),
            (get, "VA 1 c7 t1 s1 O", Some(b"a")),
            (get, "VA 1 c7 t1 s1 Ox", Some(b"a")),
            (look, "HD c7 t1 O1", None),
            (get, "VA 4294967295 c7 t1 s1 O1", Some(b"a")),
            (get, "VA 99999999999999999999 O1", Some(b"a")),
            (get, "VA -1 O1", Some(b"a")),
            (get, "VA O1", Some(b"a")),
            (get, "CLIENT_ERROR bad data chunk", None),
            (get, "ERROR", None),
            (get, "", None),
            (delete, "NS O1", None),
            (count, "HD O1", None),
            (count, "VA 2 O1", Some(b"1x")),
        ] {
            assert_eq!(decode(action, line, value), Err(RemoteErrorKind::Protocol), "{line}");
        }
        assert_eq!(decode(look, "HD c0 t1 s1 O1", None), Err(RemoteErrorKind::Config));
    }

    #[test]
    fn refusals_keep_the_connection_and_other_errors_do_not() {
        for (line, kind) in [
            ("SERVER_ERROR out of memory storing object", RemoteErrorKind::Refused),
            ("SERVER_ERROR out of memory", RemoteErrorKind::Refused),
            ("SERVER_ERROR object too large for cache", RemoteErrorKind::TooLarge),
            ("CLIENT_ERROR cannot increment or decrement non-numeric value", RemoteErrorKind::Refused),
        ] {
            let Err(Failure::Command(error)) = header(line.as_bytes(), 1, MAX) else { panic!("{line}") };
            assert_eq!(error.kind(), kind);
        }
        assert!(matches!(header(b"SERVER_ERROR backend gone", 1, MAX), Err(Failure::Connection(_))));
    }

    #[test]
    fn quotes_are_short_and_printable() {
        let quoted = quote(&[0xff; 10_000]);
        assert!(quoted.len() < 5 * MAX_QUOTE);
        assert!(quote(b"a\r\n\x1b[31m").is_ascii());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_reply_or_an_error(
            code in "(VA|HD|EN|NS|EX|NF|MN|ME|SERVER_ERROR|CLIENT_ERROR|)",
            rest in prop::collection::vec(any::<u8>(), 0..64),
            value in prop::collection::vec(any::<u8>(), 0..32),
        ) {
            let line = [code.as_bytes(), b" ", &rest, b" O1"].concat();
            for action in [
                Action::Get { value: true, lease: Some(Duration::ZERO), touch: None },
                Action::Set { value: b"", expiry: Expiry::Never, mode: SetMode::Always, cas: None },
                Action::Increment { delta: 1, initial: None },
            ] {
                if let Ok(header) = header(&line, 1, MAX) {
                    prop_assert!(header.value_len.is_none_or(|len| len <= MAX));
                    _ = reply(&action, &header, Some(&value), 1);
                }
            }
        }
    }
}
