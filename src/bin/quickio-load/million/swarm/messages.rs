//! Sends messages, and handles the completions of the rings and the messages of the server.

use super::Swarm;
use crate::decoder::Message;
use crate::error::ProtocolError;
use crate::million::cause::EndCause;
use crate::million::client::{ClientNumber, ClientState, OpeningPart, SUBSCRIPTIONS};
use quickio::qev::buffers::{Buffer, Frame};
use quickio::qev::ring::{Completion, Errno};

/// The messages in a piece of received bytes.
#[derive(Default)]
struct Replies {
    upgraded: bool,
    greeted: bool,
    subscribed: u8,
    pongs: u8,
    /// The callbacks of heartbeats that must be answered.
    challenges: Vec<u64>,
    control_pings: Vec<Vec<u8>>,
    refusal: Option<String>,
    /// The code of a close frame.
    closed: Option<Option<u16>>,
}

/// Sends and receives.
impl Swarm<'_> {
    /// Sends pings, if the client is open.
    pub(super) fn ping(&mut self, client: ClientNumber, count: usize) {
        if self.is_open(client) {
            self.pingers.sent += count as u64;
            (0..count).for_each(|_| self.send(client, self.frames.ping.clone()));
        }
    }

    /// Sends a frame now, or after the send in flight.
    pub(super) fn send(&mut self, client: ClientNumber, frame: Frame) {
        let record = &mut self.clients[client as usize];
        if record.sending.is_some() {
            record.has_waiting = true;
            return self.waiting.entry(client).or_default().push_back(frame);
        }
        record.sending = Some(self.rings.send(client, frame));
    }

    fn send_waiting(&mut self, client: ClientNumber) {
        let Some(frames) = self.waiting.get_mut(&client) else { return };
        let frame = frames.pop_front();
        if frames.is_empty() {
            self.waiting.remove(&client);
            self.client(client).has_waiting = false;
        }
        frame.into_iter().for_each(|frame| self.send(client, frame));
    }

    /// Handles a completion.
    pub(super) fn complete(&mut self, completion: Completion, now: u64) {
        match completion {
            Completion::Received { token, buffer, ended } => {
                self.client(token).receiving = !ended;
                self.received(token, &buffer, now);
                self.rings.recycle(token, buffer);
                if ended {
                    self.receive(token);
                }
            }
            Completion::ReceiveEnded { token, result } => {
                self.client(token).receiving = false;
                match result {
                    Err(error) if error.is_no_buffers() => self.receive(token),
                    Err(error) => self.end(token, EndCause::Os(error.0), now),
                    Ok(()) => self.end(token, EndCause::EndOfStream, now),
                }
                self.close_if_idle(token);
            }
            Completion::Sent { token, result, .. } => self.sent(token, result, now),
            Completion::Closed { token } => self.socket_closed(token),
            _ => {}
        }
    }

    /// Receives, unless the client is being closed or receives already.
    fn receive(&mut self, client: ClientNumber) {
        let record = &mut self.clients[client as usize];
        if record.is_connected() && !record.receiving {
            record.receiving = true;
            self.rings.receive(client);
        }
        self.close_if_idle(client);
    }

    fn sent(&mut self, client: ClientNumber, result: Result<(), Errno>, now: u64) {
        let record = self.client(client);
        record.sending = None;
        match result {
            Err(error) => {
                self.end(client, EndCause::Os(error.0), now);
                return self.close_if_idle(client);
            }
            Ok(()) if record.state == ClientState::Opening(OpeningPart::Tcp) => {
                self.part_ended(client, OpeningPart::Tcp, now);
                self.receive(client);
            }
            Ok(()) => {}
        }
        if self.client(client).has_waiting {
            self.send_waiting(client);
        }
        self.close_if_idle(client);
    }

    fn received(&mut self, client: ClientNumber, buffer: &Buffer, now: u64) {
        if !self.client(client).is_connected() {
            return;
        }
        let mut replies = Replies::default();
        let piece = self.rings.data(client, buffer);
        let record = &mut self.clients[client as usize];
        let (heartbeats, deliveries) = (&mut self.measured.heartbeats, &mut self.deliveries);
        let newest = &mut record.newest;
        let decoded = record.decoder.decode(piece, |message| match message {
            Message::Published(intended) => deliveries.record(client, newest, intended, now),
            Message::Heartbeat(callback) => {
                *heartbeats += 1;
                if callback > 0 {
                    replies.challenges.push(callback);
                }
            }
            other => replies.add(other),
        });
        self.handle(client, replies, decoded, now);
    }

    fn handle(
        &mut self,
        client: ClientNumber,
        replies: Replies,
        decoded: Result<(), ProtocolError>,
        now: u64,
    ) {
        if let Some(part) = self.client(client).opening() {
            self.advance(client, part, &replies, now);
        }
        if replies.pongs > 0 {
            self.pingers.answered(client, replies.pongs, now);
        }
        for callback in replies.challenges {
            self.send(client, self.frames.heartbeat_answer(callback));
        }
        for data in replies.control_pings {
            self.send(client, self.frames.pong(&data));
        }
        if let Some(answer) = replies.refusal.filter(|_| self.clients[client as usize].opening().is_some()) {
            self.end(client, EndCause::Refused(answer), now);
        }
        if let Some(code) = replies.closed {
            self.told_to_leave(client, code, now);
        }
        if let Err(error) = decoded {
            self.end(client, EndCause::from(&error), now);
        }
    }

    /// Handles the answers that an opening waits for.
    fn advance(&mut self, client: ClientNumber, part: OpeningPart, replies: &Replies, now: u64) {
        if part == OpeningPart::Upgrade && replies.upgraded {
            self.part_ended(client, OpeningPart::Upgrade, now);
            self.send(client, self.frames.greeting.clone());
        }
        if self.client(client).opening() == Some(OpeningPart::Hello) && replies.greeted {
            self.part_ended(client, OpeningPart::Hello, now);
            self.send(client, self.frames.subscriptions(client));
        }
        if self.client(client).opening() == Some(OpeningPart::Subscriptions) {
            self.client(client).confirmed += replies.subscribed;
            if self.client(client).confirmed == SUBSCRIPTIONS {
                self.part_ended(client, OpeningPart::Subscriptions, now);
            }
        }
    }

    /// Handles a close frame: an open client answers it and waits until the server ends the connection.
    fn told_to_leave(&mut self, client: ClientNumber, code: Option<u16>, now: u64) {
        if self.client(client).state != ClientState::Open {
            return self.end(client, EndCause::Closed(code), now);
        }
        self.ended(client, EndCause::Closed(code), now);
        self.client(client).state = ClientState::Leaving;
        self.send(client, self.frames.close(code));
    }
}

impl Replies {
    fn add(&mut self, message: Message<'_>) {
        match message {
            Message::Upgraded => self.upgraded = true,
            Message::Greeted => self.greeted = true,
            Message::Subscribed => self.subscribed += 1,
            Message::Pong => self.pongs += 1,
            Message::Refused(answer) => {
                self.refusal.get_or_insert_with(|| String::from_utf8_lossy(answer).into_owned());
            }
            Message::ControlPing(data) => self.control_pings.push(data.to_vec()),
            Message::Close(code, _) => self.closed = Some(code),
            Message::Heartbeat(_) | Message::Published(_) | Message::ResponseEnd | Message::Other(_) => {}
        }
    }
}
