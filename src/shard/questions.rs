//! Questions of clients, of this shard and of others, that wait for their turn.

use crate::qev::shrink::List;
use std::collections::VecDeque;

/// Questions that wait for their turn, each with the shard of its client.
///
/// Invariant: at most `max` questions wait.
pub(super) struct Questions<Q> {
    waiting: VecDeque<(u16, Box<Q>)>,
    max: usize,
}

impl<Q> Questions<Q> {
    /// No questions. At most `max` of them may wait.
    pub fn new(max: usize) -> Questions<Q> {
        Questions { waiting: VecDeque::new(), max }
    }

    /// The number of questions that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether no question waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a question of a client of a shard.
    ///
    /// # Errors
    ///
    /// Returns the question if too many wait.
    pub fn push(&mut self, from: u16, question: Box<Q>) -> Result<(), Box<Q>> {
        if self.waiting.len() >= self.max {
            return Err(question);
        }
        self.waiting.push_back((from, question));
        Ok(())
    }

    /// Takes the question that has waited longest.
    pub fn pop(&mut self) -> Option<(u16, Box<Q>)> {
        self.waiting.pop_front()
    }

    /// Gives back the memory that only many questions at once have needed.
    pub fn give_back(&mut self) {
        self.waiting.give_back();
    }

    /// Asserts the invariant.
    pub fn check(&self) {
        assert!(self.waiting.len() <= self.max, "{} questions are too many", self.waiting.len());
    }
}
