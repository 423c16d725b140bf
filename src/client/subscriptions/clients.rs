//! The lists of all clients, by the client's slot.

use super::PathId;
use super::list::{ClientPaths, SubscriptionState};
use crate::qev::pairs::Secret;
use crate::qev::slots::BLOCK;

/// The lists of all clients, by the client's slot.
///
/// The lists are in blocks. A block has memory only while one of its clients may have subscriptions: the first
/// subscription of a client in a high slot costs one block, and not the lists of all slots before it.
///
/// Invariants, asserted by [`check`](ClientLists::check): `used` of a block is the number of its lists that are not empty,
/// and the last block has memory.
#[derive(Debug, Default)]
pub(super) struct ClientLists {
    blocks: Vec<Option<Box<ListBlock>>>,
}

/// The lists of the clients in a block of slots.
#[derive(Debug)]
struct ListBlock {
    lists: [ClientPaths; BLOCK],
    used: u16,
}

impl ClientLists {
    /// Returns the list of a client, or `None` if no client of its block has subscriptions.
    #[inline]
    pub fn get(&self, client: u32) -> Option<&ClientPaths> {
        let (number, offset) = place(client);
        Some(&self.blocks.get(number)?.as_ref()?.lists[offset])
    }

    /// Adds a path that is not in the list of this client.
    pub fn insert(&mut self, secret: Secret, client: u32, path: PathId, state: SubscriptionState) {
        let (number, offset) = place(client);
        if self.blocks.len() <= number {
            self.blocks.resize_with(number + 1, || None);
        }
        let block = self.blocks[number].get_or_insert_with(ListBlock::empty);
        let list = &mut block.lists[offset];
        block.used += u16::from(list.is_empty());
        list.insert(secret, path, state);
    }

    /// Changes the state of a path that is in the list of this client.
    pub fn set(&mut self, secret: Secret, client: u32, path: PathId, state: SubscriptionState) {
        let (block, offset) = self.block_mut(client).expect(HAS_BLOCK);
        block.lists[offset].set(secret, path, state);
    }

    /// Removes a path that is in the list of this client.
    pub fn remove(&mut self, secret: Secret, client: u32, path: PathId) {
        let (block, offset) = self.block_mut(client).expect(HAS_BLOCK);
        let list = &mut block.lists[offset];
        list.remove(secret, path);
        block.used -= u16::from(list.is_empty());
    }

    /// Removes any path from the list of this client. Returns it with its state, or `None` if the list is empty.
    pub fn pop(&mut self, secret: Secret, client: u32) -> Option<(PathId, SubscriptionState)> {
        let (block, offset) = self.block_mut(client)?;
        let list = &mut block.lists[offset];
        let popped = list.pop(secret)?;
        block.used -= u16::from(list.is_empty());
        Some(popped)
    }

    /// Frees the block of a client that has disconnected, if all of its lists are empty.
    pub fn forget(&mut self, client: u32) {
        let (number, _) = place(client);
        let Some(block) = self.blocks.get_mut(number) else { return };
        if block.as_ref().is_some_and(|block| block.used == 0) {
            *block = None;
        }
        while matches!(self.blocks.last(), Some(None)) {
            self.blocks.pop();
        }
        if self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
    }

    /// Returns the number of slots up to the last block.
    pub fn slots(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// Returns an iterator over the lists that are not empty, with their clients.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &ClientPaths)> {
        let numbered = (0..).step_by(BLOCK).zip(&self.blocks);
        let lists = numbered.flat_map(|(first, block)| (first..).zip(block.iter().flat_map(|it| &it.lists)));
        lists.filter(|(_, list)| !list.is_empty())
    }

    /// Asserts the invariants. The cost is linear in the number of slots and subscriptions.
    pub fn check(&self, secret: Secret) {
        self.iter().for_each(|(_, list)| list.check(secret));
        for (number, block) in self.blocks.iter().enumerate() {
            let Some(block) = block else { continue };
            let used = block.lists.iter().filter(|list| !list.is_empty()).count();
            assert_eq!(usize::from(block.used), used, "the lists of block {number} must be counted");
        }
        assert!(!matches!(self.blocks.last(), Some(None)), "the last block must have memory");
    }

    fn block_mut(&mut self, client: u32) -> Option<(&mut ListBlock, usize)> {
        let (number, offset) = place(client);
        Some((self.blocks.get_mut(number)?.as_mut()?, offset))
    }
}

impl ListBlock {
    fn empty() -> Box<ListBlock> {
        Box::new(ListBlock { lists: [const { ClientPaths::EMPTY }; BLOCK], used: 0 })
    }
}

const HAS_BLOCK: &str = "a client with subscriptions must have a list";

/// Returns the number of the block of a client, and the place of the client's list in it.
fn place(client: u32) -> (usize, usize) {
    (client as usize / BLOCK, client as usize % BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::colliding()
    }

    fn with(clients: &[u32]) -> ClientLists {
        let mut lists = ClientLists::default();
        for client in clients {
            lists.insert(secret(), *client, PathId(7), SubscriptionState::Pending);
            lists.check(secret());
        }
        lists
    }

    impl ClientLists {
        /// The number of blocks that have memory.
        pub fn allocated(&self) -> usize {
            self.blocks.iter().flatten().count()
        }
    }

    #[test]
    fn a_client_in_a_high_slot_costs_one_block() {
        const HIGH: u32 = 1_000_000;
        let mut lists = with(&[HIGH, HIGH + 1]);
        assert_eq!((lists.allocated(), lists.slots()), (1, (HIGH as usize / BLOCK + 1) * BLOCK));
        assert!(lists.get(3).is_none() && lists.get(HIGH + 2).is_some_and(ClientPaths::is_empty));
        assert_eq!(lists.iter().map(|(client, _)| client).collect::<Vec<_>>(), [HIGH, HIGH + 1]);
        lists.remove(secret(), HIGH, PathId(7));
        lists.forget(HIGH);
        assert_eq!(lists.allocated(), 1, "the other client has a subscription");
        assert!(lists.pop(secret(), HIGH + 1).is_some() && lists.pop(secret(), HIGH + 1).is_none());
        lists.check(secret());
        lists.forget(HIGH + 1);
        lists.check(secret());
        assert_eq!((lists.allocated(), lists.slots()), (0, 0));
        assert!(lists.blocks.capacity() < 100, "{}", lists.blocks.capacity());
    }

    #[test]
    fn blocks_in_between_are_freed() {
        let clients = [0, BLOCK as u32, 2 * BLOCK as u32];
        let mut lists = with(&clients);
        lists.remove(secret(), clients[1], PathId(7));
        assert_eq!(lists.allocated(), 3, "the client is still connected");
        lists.forget(clients[1]);
        lists.check(secret());
        assert_eq!((lists.allocated(), lists.slots()), (2, 3 * BLOCK));
        lists.forget(5 * BLOCK as u32);
        lists.insert(secret(), clients[1], PathId(7), SubscriptionState::Active(3));
        lists.set(secret(), clients[1], PathId(7), SubscriptionState::Active(1));
        let state = lists.get(clients[1]).and_then(|list| list.get(secret(), PathId(7)));
        assert_eq!(state, Some(SubscriptionState::Active(1)));
    }

    #[test]
    #[should_panic(expected = "the lists of block 0 must be counted")]
    fn the_check_finds_a_list_that_was_not_counted() {
        let mut lists = with(&[1]);
        lists.block_mut(1).expect("it was just added").0.used = 0;
        lists.check(secret());
    }
}
