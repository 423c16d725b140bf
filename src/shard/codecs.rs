//! The protocol state of a shard's connections, apart from everything else that a connection has.
//!
//! A codec is borrowed while the events that it decodes are dispatched. Dispatching changes connections, clients and
//! subscriptions, but never a codec: the functions that may change one are those that take [`Codecs`].

use crate::protocol::{Codec, Options};
use crate::qev::slots::BLOCK;

/// The codec of each connection, by the connection's slot.
///
/// A block of codecs belongs to a block of slots. It has no memory until a slot of it has had a connection with a socket:
/// HTTP sessions have blocks of their own.
///
/// Invariant: a slot without a connection, or with an HTTP session, has the codec that discards everything and has no
/// memory on the heap, or no codec.
#[derive(Default)]
pub(super) struct Codecs {
    blocks: Vec<Box<[Codec]>>,
}

impl Codecs {
    /// Begins a connection whose protocol is not known yet.
    pub fn start(&mut self, slot: u32, options: Options) {
        let number = slot as usize / BLOCK;
        while self.blocks.len() <= number {
            self.blocks.push(Box::default());
        }
        let block = &mut self.blocks[number];
        if block.is_empty() {
            *block = (0..BLOCK).map(|_| Codec::default()).collect();
        }
        *self.get_mut(slot) = Codec::new(options);
    }

    /// Frees the blocks of codecs for slots from `slots` on, which no connection has.
    #[inline]
    pub fn truncate(&mut self, slots: usize) {
        if self.blocks.len() > slots.div_ceil(BLOCK) {
            self.blocks.truncate(slots.div_ceil(BLOCK));
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
    }

    /// The codec of a connection.
    ///
    /// # Panics
    ///
    /// No connection with a socket has had this slot.
    #[inline]
    pub fn get(&self, slot: u32) -> &Codec {
        &self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    /// Returns a mutable reference to the codec of a connection.
    ///
    /// # Panics
    ///
    /// No connection with a socket has had this slot.
    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> &mut Codec {
        &mut self.blocks[slot as usize / BLOCK][slot as usize % BLOCK]
    }

    /// The memory that the incomplete messages of all codecs take. Linear in the number of slots.
    pub fn incomplete_bytes(&self) -> u64 {
        self.blocks.iter().flatten().map(|codec| codec.incomplete_bytes() as u64).sum()
    }

    /// Asserts the invariant. `is_in_use` returns whether a slot holds a connection with a socket that has not ended.
    /// Linear in the number of slots.
    pub fn check(&self, is_in_use: impl Fn(u32) -> bool) {
        let numbered = (0..).step_by(BLOCK).zip(&self.blocks);
        for (slot, codec) in numbered.flat_map(|(first, block)| (first..).zip(block)) {
            let may_decode = codec.has_ended() || is_in_use(slot);
            assert!(may_decode, "slot {slot} has no connection, but a codec that has not ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Codecs {
        let mut codecs = Codecs::default();
        codecs.start(0, Options::default());
        codecs.start(BLOCK as u32, Options::default());
        codecs
    }

    #[test]
    fn only_connections_have_codecs_that_decode() {
        let mut codecs = two();
        codecs.check(|slot| slot == 0 || slot == BLOCK as u32);
        *codecs.get_mut(0) = Codec::default();
        codecs.check(|slot| slot == BLOCK as u32);
    }

    #[test]
    fn blocks_without_sockets_have_no_codecs() {
        let mut codecs = Codecs::default();
        codecs.start(2 * BLOCK as u32 + 7, Options::default());
        assert_eq!(codecs.blocks.iter().map(|block| block.len()).collect::<Vec<_>>(), [0, 0, BLOCK]);
        codecs.check(|slot| slot == 2 * BLOCK as u32 + 7);
    }

    #[test]
    fn codecs_of_slots_that_are_gone_are_freed() {
        let mut codecs = two();
        codecs.truncate(BLOCK + 1);
        assert_eq!(codecs.blocks.len(), 2);
        codecs.truncate(BLOCK);
        assert_eq!(codecs.blocks.len(), 1);
        codecs.start(BLOCK as u32, Options::default());
        assert_eq!(codecs.blocks.len(), 2);
    }

    #[test]
    #[should_panic(expected = "slot 256 has no connection, but a codec that has not ended")]
    fn the_check_finds_a_codec_that_has_outlived_its_connection() {
        two().check(|slot| slot == 0);
    }
}
