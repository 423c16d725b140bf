//! The rings of a million. The kernel limits the sockets of a ring to the limit on open files (`ulimit -n`), which counts
//! for each ring and not for the process: one thread with many rings holds any number of sockets. It waits for all of
//! them with one `poll`, and enters only those that have something to do.

use super::client::ClientNumber;
use quickio::qev::buffers::{Buffer, Frame};
use quickio::qev::ring::{Completion, Descriptor, Ring, RingSettings, SendId, Wait};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The number of receive buffers of a ring. Few are in use at a time, because all completions of a turn are handled
/// before the next turn.
const BUFFERS: u16 = 512;

/// The size of a receive buffer in bytes. The messages of these clients are shorter than 300 bytes.
const BUFFER_BYTES: u32 = 1024;

/// The rings.
///
/// Invariants: the socket of client `c` is in ring `c / clients_per_ring`, at place `c % clients_per_ring`. The token of
/// all of its operations is its id.
pub struct Rings {
    rings: Vec<RingOfClients>,
    clients_per_ring: usize,
    ready: Vec<usize>,
}

struct RingOfClients {
    ring: Ring,
    /// Operations were queued since the last turn.
    is_due: bool,
}

impl Rings {
    /// Creates the rings for a number of clients.
    pub fn new(clients: usize, clients_per_ring: usize) -> Result<Rings, String> {
        let count = clients.div_ceil(clients_per_ring);
        let ring = |number| {
            let settings = RingSettings {
                rings: count as u32,
                descriptors: clients_per_ring as u32,
                buffers: BUFFERS,
                buffer_bytes: BUFFER_BYTES,
                reserved: 0,
            };
            let ring = Ring::new(settings);
            // A new ring has queued the read of its doorbell.
            ring.map(|ring| RingOfClients { ring, is_due: true })
                .map_err(|error| no_ring(&error, number, count, clients_per_ring))
        };
        let rings = (0..count).map(ring).collect::<Result<_, _>>()?;
        Ok(Rings { rings, clients_per_ring, ready: Vec::new() })
    }

    /// Puts the socket of a client into its ring.
    pub fn adopt(&mut self, client: ClientNumber, socket: OwnedFd) -> io::Result<()> {
        let place = self.place(client);
        self.ring(client).adopt(place, socket).map(drop)
    }

    /// Sends a frame. A client must have at most one send in flight.
    pub fn send(&mut self, client: ClientNumber, frame: Frame) -> SendId {
        let descriptor = self.descriptor(client);
        self.due_ring(client).send(descriptor, client, frame)
    }

    /// Receives until the stream ends.
    pub fn receive(&mut self, client: ClientNumber) {
        let descriptor = self.descriptor(client);
        self.due_ring(client).receive(descriptor, client);
    }

    /// Cancels the receive of a client, and its send.
    pub fn cancel(&mut self, client: ClientNumber, send: Option<SendId>) {
        self.due_ring(client).cancel(client, send);
    }

    /// Closes the socket of a client, which must have no operations in flight.
    pub fn close(&mut self, client: ClientNumber) {
        let descriptor = self.descriptor(client);
        self.due_ring(client).close(descriptor, client);
    }

    /// Returns the bytes received by a client.
    pub fn data(&mut self, client: ClientNumber, buffer: &Buffer) -> &[u8] {
        self.ring(client).data(buffer)
    }

    /// Returns a received buffer to the ring of its client.
    pub fn recycle(&mut self, client: ClientNumber, buffer: Buffer) {
        self.ring(client).recycle(buffer);
    }

    /// Waits until a ring has something to do, for at most `time`. Returns the number of such rings.
    pub fn wait(&mut self, time: Duration) -> Result<usize, String> {
        let time = if self.rings.iter().any(|ring| ring.is_due) { Duration::ZERO } else { time };
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let mut polled: Vec<PollFd<'_>> = self
            .rings
            .iter()
            .map(|ring| PollFd::from_borrowed_fd(ring.ring.as_fd(), PollFlags::IN))
            .collect();
        match poll(&mut polled, Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(format!("cannot wait for {} rings: {error}", polled.len())),
        }
        self.ready.clear();
        let has_work = |index: &usize| self.rings[*index].is_due || !polled[*index].revents().is_empty();
        self.ready.extend((0..self.rings.len()).filter(has_work));
        Ok(self.ready.len())
    }

    /// Submits and reaps the operations of the `n`-th ring that has something to do.
    pub fn turn(&mut self, n: usize, completions: &mut Vec<Completion>) -> Result<(), String> {
        let ring = &mut self.rings[self.ready[n]];
        ring.is_due = false;
        ring.ring.turn(Wait::No, completions).map_err(|error| format!("io_uring: {error}"))
    }

    fn descriptor(&self, client: ClientNumber) -> Descriptor {
        Descriptor::at(self.place(client))
    }

    fn place(&self, client: ClientNumber) -> u32 {
        client % self.clients_per_ring as u32
    }

    fn ring(&mut self, client: ClientNumber) -> &mut Ring {
        &mut self.rings[client as usize / self.clients_per_ring].ring
    }

    /// Returns the ring of a client, which then takes part in the next turn.
    fn due_ring(&mut self, client: ClientNumber) -> &mut Ring {
        let ring = &mut self.rings[client as usize / self.clients_per_ring];
        ring.is_due = true;
        &mut ring.ring
    }
}

/// Describes the error of a ring that could not be created.
fn no_ring(error: &io::Error, number: usize, count: usize, clients: usize) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE) => format!(
            "cannot create ring {} of {count}, each with {clients} sockets: too many open files. The limit (ulimit -n) \
             applies to the sockets of each ring, and to the rings, which take two files each. Raise the limit, or use \
             fewer --connections or smaller --clients-per-ring",
            number + 1
        ),
        Some(libc::ENOMEM) => format!(
            "cannot create ring {} of {count}: no memory. Raise the limit on locked memory (ulimit -l), or use fewer \
             --connections",
            number + 1
        ),
        _ => format!("cannot create ring {} of {count}: {error}", number + 1),
    }
}
