//! Queues of residents: doubly linked lists in one slab, so that any resident can leave in constant time.

use super::Resident;

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

    fn index(self) -> usize {
        self.0 as usize
    }

    fn is_none(self) -> bool {
        self == NodeId::NONE
    }
}

/// The slab that the queues of one policy share. `Q` names the queue that a node is in.
#[derive(Debug)]
pub(super) struct Nodes<R, Q> {
    slots: Vec<Slot<R, Q>>,
    first_vacant: NodeId,
}

#[derive(Debug)]
enum Slot<R, Q> {
    Vacant { next: NodeId },
    Occupied(Node<R, Q>),
}

#[derive(Debug)]
struct Node<R, Q> {
    resident: R,
    queue: Q,
    prev: NodeId,
    next: NodeId,
}

/// One first-in-first-out queue: who is at its ends, how many there are and what they weigh.
#[derive(Debug)]
pub(super) struct Queue {
    oldest: NodeId,
    newest: NodeId,
    len: usize,
    weight: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Queue { oldest: NodeId::NONE, newest: NodeId::NONE, len: 0, weight: 0 }
    }
}

impl Queue {
    pub(super) fn oldest(&self) -> Option<NodeId> {
        (!self.oldest.is_none()).then_some(self.oldest)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn weight(&self) -> u64 {
        self.weight
    }
}

impl<R, Q> Default for Nodes<R, Q> {
    fn default() -> Self {
        Nodes { slots: Vec::new(), first_vacant: NodeId::NONE }
    }
}

impl<R: Resident, Q: Copy> Nodes<R, Q> {
    /// Adds `resident` as the newest of `queue`, whose name is `name`.
    pub(super) fn push(&mut self, queue: &mut Queue, name: Q, resident: R) -> NodeId {
        let node = Slot::Occupied(Node { resident, queue: name, prev: NodeId::NONE, next: NodeId::NONE });
        let id = match self.first_vacant {
            NodeId::NONE => {
                self.slots.push(node);
                NodeId::from_index(self.slots.len() - 1)
            }
            id => {
                if let Slot::Vacant { next } = self.slots[id.index()] {
                    self.first_vacant = next;
                }
                self.slots[id.index()] = node;
                id
            }
        };
        self.link(queue, id);
        id
    }

    /// Takes a node out of `queue`, the one it is in, and hands out its resident.
    pub(super) fn take(&mut self, queue: &mut Queue, id: NodeId) -> R {
        self.unlink(queue, id);
        let vacant = Slot::Vacant { next: self.first_vacant };
        let Slot::Occupied(node) = std::mem::replace(&mut self.slots[id.index()], vacant) else {
            unreachable!("an id is handed out for an occupied slot and given back once")
        };
        self.first_vacant = id;
        node.resident
    }

    /// Makes a node of `queue` its newest.
    pub(super) fn renew(&mut self, queue: &mut Queue, id: NodeId) {
        self.unlink(queue, id);
        self.link(queue, id);
    }

    /// Makes a node of `from` the newest of `to`, whose name is `name`.
    pub(super) fn transfer(&mut self, from: &mut Queue, to: &mut Queue, name: Q, id: NodeId) {
        self.unlink(from, id);
        self.node_mut(id).queue = name;
        self.link(to, id);
    }

    pub(super) fn resident(&self, id: NodeId) -> Option<&R> {
        match self.slots.get(id.index()) {
            Some(Slot::Occupied(node)) => Some(&node.resident),
            _ => None,
        }
    }

    pub(super) fn queue_of(&self, id: NodeId) -> Q {
        self.node(id).queue
    }

    /// Returns how many slots there are, vacant ones among them.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn link(&mut self, queue: &mut Queue, id: NodeId) {
        let newest = queue.newest;
        let node = self.node_mut(id);
        (node.prev, node.next) = (newest, NodeId::NONE);
        queue.weight += node.resident.weight();
        queue.len += 1;
        queue.newest = id;
        match newest {
            NodeId::NONE => queue.oldest = id,
            newest => self.node_mut(newest).next = id,
        }
    }

    fn unlink(&mut self, queue: &mut Queue, id: NodeId) {
        let node = self.node(id);
        let (prev, next) = (node.prev, node.next);
        queue.weight -= node.resident.weight();
        queue.len -= 1;
        match prev {
            NodeId::NONE => queue.oldest = next,
            prev => self.node_mut(prev).next = next,
        }
        match next {
            NodeId::NONE => queue.newest = prev,
            next => self.node_mut(next).prev = prev,
        }
    }

    fn node(&self, id: NodeId) -> &Node<R, Q> {
        match &self.slots[id.index()] {
            Slot::Occupied(node) => node,
            Slot::Vacant { .. } => unreachable!("links lead to occupied slots alone"),
        }
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<R, Q> {
        match &mut self.slots[id.index()] {
            Slot::Occupied(node) => node,
            Slot::Vacant { .. } => unreachable!("links lead to occupied slots alone"),
        }
    }

    /// Panics unless the links of `queue` run both ways and its sums are right.
    #[cfg(test)]
    pub(super) fn validate(&self, queue: &Queue) {
        let (mut len, mut weight, mut prev, mut at) = (0, 0, NodeId::NONE, queue.oldest);
        while !at.is_none() {
            let node = self.node(at);
            assert_eq!(node.prev, prev);
            len += 1;
            weight += node.resident.weight();
            (prev, at) = (at, node.next);
        }
        assert_eq!((queue.newest, queue.len, queue.weight), (prev, len, weight));
    }
}
