//! How a supervisor is told what to do, by any thread; and what it counts.

use super::{ShardsHandle, SupervisorHandle};
use crate::metrics::{Counter, Counters};
use futures_channel::oneshot;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};

/// What a supervisor is told.
pub enum Order {
    /// The shards are there.
    Serve { app: u32, shards: Arc<dyn ShardsHandle>, done: SyncSender<()> },
    /// A worker has to be ended.
    Broken { worker: u32, why: String },
    /// A worker has ended one of its links.
    LinkEnded { worker: u32 },
    /// All workers have to be replaced.
    Replace,
    /// Time has passed.
    ClockMoved(oneshot::Sender<()>),
    /// How the self-test ended.
    Outcome(SyncSender<Result<(), String>>),
    /// The server begins to stop: workers end when the shards end their links.
    ServerStops,
    /// The shards have ended: whatever still runs has to end.
    ShardsEnded,
}

/// Where orders are given.
#[derive(Clone)]
pub struct Orders {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
    counts: Arc<Counts>,
}

/// Where they are taken.
pub struct Taken {
    orders: Receiver<Order>,
    wake: Arc<OwnedFd>,
}

/// A way to a supervisor.
pub fn orders() -> io::Result<(Orders, Taken)> {
    let (sender, orders) = channel();
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let taken = Taken { orders, wake: Arc::clone(&wake) };
    Ok((Orders { orders: sender, wake, counts: Arc::default() }, taken))
}

impl Orders {
    /// Tells the supervisor. It never waits; nobody is told where the supervisor has ended.
    pub fn give(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            // It is counted up to a limit that is not reached: each reading takes it to 0.
            let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        }
    }

    pub fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }
}

impl SupervisorHandle for Orders {
    fn report_broken(&self, worker: u32, why: &str) {
        self.give(Order::Broken { worker, why: why.to_owned() });
    }

    fn report_link_end(&self, worker: u32) {
        self.give(Order::LinkEnded { worker });
    }
}

impl Taken {
    /// The next order, if there is one.
    pub fn next(&self) -> Option<Order> {
        self.orders.try_recv().ok()
    }

    /// It can be read from when there are orders.
    pub fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// The orders that there are will be taken.
    pub fn woken(&self) {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
    }
}

/// What a supervisor counts: no shard does.
#[derive(Default)]
pub struct Counts {
    pub started: Count,
    pub crashed: Count,
    pub hung: Count,
    pub lines_dropped: Count,
}

#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
}

impl Counts {
    pub fn add_to(&self, counters: &mut Counters) {
        let get = |count: &Count| count.0.load(Ordering::Relaxed);
        counters.add(Counter::WorkersStarted, get(&self.started));
        counters.add(Counter::WorkersCrashed, get(&self.crashed));
        counters.add(Counter::WorkersHung, get(&self.hung));
        counters.add(Counter::WorkerLinesDropped, get(&self.lines_dropped));
    }
}
