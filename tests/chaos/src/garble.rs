//! Damage to bytes on their way.
//!
//! What it can do unnoticed follows from the wire format. A value has a checksum (crc32c, which finds all of one to three
//! flipped bits) and a fingerprint of its key (64 bits), so that a damaged one passes for whole with odds of 2⁻³² and passes for
//! another key's with odds of 2⁻⁹⁶. Answers have numbers, so that one which is there twice, or not at all, ends its connection.
//! Tokens are random: a damaged one is equal to none that a value has. But the **journal's entries have no checksum**, nor has
//! any request: a bump whose entry or key is damaged on its way is acknowledged, and never heard of. So answers are damaged on
//! connections that have asked for the journal lately only where a run judges no staleness.

/// One piece of so many is damaged.
const ONE_IN: u32 = 5;

/// The longest span that is left out, or sent twice.
const LONGEST_SPAN: usize = 40;

/// Damages a piece now and then: flips bits of a byte, leaves out a span, or repeats one. Returns whether it did.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut fastrand::Rng) -> bool {
    if bytes.is_empty() || random.u32(..ONE_IN) > 0 {
        return false;
    }
    let at = random.usize(..bytes.len());
    let end = bytes.len().min(at + random.usize(1..=LONGEST_SPAN));
    match random.u8(..3) {
        0 => bytes[at] ^= random.u8(1..),
        1 => drop(bytes.drain(at..end)),
        _ => {
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
    }
    true
}

/// Whether a connection carries the journal, as far as its requests tell.
#[derive(Debug, Default)]
pub(crate) struct JournalWatch {
    /// The end of the last piece.
    carried: Vec<u8>,
}

impl JournalWatch {
    /// Looks through the next piece of requests, and returns whether one of them names the key of a journal.
    pub(crate) fn sees(&mut self, piece: &[u8]) -> bool {
        const KEY_END: &[u8] = b":j ";
        self.carried.extend_from_slice(piece);
        let sees = self.carried.windows(KEY_END.len()).any(|window| window == KEY_END);
        self.carried.drain(..self.carried.len().saturating_sub(KEY_END.len() - 1));
        sees
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn now_and_then_a_piece_is_damaged_in_each_way() {
        let (mut random, whole) = (fastrand::Rng::with_seed(1), vec![b'x'; 1_000]);
        let (mut flipped, mut shorter, mut longer) = (0, 0, 0);
        for _ in 0..10_000 {
            let mut bytes = whole.clone();
            let damaged = damage(&mut bytes, &mut random);
            flipped += u32::from(damaged && bytes.len() == whole.len());
            shorter += u32::from(bytes.len() < whole.len());
            longer += u32::from(bytes.len() > whole.len());
            // A span of equal bytes is repeated or left out without another trace than the length.
            assert!(damaged || bytes == whole);
        }
        assert!(
            [flipped, shorter, longer].iter().all(|times| (500..800).contains(times)),
            "{flipped} {shorter} {longer}"
        );
    }

    #[test]
    fn a_journal_is_seen_across_pieces() {
        let mut watch = JournalWatch::default();
        assert!(!watch.sees(b"mg chaos::v:pages:7 O1 v c t s\r\nmg chaos:"));
        assert!(watch.sees(b"j O2 c t s\r\n"));
        assert!(!watch.sees(b"mg chaos:g:h:12 O3 v\r\n"));
        assert!(watch.sees(b"ms chaos:j 24 O4 MA\r\n"));
    }
}
