//! The bodies of responses: whole ones that are stored, and those that pass by.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// The body of a response that came through the cache: one from there, or the handler's own of type `B`.
pub struct ResponseBody<B: Body<Data = Bytes>>(Inner<B>);

enum Inner<B: Body<Data = Bytes>> {
    Whole(Bytes),
    /// What was read of it already, and what is still to come.
    Passing(VecDeque<Result<Frame<Bytes>, B::Error>>, Pin<Box<B>>),
}

impl<B: Body<Data = Bytes>> ResponseBody<B> {
    pub(super) fn empty() -> Self {
        ResponseBody(Inner::Whole(Bytes::new()))
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        ResponseBody(Inner::Whole(bytes))
    }

    pub(super) fn passing(body: B) -> Self {
        ResponseBody(Inner::Passing(VecDeque::new(), Box::pin(body)))
    }

    /// Reads a body of at most `cap` bytes. One that is longer, fails or has trailers is given back, with all that it
    /// has.
    ///
    /// The bytes are copied, so that no more is held than their number: a frame may be a slice of all that a connection
    /// has read, and there may be one frame, with what it takes itself, for each byte.
    pub(super) async fn read(body: B, cap: usize) -> Result<Bytes, Self> {
        let least = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if least > cap {
            return Err(ResponseBody::passing(body));
        }
        let mut body = Box::pin(body);
        let mut whole = Vec::with_capacity(least);
        while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
            match frame.as_ref().ok().and_then(Frame::data_ref) {
                Some(data) if data.len() <= cap - whole.len() => whole.extend_from_slice(data),
                _ => {
                    let read = (!whole.is_empty()).then(|| Ok(Frame::data(whole.into())));
                    return Err(ResponseBody(Inner::Passing(read.into_iter().chain([frame]).collect(), body)));
                }
            }
        }
        Ok(whole.into_boxed_slice().into())
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.get_mut().0 {
            Inner::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Inner::Passing(read, rest) => match read.pop_front() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => rest.as_mut().poll_frame(context),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Passing(read, rest) => read.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Inner::Passing(read, rest) => {
                let read: usize = read.iter().flatten().filter_map(Frame::data_ref).map(Bytes::len).sum();
                let rest = rest.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(read as u64));
                if let Some(upper) = rest.upper() {
                    hint.set_upper(upper.saturating_add(read as u64));
                }
                hint
            }
        }
    }
}

// A frame is never pinned, and the rest of a body is in a box.
impl<B: Body<Data = Bytes>> Unpin for ResponseBody<B> {}

impl<B: Body<Data = Bytes>> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Inner::Whole(_) => "ResponseBody::whole",
            Inner::Passing(..) => "ResponseBody::passing",
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use http::HeaderMap;
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    type Parts = Vec<Result<Frame<Bytes>, &'static str>>;

    fn stream(parts: Parts) -> impl Body<Data = Bytes, Error = &'static str> {
        StreamBody::new(futures::stream::iter(parts))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, &'static str> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    #[test]
    fn a_body_that_fits_is_read_whole() {
        let read = |parts| block_on(ResponseBody::read(stream(parts), 6)).ok();
        assert_eq!(read(vec![data("abc"), data("def")]), Some(Bytes::from_static(b"abcdef")));
        assert_eq!(read(vec![data("abc")]), Some(Bytes::from_static(b"abc")));
        assert_eq!(read(vec![]), Some(Bytes::new()));
    }

    /// A million frames of one byte each would take a hundred times what they carry, and empty ones have no end.
    #[test]
    fn what_is_held_of_a_body_is_its_bytes() {
        let small = |last: Option<&'static str>| {
            (0..2_000).map(|number| data(if number < 1_000 { "a" } else { "" })).chain(last.map(data)).collect()
        };
        assert_eq!(block_on(ResponseBody::read(stream(small(None)), 1_000)).unwrap().len(), 1_000);
        let body = block_on(ResponseBody::read(stream(small(Some("b"))), 1_000)).unwrap_err();
        assert!(matches!(&body.0, Inner::Passing(read, _) if read.len() == 2));
        assert_eq!(block_on(body.collect()).unwrap().to_bytes().len(), 1_001);
    }

    #[test]
    fn what_does_not_fit_comes_through_unharmed() {
        for parts in [vec![data("abc"), data("defg"), data("h")], vec![data("abcdefgh")]] {
            let body = block_on(ResponseBody::read(stream(parts), 6)).unwrap_err();
            assert!(body.size_hint().lower() >= 7);
            assert_eq!(block_on(body.collect()).unwrap().to_bytes(), "abcdefgh");
        }
        let known = Full::new(Bytes::from_static(b"abcdefgh"));
        assert_eq!(
            block_on(block_on(ResponseBody::read(known, 6)).unwrap_err().collect()).unwrap().to_bytes(),
            "abcdefgh"
        );
    }

    #[test]
    fn what_fails_fails_behind_what_came_before() {
        let mut body = block_on(ResponseBody::read(stream(vec![data("abc"), Err("broken")]), 6)).unwrap_err();
        assert_eq!(block_on(body.frame()).unwrap().unwrap().into_data().unwrap(), "abc");
        assert_eq!(block_on(body.frame()).unwrap().unwrap_err(), "broken");
    }

    #[test]
    fn trailers_are_not_lost() {
        let trailers = HeaderMap::from_iter([(http::header::ETAG, "\"a\"".parse().unwrap())]);
        let body = stream(vec![data("abc"), Ok(Frame::trailers(trailers.clone()))]);
        let read = block_on(block_on(ResponseBody::read(body, 6)).unwrap_err().collect()).unwrap();
        assert_eq!(read.trailers(), Some(&trailers));
    }
}
