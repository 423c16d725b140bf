//! The messages by which the server API reaches the shards.

use super::batch::Batch;

/// A message from the server API to a shard.
#[derive(Debug)]
pub enum ApiMessage {
    /// Broadcasts these events, in order.
    Broadcast(Batch),
}

/// The error of messages that were posted to no shard, because one of the shards has no room for its message now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardsBusy;

/// The shards, as the server API reaches them. The value lives on the control executor.
pub trait Shards: 'static {
    /// Returns the number of shards.
    fn count(&self) -> usize;

    /// Returns the shard that begins the broadcasts to a path. It is always the same one, so that they stay in order.
    fn of_path(&self, path: &str) -> usize;

    /// Posts each message to the shard with its number, or none of them. Never waits.
    ///
    /// # Errors
    ///
    /// A shard has no room for its message now.
    fn post_all(&self, messages: Vec<(usize, ApiMessage)>) -> Result<(), ShardsBusy>;
}
