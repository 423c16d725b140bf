//! The frames that all clients send, which are encoded once.

use super::client::ClientNumber;
use crate::encoder::{CLOSE, CLOSE_CODE, Encoder, GREETING, PONG};
use crate::plan::{Plan, Protocol, Room};
use quickio::qev::buffers::Frame;

/// The encoder of all clients.
const ENCODER: Encoder = Encoder(Protocol::WebSocket);

/// The frames of the clients.
pub struct ClientFrames {
    pub upgrade: Frame,
    pub greeting: Frame,
    pub ping: Frame,
    /// For each room, the subscriptions of its members.
    subscriptions: Vec<Frame>,
}

impl ClientFrames {
    /// Encodes the frames of clients that are divided among a number of rooms.
    pub fn new(plan: &Plan, rooms: usize) -> ClientFrames {
        let subscriptions = |room| {
            let both = [Room::Busy(room), Room::Everyone].map(|room| ENCODER.subscribe(room));
            Frame::new(both.concat(), 0)
        };
        ClientFrames {
            upgrade: Frame::new(ENCODER.first_message(plan, 0), 0),
            greeting: Frame::new(ENCODER.event(GREETING), 0),
            ping: ENCODER.pings(&plan.ping_event, 1).remove(0),
            subscriptions: (0..rooms).map(subscriptions).collect(),
        }
    }

    /// Returns the subscriptions of a client.
    pub fn subscriptions(&self, client: ClientNumber) -> Frame {
        self.subscriptions[client as usize % self.subscriptions.len()].clone()
    }

    /// Returns the answer to a heartbeat that must be answered.
    pub fn heartbeat_answer(&self, callback: u64) -> Frame {
        Frame::new(ENCODER.heartbeat_answer(callback), 0)
    }

    /// Returns the answer to a WebSocket ping.
    pub fn pong(&self, data: &[u8]) -> Frame {
        Frame::new(ENCODER.control(PONG, data), 0)
    }

    /// Returns a close frame. The answer to another one has the same code.
    pub fn close(&self, code: Option<u16>) -> Frame {
        Frame::new(ENCODER.control(CLOSE, &code.map_or(CLOSE_CODE, u16::to_be_bytes)), 0)
    }
}
