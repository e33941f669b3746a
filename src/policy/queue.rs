//! The queues of residents: doubly linked lists of seats, so that any resident can leave in constant time.

#[cfg(test)]
use super::Residents;
use crate::index::Seat;

/// The queues of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueName {
    Small,
    Main,
}

/// By how many nodes the queues grow: one insert pays for so many, and so many may lie idle, in 768 bytes.
const CHUNK: usize = 64;

/// How many nodes are no seat's: the anchors.
const ANCHORS: usize = 2;

/// In `prev` beside a node's number, which stays below: the node is of the main queue.
const MAIN_BIT: u32 = 1 << 31;

/// Two first-in-first-out queues, and where each of their residents stands: in 12 bytes for each seat, and none before the
/// first resident.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// The two anchors, then a node for each seat; nothing before the first push. What is there is never moved, however many
    /// come.
    #[expect(
        clippy::vec_box,
        reason = "a vector of arrays would be copied as it grows, and have room for as many again"
    )]
    chunks: Vec<Box<[Node; CHUNK]>>,
    /// How many residents each queue has, and what they weigh: apart, since a compiler would count both at once, and slowly.
    lens: [usize; 2],
    weights: [u64; 2],
}

/// A place in the ring of a queue, which an anchor closes: its `next` is the oldest resident, its `prev` the newest. Of a
/// vacant seat it means nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// The number of a node, and the [`MAIN_BIT`]: the same for all of a ring, the anchor among them.
    prev: u32,
    next: u32,
    /// A moment of the policy's clock.
    stamp: u32,
}

impl Queues {
    /// Adds the resident of a seat as the newest of `queue`.
    #[inline]
    pub(super) fn push(&mut self, queue: QueueName, seat: Seat, stamp: u32, weight: u64) {
        while number(seat) as usize / CHUNK >= self.chunks.len() {
            self.grow();
        }
        self.link(queue, number(seat), stamp);
        self.count(queue, weight);
    }

    /// Takes a resident out of its queue, and returns which it was.
    #[inline]
    pub(super) fn take(&mut self, seat: Seat, weight: u64) -> QueueName {
        let queue = self.unlink(number(seat));
        self.discount(queue, weight);
        queue
    }

    /// Takes the oldest resident of a queue out of it.
    #[inline]
    pub(super) fn take_oldest(&mut self, queue: QueueName, weight: u64) {
        let anchor = anchor(queue);
        let next = self.node(self.node(anchor).next).next;
        self.node_mut(anchor).next = next;
        self.node_mut(next).prev = anchor | main_bit(queue);
        self.discount(queue, weight);
    }

    /// Makes a resident the newest of its queue.
    pub(super) fn renew(&mut self, seat: Seat, stamp: u32) {
        let queue = self.unlink(number(seat));
        self.link(queue, number(seat), stamp);
    }

    /// Makes a resident of one queue the newest of the other.
    pub(super) fn transfer(&mut self, seat: Seat, to: QueueName, stamp: u32, weight: u64) {
        let from = self.unlink(number(seat));
        self.discount(from, weight);
        self.link(to, number(seat), stamp);
        self.count(to, weight);
    }

    #[inline]
    pub(super) fn oldest(&self, queue: QueueName) -> Option<Seat> {
        // By its count, since before the first push there is no anchor either.
        if self.len(queue) == 0 {
            return None;
        }
        let oldest = self.node(anchor(queue)).next;
        Some(Seat::from_index(oldest as usize - ANCHORS))
    }

    #[cfg(test)]
    pub(super) fn queue_of(&self, seat: Seat) -> QueueName {
        queue_of(self.node(number(seat)))
    }

    #[inline]
    pub(super) fn stamp_of(&self, seat: Seat) -> u32 {
        self.node(number(seat)).stamp
    }

    #[inline]
    pub(super) fn len(&self, queue: QueueName) -> usize {
        self.lens[queue as usize]
    }

    #[inline]
    pub(super) fn weight(&self, queue: QueueName) -> u64 {
        self.weights[queue as usize]
    }

    /// Returns how many residents there are.
    #[inline]
    pub(super) fn total_len(&self) -> usize {
        self.lens[0] + self.lens[1]
    }

    /// Returns what all residents weigh.
    #[inline]
    pub(super) fn total_weight(&self) -> u64 {
        self.weights[0] + self.weights[1]
    }

    #[inline]
    fn count(&mut self, queue: QueueName, weight: u64) {
        self.lens[queue as usize] += 1;
        self.weights[queue as usize] += weight;
    }

    #[inline]
    fn discount(&mut self, queue: QueueName, weight: u64) {
        self.lens[queue as usize] -= 1;
        self.weights[queue as usize] -= weight;
    }

    #[inline]
    fn link(&mut self, queue: QueueName, node: u32, stamp: u32) {
        let anchor = anchor(queue);
        let newest = std::mem::replace(&mut self.node_mut(anchor).prev, node | main_bit(queue));
        self.node_mut(newest & !MAIN_BIT).next = node;
        *self.node_mut(node) = Node { prev: newest, next: anchor, stamp };
    }

    #[inline]
    fn unlink(&mut self, node: u32) -> QueueName {
        let left = *self.node(node);
        let prev = self.node_mut(left.prev & !MAIN_BIT);
        debug_assert_eq!(prev.next, node, "a resident is let go of once");
        prev.next = left.next;
        self.node_mut(left.next).prev = left.prev;
        queue_of(&left)
    }

    #[inline]
    fn node(&self, node: u32) -> &Node {
        &self.chunks[node as usize / CHUNK][node as usize % CHUNK]
    }

    #[inline]
    fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.chunks[node as usize / CHUNK][node as usize % CHUNK]
    }

    #[cold]
    fn grow(&mut self) {
        assert!(self.chunks.len() < MAIN_BIT as usize / CHUNK, "a shard holds fewer than 2^31 entries");
        let mut chunk = Box::new([Node::default(); CHUNK]);
        if self.chunks.is_empty() {
            for queue in [QueueName::Small, QueueName::Main] {
                let anchor = anchor(queue);
                chunk[anchor as usize] = Node { prev: anchor | main_bit(queue), next: anchor, stamp: 0 };
            }
        }
        self.chunks.push(chunk);
    }

    /// Panics unless the links of both queues run both ways, and their sums are right.
    #[cfg(test)]
    pub(super) fn validate(&self, residents: &impl Residents) {
        let nodes = self.chunks.len() * CHUNK;
        if nodes == 0 {
            return assert_eq!((self.lens, self.weights), ([0; 2], [0; 2]));
        }
        for queue in [QueueName::Small, QueueName::Main] {
            let (mut len, mut weight) = (0, 0);
            let (mut prev, mut at) = (anchor(queue), self.node(anchor(queue)).next);
            while at != anchor(queue) {
                let node = self.node(at);
                assert_eq!(node.prev, prev | main_bit(queue));
                len += 1;
                weight += residents.profile(Seat::from_index(at as usize - ANCHORS)).weight;
                assert!(len < nodes, "a ring that its anchor does not close");
                (prev, at) = (at, node.next);
            }
            assert_eq!(self.node(at).prev, prev | main_bit(queue));
            assert_eq!((self.len(queue), self.weight(queue)), (len, weight));
        }
    }
}

/// Returns the node of a seat. Whoever is linked has one, so it is below the [`MAIN_BIT`].
#[inline]
fn number(seat: Seat) -> u32 {
    (seat.index() + ANCHORS) as u32
}

/// Returns the node that closes the ring of a queue.
#[inline]
fn anchor(queue: QueueName) -> u32 {
    queue as u32
}

#[inline]
fn main_bit(queue: QueueName) -> u32 {
    queue as u32 * MAIN_BIT
}

#[inline]
fn queue_of(node: &Node) -> QueueName {
    if node.prev & MAIN_BIT == 0 { QueueName::Small } else { QueueName::Main }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_there_before_the_first_resident() {
        let mut queues = Queues::default();
        assert_eq!(queues.chunks.capacity(), 0);
        assert_eq!([QueueName::Small, QueueName::Main].map(|queue| queues.oldest(queue)), [None; 2]);
        let seat = Seat::from_index(0);
        queues.push(QueueName::Main, seat, 0, 1);
        assert_eq!([QueueName::Small, QueueName::Main].map(|queue| queues.oldest(queue)), [None, Some(seat)]);
    }

    #[test]
    fn growth_moves_nothing_and_adds_one_chunk() {
        let mut queues = Queues::default();
        queues.grow();
        let first = &raw const *queues.chunks[0];
        for index in (0..1_000).map(|index| index ^ 31) {
            let chunks = queues.chunks.len();
            queues.push(QueueName::Small, Seat::from_index(index), 0, 1);
            assert!(queues.chunks.len() <= chunks + 1);
        }
        assert_eq!((&raw const *queues.chunks[0], size_of_val(&*queues.chunks[0])), (first, 12 * CHUNK));
        assert_eq!(queues.chunks.len(), (1_024_usize).div_ceil(CHUNK) + 1);
    }
}
