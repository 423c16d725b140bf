//! Methods of the context, which handlers, hooks, callbacks and timers receive.

use super::client_info::ClientInfo;
use super::event::Reply;
use super::json::Json;
use super::paths;
use super::types::{Answer, Command, Context, LocalCommand, SendCallback, Server};
use crate::client::ClientId;
use crate::event::path::Path;
use std::time::Duration;

impl Context<'_> {
    /// Returns the number of the shard that the function runs on, from 0.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// Returns the time since the server started, by the clock of the server's timers.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Returns a handle with which other threads can reach the server.
    pub fn server(&self) -> &Server {
        self.server
    }

    /// Sends an event to all subscribers of a path, on all shards. Subscribers receive the broadcasts of one shard
    /// in the order of these calls.
    pub fn broadcast(&mut self, path: &Path, data: impl Into<Json>) {
        self.push(Command::Broadcast { path: path.clone(), data: data.into() });
    }

    /// Sends an event to one client, on any shard. The client need not be subscribed to the path.
    pub fn send(&mut self, client: ClientId, path: &Path, data: impl Into<Json>) {
        self.push(Command::Send { client, path: path.clone(), data: data.into(), callback: None });
    }

    /// Sends an event to one client, which may answer it. `callback` runs on the client's shard.
    pub fn send_with_callback(
        &mut self,
        client: ClientId,
        path: &Path,
        data: impl Into<Json>,
        callback: impl FnOnce(&mut Context<'_>, Reply<'_>) -> Answer + Send + 'static,
    ) {
        let callback = Some(SendCallback::new(callback));
        self.push(Command::Send { client, path: path.clone(), data: data.into(), callback });
    }

    /// Closes a client's connection after the output that is already queued for it has been sent.
    pub fn close(&mut self, client: ClientId) {
        self.push(Command::Close { client });
    }

    /// Sends a client to another server with `/qio/move`, and closes its connection.
    pub fn move_to(&mut self, client: ClientId, address: &str) {
        self.send(client, &paths::of_move(), Json::string(address));
        self.close(client);
    }

    /// Runs a function once on this shard, after `time`.
    pub fn after(&mut self, time: Duration, run: impl FnOnce(&mut Context<'_>) + 'static) {
        self.commands.push(LocalCommand::After { time, run: Box::new(run) });
    }

    /// Returns the data that this application keeps for a client of this shard, or `None` if it keeps no `T`.
    pub fn client_data<T: 'static>(&mut self, client: ClientId) -> Option<&mut T> {
        self.client_data.get_mut(&client)?.downcast_mut()
    }

    /// Keeps data for a client of this shard, in place of the data that was kept before. The data is dropped when
    /// the client disconnects.
    ///
    /// Returns `false` and drops `value` if the client has already disconnected or lives on another shard.
    pub fn set_client_data<T: 'static>(&mut self, client: ClientId, value: T) -> bool {
        let is_here = client.shard == self.shard
            && self.generations.get(client.slot as usize).is_some_and(|here| *here == client.generation);
        if is_here {
            self.client_data.insert(client, Box::new(value));
        }
        is_here
    }

    /// Removes and returns the data that this application keeps for a client of this shard. Returns `None`, and
    /// removes nothing, if it keeps no `T`.
    pub fn take_client_data<T: 'static>(&mut self, client: ClientId) -> Option<T> {
        self.client_data::<T>(client)?;
        self.client_data.remove(&client)?.downcast().ok().map(|data| *data)
    }

    /// Returns what the server knows of a client of this shard: its user, its address and more. `None` if it has disconnected,
    /// also in the off-hooks of its subscriptions, or lives on another shard.
    #[must_use]
    pub fn client(&self, client: ClientId) -> Option<ClientInfo<'_>> {
        self.clients.find(client)
    }

    /// Counts a promise that the application may not hold, because there are too many.
    pub(crate) fn count_refused_promise(&mut self) {
        *self.promises_refused += 1;
    }

    pub(crate) fn push_local(&mut self, command: LocalCommand) {
        self.commands.push(command);
    }

    fn push(&mut self, command: Command) {
        self.commands.push(LocalCommand::Any(command));
    }
}
