//! What a connection has read: answers come into a buffer, and the values among them are parts of it.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;

use crate::remote::bytes::SharedBytes;
use crate::sync::Arc;

/// The length of a buffer: the answers of 64 callers with small items, in one read.
pub(super) const INPUT_LEN: usize = 32 << 10;

/// The buffers that wait for the last value in them to be dropped, beside the one in use: while the callers of one exchange
/// decode what it brought, the next ones fill others. With as many callers as that, hardly an exchange finds none; one that does
/// asks the allocator for another, which costs as much as decoding several values.
const MAX_LENT: usize = 7;

/// A buffer of bytes that came in; those from `start` to `end` are not read yet.
///
/// A buffer is written to only while nobody shares it, so what has been handed out never changes.
#[derive(Debug)]
pub(super) struct Input {
    buffer: Arc<Vec<u8>>,
    start: usize,
    end: usize,
    /// The values in the buffer that are still to be handed out, each with its place among the answers.
    marked: Vec<(usize, Range<usize>)>,
    /// Those in other buffers.
    kept: Vec<(usize, SharedBytes)>,
    /// Former buffers, to be used again once nobody shares them.
    lent: VecDeque<Arc<Vec<u8>>>,
}

impl Input {
    pub(super) fn new() -> Self {
        Self { buffer: fresh(), start: 0, end: 0, marked: Vec::new(), kept: Vec::new(), lent: VecDeque::new() }
    }

    pub(super) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn consume(&mut self, len: usize) -> &[u8] {
        let start = self.start;
        self.start += len;
        &self.buffer[start..self.start]
    }

    /// Returns space behind what is unread, in which `len` bytes fit from where the unread begin: at least one more than there
    /// are, and no more than a buffer holds. What is unread may move.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        debug_assert!((self.end - self.start + 1..=INPUT_LEN).contains(&len), "{len}");
        if Arc::get_mut(&mut self.buffer).is_none() || (!self.marked.is_empty() && self.start + len > INPUT_LEN) {
            self.change();
        } else if self.marked.is_empty() {
            let unread = self.start..self.end;
            Arc::make_mut(&mut self.buffer).copy_within(unread.clone(), 0);
            (self.start, self.end) = (0, unread.len());
        }
        // Nobody shares it, so that nothing is copied.
        &mut Arc::make_mut(&mut self.buffer)[self.end..]
    }

    /// Takes note of bytes that were read into the [`room`](Self::room).
    pub(super) fn advance(&mut self, len: usize) {
        self.end += len;
    }

    /// Marks the last `len` bytes but `behind` of those that were [consumed](Self::consume) as the value of answer `at`.
    pub(super) fn mark(&mut self, at: usize, len: usize, behind: usize) {
        let end = self.start - behind;
        self.marked.push((at, end - len..end));
    }

    /// Keeps a value that came in past the buffer, of answer `at`.
    pub(super) fn keep(&mut self, at: usize, value: Vec<u8>) {
        self.kept.push((at, value.into()));
    }

    /// Hands out the values that have come since the last time, each with its place among the answers.
    pub(super) fn hand_out(&mut self, mut take: impl FnMut(usize, SharedBytes)) {
        self.kept.drain(..).for_each(|(at, value)| take(at, value));
        self.marked.drain(..).for_each(|(at, range)| take(at, SharedBytes::of(&self.buffer, range)));
    }

    /// Goes on in another buffer.
    fn change(&mut self) {
        let free = self.lent.iter_mut().position(|buffer| Arc::get_mut(buffer).is_some());
        let mut next = free.and_then(|free| self.lent.swap_remove_back(free)).unwrap_or_else(fresh);
        let unread = self.unread();
        let len = unread.len();
        Arc::make_mut(&mut next)[..len].copy_from_slice(unread);
        let former = mem::replace(&mut self.buffer, next);
        (self.start, self.end) = (0, len);
        self.kept.extend(self.marked.drain(..).map(|(at, range)| (at, SharedBytes::of(&former, range))));
        if self.lent.len() == MAX_LENT {
            self.lent.pop_front();
        }
        self.lent.push_back(former);
    }
}

fn fresh() -> Arc<Vec<u8>> {
    Arc::new(vec![0; INPUT_LEN])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(input: &mut Input, bytes: &[u8]) {
        let wanted = input.unread().len() + bytes.len();
        input.room(wanted)[..bytes.len()].copy_from_slice(bytes);
        input.advance(bytes.len());
    }

    fn handed_out(input: &mut Input) -> Vec<(usize, SharedBytes)> {
        let mut values = Vec::new();
        input.hand_out(|at, value| values.push((at, value)));
        values
    }

    #[test]
    fn keeps_unread_bytes_in_order() {
        let mut input = Input::new();
        receive(&mut input, b"abcde");
        assert_eq!(input.consume(3), b"abc");
        assert_eq!(input.room(3).len(), INPUT_LEN - 2);
        receive(&mut input, b"f");
        assert_eq!(input.unread(), b"def");
    }

    #[test]
    fn values_stay_as_they_came() {
        let mut input = Input::new();
        receive(&mut input, b"one--two--th");
        for (at, len) in [(0, 3), (1, 3)] {
            input.consume(len + 2);
            input.mark(at, len, 2);
        }
        receive(&mut input, b"ree--");
        input.consume(7);
        input.mark(4, 5, 2);
        input.keep(3, b"large".to_vec());
        let values = handed_out(&mut input);
        // What comes now overwrites nothing of it, and neither does the rest of a value that nobody has.
        receive(&mut input, b"123456789012345");
        input.consume(15);
        receive(&mut input, b"abc");
        let expected = [(3, &b"large"[..]), (0, b"one"), (1, b"two"), (4, b"three")];
        assert!(values.iter().map(|(at, value)| (*at, &**value)).eq(expected), "{values:?}");
        assert!(handed_out(&mut input).is_empty());
    }

    #[test]
    fn what_does_not_fit_goes_on_in_another_buffer() {
        let mut input = Input::new();
        receive(&mut input, &[b'a'; INPUT_LEN - 2]);
        input.consume(INPUT_LEN - 4);
        input.mark(0, INPUT_LEN - 6, 2);
        receive(&mut input, b"bcd");
        assert_eq!(input.consume(5), b"aabcd");
        input.mark(1, 5, 0);
        let values = handed_out(&mut input);
        assert_eq!((&*values[0].1, &*values[1].1), (&[b'a'; INPUT_LEN - 6][..], &b"aabcd"[..]));
    }

    #[test]
    fn buffers_are_used_again_and_few_are_kept() {
        let mut input = Input::new();
        let mut exchange = || {
            receive(&mut input, b"value");
            input.consume(5);
            input.mark(0, 5, 0);
            let address = Arc::as_ptr(&input.buffer);
            assert!(input.lent.len() <= MAX_LENT);
            (handed_out(&mut input).pop().map(|(_, value)| value), address)
        };
        // Dropped before the next exchange: one buffer does for all.
        let (value, first) = exchange();
        drop(value);
        assert_eq!(exchange().1, first);
        let held: Vec<_> = (0..3 * MAX_LENT).map(|_| exchange()).collect();
        assert!(held.iter().all(|(value, _)| value.as_ref().is_some_and(|value| *value == b"value")));
        // Of those that were held, the last are there again.
        let addresses: Vec<_> = held.iter().map(|(_, address)| *address).collect();
        drop(held);
        assert!(addresses[2 * MAX_LENT..].contains(&exchange().1));
    }
}
