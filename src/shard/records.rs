//! TLS records that are received: they are opened in the receive buffer, and their plaintext is handled there.
//!
//! A record that is cut by the end of a buffer is gathered in a buffer of its own, which grows with what arrives. What is
//! held of a connection that is not listened to (`held.rs`) is as it was received: it is opened when it is handled.

use super::codecs::Codecs;
use super::connection::Stage;
use super::ending::Cause;
use super::state::State;
use super::tls::TlsPhase;
use crate::metrics::Counter;
use crate::qev::ring::Errno;
use crate::tls::{Opened, TlsFailure};

impl State {
    /// Opens records, and handles the plaintext of each.
    pub fn open_records(&mut self, codecs: &mut Codecs, slot: u32, mut data: &mut [u8]) {
        let source = self.connections.source(slot);
        // Not for each record: small ones would take far more than their share of the time.
        self.charge_closing(slot, data.len());
        if !self.may_open(slot) {
            return;
        }
        if self.tls.secured_mut(slot).is_some_and(|secured| secured.has_partial()) {
            let Some(used) = self.complete_record(codecs, slot, data) else { return };
            data = &mut data[used..];
        }
        while !data.is_empty() && self.is_source_live(source) && self.may_open(slot) {
            let Some(used) = self.open_record(codecs, slot, data) else { return };
            if used == 0 {
                self.keep_partial(slot, data.to_vec());
                break;
            }
            data = &mut data[used..];
        }
    }

    /// Returns whether what the peer of a connection sends still matters.
    fn may_open(&mut self, slot: u32) -> bool {
        let is_awaited = matches!(self.connections.live(slot).stage, Stage::Open | Stage::AwaitingPeer);
        is_awaited
            && self.tls.secured_mut(slot).is_some_and(|secured| !secured.session.received_close_notify())
    }

    /// Opens the first record and handles its plaintext. Returns its size, 0 if it is not complete, or `None` if nothing that
    /// follows matters.
    fn open_record(&mut self, codecs: &mut Codecs, slot: u32, data: &mut [u8]) -> Option<usize> {
        let opened = self.tls.secured_mut(slot)?.session.open(data);
        self.handle_opened(codecs, slot, opened, data)
    }

    fn handle_opened(
        &mut self,
        codecs: &mut Codecs,
        slot: u32,
        opened: Result<Opened, TlsFailure>,
        data: &mut [u8],
    ) -> Option<usize> {
        match opened {
            Ok(Opened::Data { used, plain }) => {
                self.handle_plaintext(codecs, slot, &mut data[plain]);
                Some(used)
            }
            Ok(Opened::Handled { used }) => {
                let records = self.tls.secured_mut(slot)?.session.records_received();
                self.count(Counter::TlsKeyUpdates, u64::from(records == 0));
                // The record may have been incomplete until now. Only a message may be incomplete behind it.
                self.handle_plaintext(codecs, slot, &mut []);
                if self.tls.has_output(slot) {
                    self.connections.queue_tls_output(slot);
                }
                Some(used)
            }
            Ok(Opened::Incomplete { .. }) => Some(0),
            Ok(Opened::CloseNotify { .. }) => {
                self.end_of_input(codecs, slot, Cause::EndOfStream);
                None
            }
            Err(failure) => {
                self.records_failed(slot, &failure);
                None
            }
        }
    }

    /// Completes the record that has begun, if this is enough, and handles its plaintext. Returns how much of the data belongs
    /// to it, or `None` if nothing that follows matters.
    fn complete_record(&mut self, codecs: &mut Codecs, slot: u32, data: &[u8]) -> Option<usize> {
        if !self.may_open(slot) {
            return None;
        }
        let mut record = self.change_tls(slot, |state| state.tls.secured_mut(slot)?.take_partial())?;
        let mut used = 0;
        loop {
            let opened = self.tls.secured_mut(slot)?.session.open(&mut record);
            let Ok(Opened::Incomplete { needed }) = opened else {
                self.handle_opened(codecs, slot, opened, &mut record)?;
                return Some(used);
            };
            let part = (needed - record.len()).min(data.len() - used);
            if part == 0 {
                self.keep_partial(slot, record);
                return None;
            }
            record.extend_from_slice(&data[used..used + part]);
            used += part;
        }
    }

    /// Keeps the beginning of a record. It must be complete in time, like a message.
    fn keep_partial(&mut self, slot: u32, partial: Vec<u8>) {
        self.change_tls(slot, |state| {
            if let Some(secured) = state.tls.secured_mut(slot) {
                secured.keep_partial(partial);
            }
        });
        let now = self.time.now();
        let connection = self.connections.live_mut(slot);
        if connection.stage == Stage::Open && !std::mem::replace(&mut connection.unfinished, true) {
            connection.began = now;
            self.wake_at(slot, self.time.ms_from_now(self.config.timeout));
        }
    }

    /// Handles a record that broke a rule, or a fatal alert of the peer.
    fn records_failed(&mut self, slot: u32, failure: &TlsFailure) {
        let mut alert = Vec::new();
        if let (Some(secured), Some(description)) = (self.tls.secured_mut(slot), failure.alert_to_send()) {
            secured.session.alert(description, &mut alert);
        }
        self.change_tls(slot, |state| state.tls.fail(slot, alert));
        if self.connections.live(slot).stage == Stage::Open {
            return self.tls_failed(slot, failure);
        }
        // The server has sent its Close, and awaited that of the peer.
        self.connections.drop_outbox(slot);
        self.connections.live_mut(slot).stage = Stage::Flushing;
        self.connections.queue_for_flush(slot);
    }

    /// Handles the end of the stream of a connection whose bytes are handled by TLS, if it means something else than that of a
    /// plain one; returns whether it does.
    pub fn handle_tls_end(&mut self, slot: u32, result: Result<(), Errno>) -> bool {
        if result.is_err() {
            return false;
        }
        let stage = self.connections.live(slot).stage;
        match self.tls.phase(slot) {
            TlsPhase::Handshake(_) => self.tls.end_input(slot),
            // The peer has closed TLS before, which was handled.
            TlsPhase::Secured(secured) if secured.session.received_close_notify() => stage == Stage::Open,
            // Responses that wait are not sent: the request may have been cut off, or somebody else has ended the stream.
            TlsPhase::Secured(_) if stage == Stage::Open => {
                self.end(slot, Cause::TlsTruncated);
                true
            }
            _ => false,
        }
    }
}
