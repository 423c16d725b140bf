//! The load of each client on a link: its requests, replies, unread bytes, and the callbacks that it was offered. Each has
//! a limit for all clients together, of which no client gets more than its share.

use super::WorkerRequest;
use crate::app::shares::{ShareRefusal, Shares};
use crate::app::worker::LinkLimits;
use crate::client::ClientId;
use crate::limits::{CLIENT_CALLBACKS_MAX, WORKER_CALLBACKS_MAX, WORKER_CLIENT_REQUESTS_MIN};

/// The load of a link, by client.
///
/// Invariant, which [`check`](LinkLoad::check) asserts: those of the shares.
pub(super) struct LinkLoad {
    /// Events and subscriptions that the worker has not answered.
    requests: Shares,
    /// Replies to callbacks that the worker has not answered.
    replies: Shares,
    /// Callbacks of the worker that are offered and have neither run nor been dropped.
    callbacks: Shares,
    /// Bytes in the output that the shard has not taken.
    bytes: Shares,
    /// Bytes that the shard has taken and the kernel has not accepted.
    bytes_in_flight: Shares,
}

impl LinkLoad {
    pub fn new(limits: &LinkLimits) -> LinkLoad {
        let bytes = || Shares::new(limits.outbox_bytes_max, 0);
        LinkLoad {
            requests: Shares::new(limits.requests_max, WORKER_CLIENT_REQUESTS_MIN),
            replies: Shares::new(WORKER_CALLBACKS_MAX, CLIENT_CALLBACKS_MAX),
            callbacks: Shares::new(WORKER_CALLBACKS_MAX, CLIENT_CALLBACKS_MAX),
            bytes: bytes(),
            bytes_in_flight: bytes(),
        }
    }

    // Requests.

    /// Checks whether a client may send one more event or subscription.
    pub fn admit_request(&self, client: ClientId) -> Result<(), ShareRefusal> {
        self.requests.admit(client)
    }

    /// Checks whether a client may send one more reply.
    pub fn admit_reply(&self, client: ClientId) -> Result<(), ShareRefusal> {
        self.replies.admit(client)
    }

    pub fn begin(&mut self, request: &WorkerRequest) {
        self.shares_of(request).add(request.client(), 1);
    }

    pub fn end(&mut self, request: &WorkerRequest) {
        self.shares_of(request).remove(request.client(), 1);
    }

    /// Ends all requests.
    pub fn clear_requests(&mut self) {
        self.requests.clear();
        self.replies.clear();
    }

    /// Returns the number of requests, replies included.
    pub fn requests(&self) -> usize {
        self.requests.used() + self.replies.used()
    }

    fn shares_of(&mut self, request: &WorkerRequest) -> &mut Shares {
        match request {
            WorkerRequest::Event(_) | WorkerRequest::Subscription(..) => &mut self.requests,
            WorkerRequest::Reply(_) => &mut self.replies,
        }
    }

    // Callbacks.

    /// Offers one more callback to a client. Returns `false` if it may not be offered.
    pub fn open_callback(&mut self, client: ClientId) -> bool {
        let is_admitted = self.callbacks.admit(client).is_ok();
        if is_admitted {
            self.callbacks.add(client, 1);
        }
        is_admitted
    }

    pub fn close_callback(&mut self, client: ClientId) {
        self.callbacks.remove(client, 1);
    }

    /// Returns the number of open callbacks.
    pub fn callbacks(&self) -> usize {
        self.callbacks.used()
    }

    // Bytes.

    /// Checks whether a client may cause more output while `unread` bytes wait, in the output or for the kernel. The
    /// client has a share of each.
    pub fn admit_bytes(&self, client: ClientId, unread: usize) -> Result<(), ShareRefusal> {
        self.bytes.admit_of(client, unread)?;
        self.bytes_in_flight.admit_of(client, unread)
    }

    pub fn add_bytes(&mut self, client: ClientId, bytes: usize) {
        self.bytes.add(client, bytes);
    }

    /// Records that the shard has taken the output.
    pub fn output_taken(&mut self) {
        debug_assert_eq!(self.bytes_in_flight.used(), 0, "one send at a time");
        std::mem::swap(&mut self.bytes, &mut self.bytes_in_flight);
    }

    /// Records that the kernel has accepted what was taken.
    pub fn output_sent(&mut self) {
        self.bytes_in_flight.clear();
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        let all = [&self.requests, &self.replies, &self.callbacks, &self.bytes, &self.bytes_in_flight];
        all.into_iter().for_each(Shares::check);
    }
}
