//! The threads of the shards. Each thread creates its ring, registers the applications, and runs its shard to the end.

use super::error::ServerError;
use super::listen::BoundListeners;
use super::mailboxes::Mailboxes;
use super::memory;
use super::resources::Needs;
use crate::app::{self, Application, Server};
use crate::config::Config;
use crate::limits::SHARDS_MAX;
use crate::qev::clock::Clock;
use crate::qev::mesh::{self, Port, mesh};
use crate::qev::probe::KernelFeatures;
use crate::qev::ring::{Ring, RingSettings};
use crate::qev::runtime::{self, Cores, Executor};
use crate::shard::{Apps, AuthParts, Envelope, Inboxes, Listener, Shard, ShardParts, SharedState, Wakeup};
use crate::tls::TlsContext;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Descriptors of a ring in addition to an even share of `clients-max`: the kernel distributes connections by a hash.
const DESCRIPTORS_SPARE: usize = 1024;

/// The part of the memory that output may take while it waits for clients, if `outboxes-bytes-max` is not set.
const OUTBOXES_PART: usize = 4;

/// The part of the memory that incomplete messages may take, if `incomplete-bytes-max` is not set.
const INCOMPLETE_PART: usize = 8;

/// A function that is called when a shard has ended, with the number of the shard and its result.
pub(super) type OnShardEnd = Arc<dyn Fn(u16, io::Result<()>) + Send + Sync>;

/// Returns the number of shards: the setting, or one for each core that this process may keep busy.
pub(super) fn count(config: &Config) -> usize {
    config.shards.unwrap_or_else(|| Cores::of_process().usable).min(SHARDS_MAX)
}

/// The properties of all shards.
pub(super) struct ShardsConfig<'a> {
    pub config: &'a Arc<Config>,
    pub kernel: &'a KernelFeatures,
    pub clock: &'a Clock,
    pub apps: &'a [Arc<dyn Application>],
    /// The number of entries of each ring that are reserved for links of workers.
    pub link_places: u32,
    pub needs: &'a Needs,
    /// The configuration of TLS, or `None` if no listener takes it.
    pub tls: Option<TlsContext>,
    /// The keys of tokens, and their verification, or `None` if nobody can authenticate.
    pub auth: Option<AuthParts>,
    pub on_end: OnShardEnd,
}

/// The running threads of the shards.
pub(super) struct ShardThreads {
    mailboxes: Arc<Mailboxes>,
    cores: Cores,
    start_senders: Vec<SyncSender<ShardStart>>,
    /// Not used, but dropping them would detach the threads.
    _executors: Vec<Executor<()>>,
}

/// The message that lets a shard accept connections.
struct ShardStart {
    listeners: Vec<Listener>,
    peers: Arc<[Wakeup]>,
}

impl ShardThreads {
    /// Starts the threads. Each thread creates its shard and waits for [`ShardThreads::accept`].
    pub fn start(parts: ShardsConfig<'_>) -> Result<ShardThreads, ServerError> {
        let ShardsConfig { config, kernel, clock, apps, link_places, needs, tls, auth, on_end } = parts;
        let shards = count(config);
        let settings = mesh::MeshSettings {
            ring_messages: config.mesh_ring_messages,
            overflow_bytes_max: config.mesh_overflow_bytes_max,
        };
        let mut ports = mesh(shards, settings);
        let ring = ring_settings(config, kernel, shards, link_places);
        let mut shared = SharedState::new(config, ring.descriptors as usize * shards);
        let mut mailboxes = Mailboxes::new(shared.hasher.clone());
        let inboxes: Vec<Inboxes> = ports
            .iter_mut()
            .map(|port| mailboxes.add(port, config.inbox_messages_max, link_places as usize))
            .collect();
        if config.outboxes_bytes_max.is_none() {
            shared.outboxes_bytes_max = memory::available() / OUTBOXES_PART;
        }
        if config.incomplete_bytes_max.is_none() {
            shared.incomplete_bytes_max = memory::available() / INCOMPLETE_PART;
        }
        shared.tls = tls;
        let shared = Arc::new(shared);
        let mut threads = ShardThreads {
            mailboxes: Arc::new(mailboxes),
            cores: Cores::of_process(),
            start_senders: Vec::new(),
            _executors: Vec::new(),
        };
        let mut wakeups = Vec::new();
        for (id, (port, inboxes)) in ports.into_iter().zip(inboxes).enumerate() {
            let setup = ShardSetup {
                id: id as u16,
                config: Arc::clone(config),
                shared: Arc::clone(&shared),
                ring,
                port,
                inboxes,
                clock: clock.clone(),
                auth: auth.clone(),
                server: Server::new(Arc::clone(&threads.mailboxes) as Arc<dyn app::Post>),
                apps: apps.to_vec(),
                on_end: Arc::clone(&on_end),
            };
            wakeups.push(threads.start_one(setup).map_err(|error| with_hint(error, needs))?);
        }
        threads.mailboxes.set_wakeups(wakeups.into());
        Ok(threads)
    }

    /// Returns the mailboxes of the shards.
    pub fn mailboxes(&self) -> &Arc<Mailboxes> {
        &self.mailboxes
    }

    /// Returns the number of shards.
    pub fn len(&self) -> usize {
        self.start_senders.len()
    }

    /// Describes the shards and their cores, for the line that is printed at the start.
    pub fn placement(&self) -> String {
        placement(self.len(), &self.cores)
    }

    /// Lets the shards accept connections.
    pub fn accept(&self, listeners: &mut BoundListeners) {
        for (shard, start) in self.start_senders.iter().enumerate() {
            let peers = self.mailboxes.wakeups();
            // A shard that has ended has reported the reason.
            let _ = start.send(ShardStart { listeners: listeners.take(shard), peers });
        }
    }

    fn start_one(&mut self, setup: ShardSetup) -> Result<Wakeup, ServerError> {
        let id = setup.id;
        let (ready_tx, ready_rx) = sync_channel(1);
        let (start_tx, start_rx) = sync_channel(1);
        let name = format!("quickio-{id}");
        let core = self.cores.for_shard(usize::from(id));
        let executor = runtime::spawn(&name, core, move || setup.run(&ready_tx, &start_rx))
            .map_err(|error| start_error(id, error))?;
        self.start_senders.push(start_tx);
        match ready_rx.recv() {
            Ok(ready) => {
                self._executors.push(executor);
                ready
            }
            // The executor could not be created, or the thread panicked.
            Err(_) => {
                let error = executor.join().err().unwrap_or_else(|| io::Error::other("it ended at once"));
                Err(start_error(id, error))
            }
        }
    }
}

/// Returns the error of a shard that cannot start. [`ShardThreads::start`] adds the advice.
fn start_error(shard: u16, error: io::Error) -> ServerError {
    ServerError::Start { shard, error, hint: String::new() }
}

fn with_hint(error: ServerError, needs: &Needs) -> ServerError {
    match error {
        ServerError::Start { shard, error, .. } => {
            ServerError::Start { shard, hint: needs.hint(&error), error }
        }
        other => other,
    }
}

fn placement(shards: usize, cores: &Cores) -> String {
    if cores.have_quota() {
        let (usable, all) = (cores.usable, cores.ids.len());
        return format!(
            "{shards} shards on any core: the CPU quota of the control group allows {usable} of {all} cores"
        );
    }
    let numbers = (0..shards).filter_map(|shard| cores.for_shard(shard)).map(|core| core.to_string());
    format!("{shards} shards on cores {}", numbers.collect::<Vec<_>>().join(", "))
}

/// The parts from which a thread creates its shard.
struct ShardSetup {
    id: u16,
    config: Arc<Config>,
    shared: Arc<SharedState>,
    ring: RingSettings,
    port: Port<Envelope>,
    inboxes: Inboxes,
    clock: Clock,
    auth: Option<AuthParts>,
    server: Server,
    apps: Vec<Arc<dyn Application>>,
    on_end: OnShardEnd,
}

impl ShardSetup {
    /// Runs the thread of a shard: creates the shard, reports the result, waits for the start, and runs the shard to
    /// its end.
    fn run(self, ready: &SyncSender<Result<Wakeup, ServerError>>, start: &Receiver<ShardStart>) {
        let mut guard = EndGuard { id: self.id, on_end: Arc::clone(&self.on_end), result: None };
        let (shard, wakeup) = match self.make_shard() {
            Ok(made) => made,
            // The main thread waits for this message.
            Err(error) => return drop(ready.send(Err(error))),
        };
        let _ = ready.send(Ok(wakeup));
        // The channel closes if another shard or an application cannot start.
        let Ok(ShardStart { listeners, peers }) = start.recv() else { return };
        guard.result = Some(Err(io::Error::other("it panicked")));
        guard.result = Some(shard.run(listeners, peers));
    }

    fn make_shard(self) -> Result<(Shard, Wakeup), ServerError> {
        let id = self.id;
        let ring = Ring::new(self.ring).map_err(|error| start_error(id, error))?;
        let wakeup = Wakeup { ring: ring.raw_fd(), doorbell: ring.doorbell() };
        let apps = Apps::register(id, self.server, &self.apps)
            .map_err(|(name, error)| ServerError::App { name, error })?;
        let ShardSetup { config, shared, port, clock, auth, .. } = self;
        let (places, link_places) = (self.ring.descriptors, self.ring.reserved);
        let parts = ShardParts { id, config, shared, port, clock, apps, auth, places, link_places };
        Ok((Shard::new(ring, self.inboxes, parts), wakeup))
    }
}

/// A guard that reports the end of a shard, also if the shard panics.
struct EndGuard {
    id: u16,
    on_end: OnShardEnd,
    /// `None` while the shard has not run.
    result: Option<io::Result<()>>,
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        if let Some(result) = self.result.take() {
            (self.on_end)(self.id, result);
        }
    }
}

fn ring_settings(config: &Config, kernel: &KernelFeatures, shards: usize, link_places: u32) -> RingSettings {
    // The kernel distributes connections by a hash: some shards get more than their share, but none gets twice as many.
    let wanted = config.clients_max.div_ceil(shards) * 2 + DESCRIPTORS_SPARE;
    let wanted = wanted.min(config.clients_max + DESCRIPTORS_SPARE);
    let descriptors = u32::try_from(wanted)
        .unwrap_or(u32::MAX)
        .min(kernel.descriptors_per_ring.saturating_sub(link_places));
    if descriptors as usize * shards < config.clients_max {
        let (holds, limit) = (descriptors as usize * shards, kernel.descriptors_per_ring);
        if config.clients_max == Config::default().clients_max {
            // The setting was not changed.
            tracing::info!(
                "{shards} shards hold at most {holds} connections: the limit on open files is {limit} for each shard"
            );
        } else {
            tracing::warn!(
                "clients-max is {}, but {shards} shards hold at most {holds} connections: the limit on open files \
                 (ulimit -n) is {limit} for each shard",
                config.clients_max,
            );
        }
    }
    RingSettings {
        rings: shards as u32,
        descriptors,
        buffers: config.receive_buffers as u16,
        buffer_bytes: config.receive_buffer_bytes as u32,
        reserved: link_places,
    }
}
