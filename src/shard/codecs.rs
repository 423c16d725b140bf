//! The protocol state of a shard's connections, apart from everything else that a connection has.
//!
//! A codec is borrowed while the events that it decodes are dispatched. Dispatching changes connections, clients and
//! subscriptions, but never a codec: the functions that may change one are those that take [`Codecs`].

use crate::protocol::{Codec, Options};

/// Codecs in a block. Blocks keep a million codecs from being copied when the table grows.
const BLOCK: usize = 256;

/// The codec of each connection, by the connection's slot.
///
/// Invariant: a slot without a connection, or with an HTTP session, has the codec that discards everything and has no
/// memory on the heap.
#[derive(Default)]
pub(super) struct Codecs {
    blocks: Vec<Box<[Codec]>>,
}

impl Codecs {
    /// Begins a connection whose protocol is not known yet.
    pub fn start(&mut self, slot: u32, options: Options) {
        let block = slot as usize / BLOCK;
        while self.blocks.len() <= block {
            self.blocks.push((0..BLOCK).map(|_| Codec::default()).collect());
        }
        *self.get_mut(slot) = Codec::new(options);
    }

    /// Ends a connection: its codec discards what it is given, and its memory is freed.
    pub fn end(&mut self, slot: u32) {
        *self.get_mut(slot) = Codec::default();
    }

    /// The codec of a connection.
    ///
    /// # Panics
    ///
    /// No connection has had this slot.
    #[inline]
    pub fn get(&self, slot: u32) -> &Codec {
        &self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    /// The codec of a connection, to be changed.
    ///
    /// # Panics
    ///
    /// No connection has had this slot.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> &mut Codec {
        &mut self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    /// Asserts the invariant for one slot.
    pub fn check_ended(&self, slot: u32) {
        if let Some(block) = self.blocks.get(slot as usize / BLOCK) {
            let codec = &block[slot as usize % BLOCK];
            assert!(codec.has_ended(), "slot {slot} has no connection, but a codec that has not ended");
        }
    }
}
