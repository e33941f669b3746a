//! What `fuzz/` reaches of the inside: the names of items, and what reads bytes that a peer may have written. No part of the
//! API; there in builds with `--cfg fuzzing` alone.
#![allow(missing_docs, missing_debug_implementations)]

use std::time::Duration;

use uuid::Uuid;

use crate::broadcast::journal::{Entry, Journal};
use crate::group::Bump;
use crate::remote::envelope::{Envelope, GroupTokens, Header, View, WireTtl};
use crate::remote::keyspace::{Keyspace, group_hash};
use crate::remote::packing::Packing;
use crate::{Codec, CodecError, CodecId, Compression, RemoteError, RemoteKey, SharedBytes, WireKey};

/// What an envelope says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub codec: CodecId,
    pub created_ms: u64,
    pub soft_ttl: Option<Duration>,
    pub hard_ttl: Option<Duration>,
    pub load_cost_us: u32,
    /// Hash, hard token and soft token of each.
    pub groups: Vec<[u64; 3]>,
    /// As the codec wrote it.
    pub payload: SharedBytes,
}

/// Takes payloads as they are, in the name of any codec.
struct Verbatim(CodecId);

impl Codec<SharedBytes> for Verbatim {
    fn id(&self) -> CodecId {
        self.0
    }

    fn encode(&self, value: &SharedBytes, out: &mut Vec<u8>) -> Result<(), CodecError> {
        out.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<SharedBytes, CodecError> {
        Ok(bytes.to_vec().into())
    }

    fn decode_shared(&self, bytes: &SharedBytes) -> Result<SharedBytes, CodecError> {
        Ok(bytes.clone())
    }
}

/// Returns the codec that an envelope says has written it, sound or not.
pub fn codec_of(bytes: &[u8]) -> CodecId {
    CodecId::from_flags(bytes.get(3).copied().unwrap_or_default())
}

/// Reads the envelope of the key with this fingerprint, whichever codec wrote it.
pub fn open(bytes: &SharedBytes, fingerprint: u64, compression: Option<Compression>) -> Result<Opened, RemoteError> {
    let view = View::decode(bytes, fingerprint)?;
    let codec = codec_of(bytes);
    let Header { created_ms, soft_ttl, hard_ttl, load_cost_us, .. } = view.header;
    Ok(Opened {
        codec,
        created_ms,
        soft_ttl: soft_ttl.get(),
        hard_ttl: hard_ttl.get(),
        load_cost_us,
        groups: view.groups().map(|tokens| [tokens.group_hash, tokens.hard, tokens.soft]).collect(),
        payload: view.value(&Verbatim(codec), Packing { compression }, bytes)?,
    })
}

/// Reads the value in the envelope of the key with this fingerprint.
pub fn value<V>(bytes: &SharedBytes, fingerprint: u64, codec: &impl Codec<V>) -> Result<V, RemoteError> {
    View::decode(bytes, fingerprint)?.value(codec, Packing::default(), bytes)
}

/// Writes an envelope.
pub fn seal(opened: &Opened, fingerprint: u64, compression: Option<Compression>) -> Result<Vec<u8>, RemoteError> {
    let header = Header {
        key_fingerprint: fingerprint,
        created_ms: opened.created_ms,
        soft_ttl: WireTtl::new(opened.soft_ttl),
        hard_ttl: WireTtl::new(opened.hard_ttl),
        load_cost_us: opened.load_cost_us,
    };
    let tokens = |&[group_hash, hard, soft]: &[u64; 3]| GroupTokens { group_hash, hard, soft };
    let groups: Vec<GroupTokens> = opened.groups.iter().map(tokens).collect();
    let envelope = Envelope { header, groups: &groups };
    envelope.encode_value(&Verbatim(opened.codec), Packing { compression }, &opened.payload)
}

/// What a journal says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chronicle {
    pub epoch: [u8; 16],
    pub end: u64,
    pub last_sender: Option<u64>,
    /// The bytes of the same journal without its older half.
    pub newer_half: Vec<u8>,
}

pub fn journal(bytes: &[u8]) -> Result<Chronicle, RemoteError> {
    let journal = Journal::decode(bytes)?;
    Ok(Chronicle {
        epoch: journal.epoch().into_bytes(),
        end: journal.end_seq(),
        last_sender: journal.last_sender(),
        newer_half: journal.encode_newer_half(),
    })
}

/// Returns the entries from a position on, each as it would be written again; `None` for one that cannot be read.
pub fn journal_since(bytes: &[u8], epoch: [u8; 16], position: u64) -> Option<Vec<Option<Vec<u8>>>> {
    let rewritten = |entry: Entry| entry.encode().to_vec();
    let entries = Journal::decode(bytes).ok()?.since(Uuid::from_bytes(epoch), position)?;
    Some(entries.map(|entry| entry.ok().map(rewritten)).collect())
}

/// The names of what belongs to one key, one group and one counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    pub value: WireKey,
    pub refresh: WireKey,
    pub hard_token: WireKey,
    pub soft_token: WireKey,
    pub journal: WireKey,
    pub counter: WireKey,
    pub fingerprint: u64,
    pub group_hash: u64,
    /// The group that every value of the cache is in.
    pub root_group: u64,
}

pub fn names<Q: RemoteKey + ?Sized>(
    [namespace, version, cache]: [&str; 3],
    key: &Q,
    group: &str,
    counter: &str,
) -> Result<Names, RemoteError> {
    let keys = Keyspace::new(namespace, version)?;
    let of_cache = keys.cache(cache)?;
    let (value, fingerprint) = of_cache.locate(key);
    let group_hash = group_hash(group);
    Ok(Names {
        refresh: of_cache.refresh_of(&value),
        value,
        hard_token: keys.token(group_hash, Bump::Kill),
        soft_token: keys.token(group_hash, Bump::Expire),
        journal: keys.journal(),
        counter: keys.counter(counter),
        fingerprint,
        group_hash,
        root_group: of_cache.root_group(),
    })
}

/// Reads a page of the cache of responses, and writes it again.
pub fn page(bytes: &SharedBytes) -> Result<Vec<u8>, CodecError> {
    crate::http::reread(bytes)
}
