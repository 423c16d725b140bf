//! The handle through which an application's own threads reach the server.

use super::json::Json;
use super::types::{Command, Post, SendCallback, Server};
use crate::client::ClientId;
use crate::event::path::Path;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// The error of a command that did not fit into the inbox of a shard (`inbox-messages-max`). Nothing was done. Try
/// again later, or tell the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the shard's inbox is full")]
pub struct Busy;

impl Server {
    /// Returns a handle of the server's own application that delivers commands through `post`.
    pub fn new(post: Arc<dyn Post>) -> Server {
        Server { post, app: 0 }
    }

    /// Returns the number of the application that the handle belongs to.
    pub(crate) fn app(&self) -> u32 {
        self.app
    }

    /// Returns the same handle for application number `app`.
    pub(crate) fn of_app(&self, app: u32) -> Server {
        Server { post: Arc::clone(&self.post), app }
    }

    pub(super) fn post(&self, command: Command) -> Result<(), Busy> {
        self.try_post(command).map_err(|_| Busy)
    }

    pub(super) fn try_post(&self, command: Command) -> Result<(), Command> {
        self.post.post(self.app, command)
    }

    /// Sends an event to all subscribers of a path, on all shards.
    ///
    /// # Errors
    ///
    /// The inbox of the shard that starts the broadcast is full.
    pub fn broadcast(&self, path: &Path, data: impl Into<Json>) -> Result<(), Busy> {
        self.post(Command::Broadcast { path: path.clone(), data: data.into() })
    }

    /// Sends an event to one client. If the client has disconnected, the event is dropped without an error.
    ///
    /// # Errors
    ///
    /// The inbox of the client's shard is full.
    pub fn send(&self, client: ClientId, path: &Path, data: impl Into<Json>) -> Result<(), Busy> {
        self.post(Command::Send { client, path: path.clone(), data: data.into(), callback: None })
    }

    /// Sends an event to one client, which may answer it. `callback` runs on the client's shard.
    ///
    /// # Errors
    ///
    /// The inbox of the client's shard is full. `callback` is dropped.
    pub fn send_with_callback(
        &self,
        client: ClientId,
        path: &Path,
        data: impl Into<Json>,
        callback: SendCallback,
    ) -> Result<(), Busy> {
        let callback = Some(callback);
        self.post(Command::Send { client, path: path.clone(), data: data.into(), callback })
    }

    /// Closes a client's connection after the output that is already queued for it has been sent.
    ///
    /// # Errors
    ///
    /// The inbox of the client's shard is full.
    pub fn close(&self, client: ClientId) -> Result<(), Busy> {
        self.post(Command::Close { client })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server")
    }
}
