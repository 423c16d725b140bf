//! The transport of a client of the simulations.

use super::browser::Browser;
use super::socket::SimSocket;
use crate::protocol::testing::Random;
use crate::protocol::websocket::frame::Opcode;
use crate::shard::testing::{World, client_frame, raw_message, raw_texts, websocket_texts};

/// The transport of a client.
pub enum SimTransport {
    Raw(SimSocket),
    WebSocket(SimSocket),
    Http(Browser),
}

impl SimTransport {
    /// Connects a client whose output comes in a known order, or none at times.
    pub fn connect_ordered(world: &mut World, random: &mut Random) -> Option<SimTransport> {
        let shard = random.below(world.shards.len());
        Some(match random.below(4) {
            0 => SimTransport::WebSocket(SimSocket::new(world.connect_websocket(shard))),
            1 => {
                let mut browser = Browser::open(world, random);
                if !browser.ordered {
                    browser.leave(world, random);
                    browser.close_connections(world);
                    return None;
                }
                SimTransport::Http(browser)
            }
            _ => SimTransport::Raw(SimSocket::new(world.connect_raw(shard))),
        })
    }

    pub fn is_http(&self) -> bool {
        matches!(self, SimTransport::Http(_))
    }

    pub fn queue_event(&mut self, text: &str) {
        match self {
            SimTransport::Raw(socket) => socket.queue(&raw_message(text)),
            SimTransport::WebSocket(socket) => socket.queue(&client_frame(Opcode::Text, text.as_bytes())),
            SimTransport::Http(browser) => browser.queue_event(text),
        }
    }

    /// Sends a piece of random length of the client's unsent output.
    pub fn send_some(&mut self, world: &mut World, random: &mut Random) {
        match self {
            SimTransport::Raw(socket) | SimTransport::WebSocket(socket) => socket.send_some(world, random),
            SimTransport::Http(browser) => browser.send_some(world, random),
        }
    }

    pub fn send_all(&mut self, world: &mut World) {
        match self {
            SimTransport::Raw(socket) | SimTransport::WebSocket(socket) => socket.send_all(world),
            SimTransport::Http(browser) => browser.send_all(world),
        }
    }

    pub fn toggle_reading(&mut self, world: &mut World, random: &mut Random) {
        match self {
            SimTransport::Raw(socket) | SimTransport::WebSocket(socket) => socket.toggle_reading(world),
            SimTransport::Http(browser) => browser.toggle_reading(world, random),
        }
    }

    pub fn resume_reading(&mut self, world: &mut World) {
        match self {
            SimTransport::Raw(socket) | SimTransport::WebSocket(socket) => socket.resume_reading(world),
            SimTransport::Http(browser) => browser.resume_reading(world),
        }
    }

    /// Fetches the remaining output of a client that polls, until a request of it is held. The shards must be idle.
    pub fn fetch_rest(&mut self, world: &mut World) {
        if let SimTransport::Http(browser) = self {
            browser.poll_until_held(world);
        }
    }

    /// Takes the events that the client has received. The responses to polls may come in another order than their requests, and
    /// are complete only after [`fetch_rest`](Self::fetch_rest).
    pub fn take_texts(&mut self, world: &mut World) -> Vec<String> {
        match self {
            SimTransport::Raw(socket) => raw_texts(&socket.take_bytes(world)),
            SimTransport::WebSocket(socket) => websocket_texts(&socket.take_bytes(world)),
            SimTransport::Http(browser) => browser.take_events(world),
        }
    }

    /// Breaks the client's connections. What it has not received is lost.
    pub fn lose(mut self, world: &mut World, random: &mut Random) {
        match &mut self {
            SimTransport::Raw(socket) | SimTransport::WebSocket(socket) => {
                if random.once_in(2) {
                    world.end_stream(socket.peer);
                } else {
                    world.reset(socket.peer);
                }
            }
            SimTransport::Http(browser) => {
                browser.leave(world, random);
                browser.close_connections(world);
            }
        }
        world.run_until_idle();
        world.shards.iter_mut().for_each(|shard| shard.kernel_mut().unread_output.clear());
    }

    /// Ends the client's connections.
    pub fn close(&mut self, world: &mut World) {
        match self {
            SimTransport::Raw(socket) | SimTransport::WebSocket(socket) => world.end_stream(socket.peer),
            SimTransport::Http(browser) => browser.close_connections(world),
        }
    }
}
