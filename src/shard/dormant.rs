//! Connections whose peers are silent for long.
//!
//! The kernel keeps 864 bytes for an armed receive, most of them for the message header. While nothing comes, the connection
//! is *dormant*: a poll waits for its input, which takes 256 bytes. The first input of a dormant connection takes one more
//! turn: the poll completes, and a receive is armed, which stays until the peer is silent for long again.
//!
//! ```text
//!   Armed ---> Retiring ---> Dormant
//!     ^           |             |
//!     +-----------+-------------+
//! ```

#[cfg(test)]
mod tests;

use super::connection::{Connection, Input, Moment, Stage};
use super::kernel::RingOp;
use super::state::State;
use super::time::ms;
use crate::limits::DORMANT_AFTER;
use crate::metrics::Counter;

impl State {
    /// Ends the receive of a connection whose peer has been silent for long. A poll takes its place when it has ended.
    ///
    /// A receive that was submitted in this turn reads what is in the socket first.
    pub fn retire_if_silent(&mut self, slot: u32) {
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        if connection.input == Input::Armed && connection.may_be_dormant(now) {
            connection.input = Input::Retiring;
            self.ring_ops.push(RingOp::CancelReceive(slot));
        }
    }

    /// Handles the end of a receive that was cancelled because the peer was silent.
    pub fn receive_retired(&mut self, slot: u32) {
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        // The kernel may have cancelled the receive of a socket with data.
        connection.unread = true;
        if !connection.may_be_dormant(now) {
            return self.receive_again(slot);
        }
        connection.input = Input::Dormant;
        self.ring_ops.extend(connection.socket().map(|socket| RingOp::AwaitInput(socket, slot)));
        self.count(Counter::InputsDormant, 1);
    }

    /// Receives from a dormant connection, because there is something to receive. It may have been cancelled meanwhile.
    pub fn input_ready(&mut self, slot: u32) {
        let connection = self.connections.live_mut(slot);
        connection.unread = true;
        if connection.stage == Stage::Dead {
            connection.input = Input::Ended;
            self.release_if_idle(slot);
        } else if connection.input == Input::Stopping {
            self.receive_stopped(slot);
        } else {
            self.receive_again(slot);
        }
    }
}

impl Connection {
    /// Returns whether nothing has been received for long, and no rest of a message is awaited.
    fn may_be_dormant(&self, now: Moment) -> bool {
        let is_silent = now.since(self.received) >= ms(DORMANT_AFTER);
        is_silent && !self.unfinished && self.stage == Stage::Open
    }
}
