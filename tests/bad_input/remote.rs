//! What stores and codecs are made of.

use std::time::Duration;

use larder::{
    Action, BreakerState, Clock, Codec, CodecError, Command, Expiry, InMemoryRemote, RawBytes, RemoteError,
    RemoteErrorKind, RemoteTier, Reply, Route, ServerHealth, SetMode, SharedBytes, WireKey,
};

use crate::{huge, refused};

#[test]
fn a_wire_key_is_printable_and_short() {
    for bytes in [0, 251, 1 << 20] {
        refused(WireKey::new(vec![b'k'; bytes]), &["1 to 250 bytes", &format!("not {bytes}")]);
    }
    for (bad, byte) in [(&b"a b"[..], "0x20"), (b"a\r\nflush_all", "0x0d"), (b"\x7f", "0x7f"), (b"\xff", "0xff")] {
        refused(WireKey::new(bad), &["printable ASCII", byte]);
    }
    assert_eq!(WireKey::new(vec![b'~'; 250]).unwrap().as_bytes().len(), 250);
}

#[test]
fn bytes_that_are_no_text_are_an_error() {
    for bad in [&b"\xff"[..], b"a\xc3", b"\xed\xa0\x80", &[0x80; 1 << 20]] {
        let text: Result<String, _> = RawBytes.decode(bad);
        refused(text, &["not UTF-8"]);
        let bytes: Vec<u8> = RawBytes.decode(bad).unwrap();
        assert_eq!(bytes, bad);
    }
    let empty: String = RawBytes.decode(b"").unwrap();
    assert_eq!(empty, "");
}

#[test]
fn a_part_of_bytes_is_of_what_is_there() {
    let bytes = SharedBytes::from(b"abc".to_vec());
    assert!(bytes.slice(3..3).is_empty() && SharedBytes::default().slice(0..0).is_empty());
    for range in [0..4, 4..4, usize::MAX..usize::MAX, 0..usize::MAX] {
        let part = std::panic::catch_unwind(|| bytes.slice(range.clone()));
        assert!(part.is_err(), "{range:?}");
    }
    #[expect(clippy::reversed_empty_ranges, reason = "it is what is to be refused")]
    let reversed = std::panic::catch_unwind(|| bytes.slice(2..1));
    assert!(reversed.is_err());
}

#[test]
fn errors_may_say_anything() {
    for message in ["", "\0", &huge()] {
        let error = RemoteError::new(RemoteErrorKind::Refused, message);
        assert_eq!((error.to_string(), error.kind()), (message.to_owned(), RemoteErrorKind::Refused));
        assert_eq!(CodecError::new(message.to_owned()).to_string(), message);
        assert_eq!(CodecError::with_source(message.to_owned(), error).to_string(), message);
        assert_eq!(ServerHealth::new(message, BreakerState::Closed).address, message);
    }
}

#[test]
fn a_store_in_memory_counts_to_any_number() {
    let key = WireKey::new("k").unwrap();
    let run = |store: &InMemoryRemote, action| {
        store.run(&[Command { key: &key, route: Route::ByKey, action }], Duration::ZERO).pop().unwrap()
    };
    let set = |expiry| Action::Set { value: b"v", expiry, mode: SetMode::Always, cas: None };
    let get = Action::Get { value: true, lease: None, touch: None };
    let (clock, time) = Clock::manual();
    let store = InMemoryRemote::new().with_max_value_len(usize::MAX).with_clock(clock);
    for expiry in [Expiry::After(Duration::ZERO), Expiry::After(Duration::MAX), Expiry::Never] {
        assert_eq!(run(&store, set(expiry)).unwrap(), Reply::Done);
        assert!(matches!(run(&store, get), Ok(Reply::Hit(_))), "{expiry:?}");
        assert!(store.evict(&key) && !store.evict(&key));
    }
    store.lose_replies(u64::MAX);
    assert_eq!(run(&store, set(Expiry::Never)).unwrap_err().kind(), RemoteErrorKind::Interrupted);
    store.fail_next(u64::MAX);
    assert_eq!(run(&store, get).unwrap_err().kind(), RemoteErrorKind::Interrupted);
    store.offline(true);
    assert_eq!(run(&store, get).unwrap_err().kind(), RemoteErrorKind::Unavailable);
    store.offline(false);
    store.fail_next(0);
    store.lose_replies(0);
    assert!(matches!(run(&store, get), Ok(Reply::Hit(_))));
    assert_eq!(store.run(&[], Duration::MAX).len(), 0);
    assert_eq!(run(&store, set(Expiry::After(Duration::MAX))).unwrap(), Reply::Done);
    time.advance(Duration::MAX);
    assert!(matches!(run(&store, get), Ok(Reply::Hit(_))));
}
