//! The queues of residents: doubly linked lists in one slab, so that any resident can leave in constant time.

use super::Resident;

/// The queues of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueName {
    Small,
    Main,
}

/// Where a resident is kept, until it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

impl NodeId {
    const NONE: NodeId = NodeId(u32::MAX);

    pub(crate) fn from_raw(raw: u32) -> NodeId {
        NodeId(raw)
    }

    pub(crate) fn to_raw(self) -> u32 {
        self.0
    }

    pub(crate) fn from_index(index: usize) -> NodeId {
        NodeId(u32::try_from(index).expect("a shard holds fewer than 2^32 entries"))
    }

    /// The node that closes the ring of a queue: its `next` is the oldest resident, its `prev` the newest.
    const fn anchor(queue: QueueName) -> NodeId {
        NodeId(queue as u32)
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// The slab grows by one part in this many, and not by as much again: what it has in reserve is memory that each entry pays for.
const GROWTH: usize = 8;

/// Two first-in-first-out queues, and where each of their residents stands.
#[derive(Debug)]
pub(super) struct Queues<R> {
    /// The two anchors, then residents and vacancies.
    nodes: Vec<Node<R>>,
    first_vacant: NodeId,
    sums: [Sum; 2],
}

/// A place in a ring. Of a vacant one, `next` is the next vacant one, and the rest means nothing.
#[derive(Debug)]
struct Node<R> {
    resident: Option<R>,
    prev: NodeId,
    next: NodeId,
    /// A moment of the policy's clock.
    stamp: u32,
    queue: QueueName,
}

/// How many residents a queue has, and what they weigh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    len: usize,
    weight: u64,
}

impl<R> Default for Queues<R> {
    fn default() -> Self {
        let anchor =
            |queue| Node { resident: None, prev: NodeId::anchor(queue), next: NodeId::anchor(queue), stamp: 0, queue };
        Queues {
            nodes: vec![anchor(QueueName::Small), anchor(QueueName::Main)],
            first_vacant: NodeId::NONE,
            sums: [Sum::default(); 2],
        }
    }
}

impl<R: Resident> Queues<R> {
    /// Adds `resident` as the newest of `queue`.
    pub(super) fn push(&mut self, queue: QueueName, stamp: u32, resident: R) -> NodeId {
        let sum = &mut self.sums[queue as usize];
        sum.len += 1;
        sum.weight += resident.weight();
        let node = Node { resident: Some(resident), prev: NodeId::NONE, next: NodeId::NONE, stamp, queue };
        let id = if self.first_vacant == NodeId::NONE {
            if self.nodes.len() == self.nodes.capacity() {
                self.nodes.reserve_exact(self.nodes.len().div_ceil(GROWTH));
            }
            self.nodes.push(node);
            NodeId::from_index(self.nodes.len() - 1)
        } else {
            let id = self.first_vacant;
            self.first_vacant = self.node(id).next;
            *self.node_mut(id) = node;
            id
        };
        self.link(queue, id);
        id
    }

    /// Takes a resident out of its queue.
    pub(super) fn take(&mut self, id: NodeId) -> R {
        self.unlink(id);
        let first_vacant = self.first_vacant;
        let node = self.node_mut(id);
        let resident = node.resident.take().expect("an id is handed out for a resident and given back once");
        node.next = first_vacant;
        let queue = node.queue;
        self.first_vacant = id;
        self.discount(queue, resident.weight());
        resident
    }

    /// Makes a resident the newest of its queue.
    pub(super) fn renew(&mut self, id: NodeId, stamp: u32) {
        self.unlink(id);
        let node = self.node_mut(id);
        node.stamp = stamp;
        let queue = node.queue;
        self.link(queue, id);
    }

    /// Makes a resident of one queue the newest of the other.
    pub(super) fn transfer(&mut self, id: NodeId, to: QueueName, stamp: u32) {
        self.unlink(id);
        let node = self.node_mut(id);
        node.stamp = stamp;
        let from = std::mem::replace(&mut node.queue, to);
        let weight = node.resident.as_ref().map_or(0, Resident::weight);
        self.discount(from, weight);
        let sum = &mut self.sums[to as usize];
        sum.len += 1;
        sum.weight += weight;
        self.link(to, id);
    }

    pub(super) fn oldest(&self, queue: QueueName) -> Option<NodeId> {
        let oldest = self.node(NodeId::anchor(queue)).next;
        (oldest != NodeId::anchor(queue)).then_some(oldest)
    }

    pub(super) fn resident(&self, id: NodeId) -> Option<&R> {
        self.nodes.get(id.index())?.resident.as_ref()
    }

    pub(super) fn queue_of(&self, id: NodeId) -> QueueName {
        self.node(id).queue
    }

    pub(super) fn stamp_of(&self, id: NodeId) -> u32 {
        self.node(id).stamp
    }

    pub(super) fn len(&self, queue: QueueName) -> usize {
        self.sums[queue as usize].len
    }

    pub(super) fn weight(&self, queue: QueueName) -> u64 {
        self.sums[queue as usize].weight
    }

    /// Returns how many residents there are.
    pub(super) fn total_len(&self) -> usize {
        self.sums[0].len + self.sums[1].len
    }

    /// Returns what all residents weigh.
    pub(super) fn total_weight(&self) -> u64 {
        self.sums[0].weight + self.sums[1].weight
    }

    /// Returns one past the largest node in use.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn discount(&mut self, queue: QueueName, weight: u64) {
        let sum = &mut self.sums[queue as usize];
        sum.len -= 1;
        sum.weight -= weight;
    }

    fn link(&mut self, queue: QueueName, id: NodeId) {
        let anchor = NodeId::anchor(queue);
        let newest = std::mem::replace(&mut self.node_mut(anchor).prev, id);
        self.node_mut(newest).next = id;
        let node = self.node_mut(id);
        (node.prev, node.next) = (newest, anchor);
    }

    fn unlink(&mut self, id: NodeId) {
        let node = self.node(id);
        let (prev, next) = (node.prev, node.next);
        self.node_mut(prev).next = next;
        self.node_mut(next).prev = prev;
    }

    fn node(&self, id: NodeId) -> &Node<R> {
        &self.nodes[id.index()]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<R> {
        &mut self.nodes[id.index()]
    }

    /// Panics unless the links of both queues run both ways, their sums are right, and all other nodes are vacant.
    #[cfg(test)]
    pub(super) fn validate(&self) {
        let mut nodes = 0;
        for queue in [QueueName::Small, QueueName::Main] {
            let anchor = NodeId::anchor(queue);
            let (mut sum, mut prev, mut at) = (Sum::default(), anchor, self.node(anchor).next);
            while at != anchor {
                let node = self.node(at);
                assert_eq!((node.prev, node.queue), (prev, queue));
                sum.len += 1;
                sum.weight += self.resident(at).expect("who is linked is there").weight();
                (prev, at) = (at, node.next);
            }
            assert_eq!((self.node(anchor).prev, self.sums[queue as usize]), (prev, sum));
            nodes += 1 + sum.len;
        }
        let mut vacant = self.first_vacant;
        while vacant != NodeId::NONE {
            assert!(self.resident(vacant).is_none());
            vacant = self.node(vacant).next;
            nodes += 1;
        }
        assert_eq!(nodes, self.nodes.len());
    }
}
