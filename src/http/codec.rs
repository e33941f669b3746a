//! How pages are written in the remote tier.
//!
//! ```text
//! response    0 u8 · status u16 · flags u8 (1: a client may extend it; 2: the origin keeps it)
//!             initial_age, fresh_for, while_revalidate, if_error, kept_stale: u64 ms · stored_ms u64
//!             headers · groups u16 times text · body
//! validator   1 u8 · is_origins u8 · headers
//! variants    2 u8 · epoch u64 · names u16 times text · listed u16 times text
//! uncacheable 3 u8
//!
//! headers     u16 times (name: text, value: text)        text  length u32, bytes
//! ```

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::page::{Content, MAX_VARIANTS, Page, Stored, Validator, Variants};
use super::storing::{MAX_GROUPS, MAX_VARY, Terms};
use crate::remote::bytes::SharedBytes;
use crate::remote::codec::{Codec, CodecError, CodecId};
use crate::remote::reader::{DecodeError, Reader};

/// How many headers a page may have. hyper, which bounds what it reads by a hundred, sends and takes no more.
const MAX_HEADERS: usize = 1_024;

const RESPONSE: u8 = 0;
const VALIDATOR: u8 = 1;
const VARIANTS: u8 = 2;
const UNCACHEABLE: u8 = 3;

const CLIENT_MAY_EXTEND: u8 = 1;
const IS_ORIGINS: u8 = 2;

/// Writes and reads pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages;

impl Codec<Page> for Pages {
    fn id(&self) -> CodecId {
        CodecId::PAGES
    }

    fn encode(&self, page: &Page, out: &mut Vec<u8>) -> Result<(), CodecError> {
        match page.content() {
            Content::Response(stored) => {
                let Stored { status, headers, body, terms, groups, stored_ms } = stored;
                out.push(RESPONSE);
                out.extend_from_slice(&status.as_u16().to_le_bytes());
                let extends = if terms.client_may_extend { CLIENT_MAY_EXTEND } else { 0 };
                out.push(extends | if terms.is_origins { IS_ORIGINS } else { 0 });
                let intervals =
                    [terms.initial_age, terms.fresh_for, terms.while_revalidate, terms.if_error, terms.kept_stale];
                for interval in intervals {
                    let ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
                    out.extend_from_slice(&ms.to_le_bytes());
                }
                out.extend_from_slice(&stored_ms.to_le_bytes());
                write_headers(headers, out)?;
                write_list(groups.iter().map(String::as_bytes), out)?;
                out.extend_from_slice(body);
            }
            Content::Validator(Validator { headers, is_origins }) => {
                out.extend_from_slice(&[VALIDATOR, u8::from(*is_origins)]);
                write_headers(headers, out)?;
            }
            Content::Variants(Variants { names, epoch, listed }) => {
                out.push(VARIANTS);
                out.extend_from_slice(&epoch.to_le_bytes());
                write_list(names.iter().map(|name| name.as_str().as_bytes()), out)?;
                write_list(listed.iter().map(String::as_bytes), out)?;
            }
            Content::Uncacheable => out.push(UNCACHEABLE),
        }
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Page, CodecError> {
        read(bytes, Bytes::copy_from_slice).map(Page::new).map_err(no_page)
    }

    fn decode_shared(&self, bytes: &SharedBytes) -> Result<Page, CodecError> {
        // It stands last. A small one would keep a buffer with what came beside it.
        let keep =
            |body: &[u8]| Some(bytes.slice(bytes.len() - body.len()..bytes.len())).filter(SharedBytes::is_compact);
        let body = |body: &[u8]| keep(body).map_or_else(|| Bytes::copy_from_slice(body), Bytes::from_owner);
        read(bytes, body).map(Page::new).map_err(no_page)
    }
}

/// Reads a page, looks at it as whoever is served it would, and writes it again.
#[cfg(fuzzing)]
pub(crate) fn reread(bytes: &SharedBytes) -> Result<Vec<u8>, CodecError> {
    let page = Pages.decode_shared(bytes)?;
    let now = std::time::SystemTime::now();
    if let Some(stored) = page.response() {
        _ = stored.headers(&stored.standing(None, now), now);
        _ = stored.terms.kept_for();
    }
    _ = page.weight("key");
    let mut out = Vec::new();
    Pages.encode(&page, &mut out)?;
    Ok(out)
}

fn no_page(error: DecodeError) -> CodecError {
    CodecError::with_source("no page of the cache of responses", error)
}

fn write_headers(headers: &HeaderMap, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.extend_from_slice(&count(headers.len())?);
    for (name, value) in headers {
        write_text(name.as_str().as_bytes(), out)?;
        write_text(value.as_bytes(), out)?;
    }
    Ok(())
}

fn write_list<'a>(texts: impl ExactSizeIterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.extend_from_slice(&count(texts.len())?);
    texts.into_iter().try_for_each(|text| write_text(text, out))
}

fn write_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let len = u32::try_from(text.len()).map_err(|error| CodecError::with_source("a text is too long", error))?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text);
    Ok(())
}

fn count(count: usize) -> Result<[u8; 2], CodecError> {
    let fits = u16::try_from(count).ok().filter(|_| count <= MAX_HEADERS);
    fits.map(u16::to_le_bytes).ok_or_else(|| CodecError::new("a page has too many headers"))
}

/// Reads a page, whose body `body` makes of its bytes.
fn read(bytes: &[u8], body: impl FnOnce(&[u8]) -> Bytes) -> Result<Content, DecodeError> {
    let mut reader = Reader::new(bytes);
    let content = match reader.u8()? {
        RESPONSE => {
            let status = StatusCode::from_u16(reader.u16()?).map_err(|_| DecodeError::ReservedBits)?;
            let flags = reader.u8()?;
            if flags & !(CLIENT_MAY_EXTEND | IS_ORIGINS) != 0 {
                return Err(DecodeError::UnknownFlags(flags));
            }
            let mut interval = || reader.u64().map(Duration::from_millis);
            let terms = Terms {
                initial_age: interval()?,
                fresh_for: interval()?,
                while_revalidate: interval()?,
                if_error: interval()?,
                kept_stale: interval()?,
                client_may_extend: flags & CLIENT_MAY_EXTEND != 0,
                is_origins: flags & IS_ORIGINS != 0,
            };
            let stored_ms = reader.u64()?;
            let headers = read_headers(&mut reader)?;
            let groups = read_list(&mut reader, MAX_GROUPS, |text| text_of(text).map(str::to_owned))?;
            let body = body(reader.rest());
            return Ok(Content::Response(Stored { status, headers, body, terms, groups, stored_ms }));
        }
        VALIDATOR => {
            let is_origins = match reader.u8()? {
                0 => false,
                1 => true,
                flags => return Err(DecodeError::UnknownFlags(flags)),
            };
            Content::Validator(Validator { is_origins, headers: read_headers(&mut reader)? })
        }
        VARIANTS => Content::Variants(Variants {
            epoch: reader.u64()?,
            names: read_list(&mut reader, MAX_VARY, name_of)?,
            listed: read_list(&mut reader, MAX_VARIANTS, |text| text_of(text).map(str::to_owned))?,
        }),
        UNCACHEABLE => Content::Uncacheable,
        kind => return Err(DecodeError::UnknownKind(kind)),
    };
    reader.finish()?;
    Ok(content)
}

fn read_headers(reader: &mut Reader<'_>) -> Result<HeaderMap, DecodeError> {
    let mut headers = HeaderMap::new();
    for _ in 0..read_count(reader, MAX_HEADERS)? {
        let name = name_of(read_text(reader)?)?;
        let value = HeaderValue::from_bytes(read_text(reader)?).map_err(|_| DecodeError::ReservedBits)?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn read_list<T>(
    reader: &mut Reader<'_>,
    most: usize,
    read: impl Fn(&[u8]) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    // Grown as it is read: a count alone allocates nothing.
    let mut list = Vec::new();
    for _ in 0..read_count(reader, most)? {
        list.push(read(read_text(reader)?)?);
    }
    Ok(list)
}

fn read_count(reader: &mut Reader<'_>, most: usize) -> Result<usize, DecodeError> {
    let count = usize::from(reader.u16()?);
    if count > most { Err(DecodeError::TooLong) } else { Ok(count) }
}

fn read_text<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let len = reader.u32()?;
    reader.take(usize::try_from(len).map_err(|_| DecodeError::TooLong)?)
}

fn text_of(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::ReservedBits)
}

fn name_of(bytes: &[u8]) -> Result<HeaderName, DecodeError> {
    HeaderName::from_bytes(bytes).map_err(|_| DecodeError::ReservedBits)
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, ETAG, VARY};
    use proptest::prelude::*;

    use super::*;

    fn contents() -> Vec<Content> {
        let headers = HeaderMap::from_iter([
            (ETAG, HeaderValue::from_static("\"a\"")),
            (VARY, HeaderValue::from_static("accept")),
            (VARY, HeaderValue::from_bytes(b"caf\xe9").unwrap()),
        ]);
        let terms = Terms {
            initial_age: Duration::from_millis(1),
            fresh_for: Duration::from_millis(2),
            while_revalidate: Duration::from_millis(3),
            if_error: Duration::from_millis(4),
            kept_stale: Duration::from_millis(5),
            client_may_extend: true,
            is_origins: true,
        };
        let groups = vec!["record:7".to_owned(), String::new()];
        let body = Bytes::from_static(b"\0page");
        vec![
            Content::Response(Stored {
                status: StatusCode::NOT_FOUND,
                headers: headers.clone(),
                body,
                terms,
                groups,
                stored_ms: 6,
            }),
            Content::Validator(Validator { headers, is_origins: true }),
            Content::Variants(Variants { names: vec![ACCEPT], epoch: 7, listed: vec!["accept=a\n".to_owned()] }),
            Content::Uncacheable,
        ]
    }

    fn written(content: Content) -> Vec<u8> {
        let mut bytes = Vec::new();
        Pages.encode(&Page::new(content), &mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Content, DecodeError> {
        super::read(bytes, Bytes::copy_from_slice)
    }

    #[test]
    fn pages_survive() {
        for (content, same) in contents().into_iter().zip(contents()) {
            let bytes = written(content);
            assert_eq!(read(&bytes).as_ref(), Ok(&same));
            assert_eq!(Pages.decode_shared(&bytes.into()).unwrap().content(), &same);
        }
    }

    #[test]
    fn a_body_stays_where_it_came_in_if_it_is_most_of_that() {
        for (len, shares) in [(10, false), (10_000, true)] {
            let Some(Content::Response(stored)) = contents().into_iter().next() else { panic!("no response") };
            let page = written(Content::Response(Stored { body: vec![b'a'; len].into(), ..stored }));
            let body_at = page.len() - len;
            let bytes = SharedBytes::from(page);
            let decoded = Pages.decode_shared(&bytes).unwrap();
            let Content::Response(Stored { body, .. }) = decoded.content() else { panic!("no response") };
            assert_eq!((body.len(), body.as_ptr() == bytes[body_at..].as_ptr()), (len, shares));
        }
    }

    #[test]
    fn truncations_and_trailing_bytes_are_errors() {
        for content in contents() {
            let has_body = matches!(content, Content::Response(_));
            let body_len = if has_body { 5 } else { 0 };
            let bytes = written(content);
            for len in 0..bytes.len() - body_len {
                assert!(Pages.decode(&bytes[..len]).is_err(), "{len} of {bytes:?}");
            }
            assert_eq!(Pages.decode(&[&bytes[..], b"x"].concat()).is_ok(), has_body);
        }
    }

    #[test]
    fn counts_and_lengths_have_caps() {
        let variants = |names: u16, text: u32| {
            [&[VARIANTS][..], &[0; 8], &names.to_le_bytes(), &text.to_le_bytes(), b"accept"].concat()
        };
        assert_eq!(read(&variants(MAX_VARY as u16 + 1, 6)), Err(DecodeError::TooLong));
        assert_eq!(read(&variants(1, u32::MAX)), Err(DecodeError::Truncated));
        assert_eq!(read(&[9]), Err(DecodeError::UnknownKind(9)));
        assert_eq!(read(&[VALIDATOR, 2, 0, 0]), Err(DecodeError::UnknownFlags(2)));
    }

    /// What this version writes, later ones read.
    #[test]
    fn golden_bytes() {
        let golden =
            [&[2][..], &7_u64.to_le_bytes(), &[1, 0, 6, 0, 0, 0], b"accept", &[1, 0, 9, 0, 0, 0], b"accept=a\n"]
                .concat();
        assert_eq!(written(contents().swap_remove(2)), golden);
        assert_eq!(written(Content::Uncacheable), [3]);
        let response = written(contents().swap_remove(0));
        assert_eq!(response[..4], [0, 148, 1, 3]);
        assert!(response.ends_with(b"\x02\0\x08\0\0\0record:7\0\0\0\0\0page"));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes: Vec<u8>) {
            let _ = Pages.decode(&bytes);
        }

        #[test]
        fn damaged_pages_decode_or_fail(which in 0..4_usize, at: prop::sample::Index, byte: u8) {
            let mut bytes = written(contents().swap_remove(which));
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = Pages.decode(&bytes);
        }
    }
}
