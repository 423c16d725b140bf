//! An idle server: no thread of it wakes up without need, and the kernel counts none as waiting for a disk.

use crate::support::tls::Authority;
use crate::support::{Conversation, DEADLINE, Server, Transport};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// The system call in which a shard sleeps. Its number is the same on all architectures.
const IO_URING_ENTER: u64 = 426;

/// The flag that keeps this wait from counting as a wait for a disk: IORING_ENTER_NO_IOWAIT.
const NO_IOWAIT: u64 = 1 << 7;

/// A thread of the server, at one moment.
#[derive(Debug)]
struct ThreadSample {
    name: String,
    /// The number of times that it has gone to sleep.
    sleeps: u64,
    /// The time that it has waited for disks, in ticks, if the kernel counts it.
    waited_ticks: u64,
    /// The system call in which it sleeps and its arguments, or `None` if it does not sleep in one or the kernel does not
    /// permit to read that.
    call: Option<Vec<u64>>,
}

/// Returns the threads of the server by their ids.
fn threads(server: &Server) -> BTreeMap<PathBuf, ThreadSample> {
    let folders = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let folders = folders.map(|folder| folder.unwrap().path());
    // A thread may end meanwhile.
    let threads = folders.filter_map(|folder| sample(&folder).map(|sample| (folder, sample)));
    let threads: BTreeMap<_, _> = threads.collect();
    for name in ["quickio", "log", "signals", "quickio-control"] {
        assert!(threads.values().any(|thread| thread.name == name), "no thread {name}: {threads:?}");
    }
    threads
}

fn sample(folder: &std::path::Path) -> Option<ThreadSample> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let status = read("status")?;
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let stat = read("stat")?;
    // Field 42 of the whole line. The fields after the name, which may contain spaces, begin with field 3.
    let waited = stat.rsplit_once(") ")?.1.split(' ').nth(42 - 3)?.parse().ok()?;
    // A decimal number and hexadecimal ones, or the word "running".
    let call = read("syscall").unwrap_or_default();
    let (number, arguments) = call.trim().split_once(' ').unwrap_or((call.trim(), ""));
    let arguments = arguments.split(' ').filter_map(|word| word.strip_prefix("0x"));
    let arguments = arguments.filter_map(|word| u64::from_str_radix(word, 16).ok());
    let call = number.parse().ok().map(|number| [number].into_iter().chain(arguments).collect());
    Some(ThreadSample {
        name: value("Name")?,
        sleeps: value("voluntary_ctxt_switches")?.parse().ok()?,
        waited_ticks: waited,
        call,
    })
}

/// Watches the server for some time, which wakes no thread. Returns how often the threads of each name went to sleep.
fn wakes(server: &Server, time: Duration) -> BTreeMap<String, u64> {
    let before = threads(server);
    thread::sleep(time);
    let mut wakes = BTreeMap::new();
    for (thread, now) in threads(server) {
        let slept = now.sleeps.saturating_sub(before.get(&thread).map_or(0, |before| before.sleeps));
        *wakes.entry(now.name).or_default() += slept;
    }
    wakes
}

/// Waits for a few seconds in which no thread sleeps more often than `allowed`. What a thread does after the start, or
/// because a machine is so loaded that a page of the program has to be read again, comes to an end; a timer does not.
#[track_caller]
fn assert_idle(server: &Server, allowed: impl Fn(&str) -> u64) {
    const WATCHED: Duration = Duration::from_secs(4);
    let deadline = Instant::now() + DEADLINE;
    loop {
        let wakes = wakes(server, WATCHED);
        let too_many = wakes.iter().filter(|(name, wakes)| **wakes > allowed(name));
        let too_many: Vec<_> = too_many.collect();
        if too_many.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "these threads woke up within {WATCHED:?}: {too_many:?}");
    }
}

/// The allocator gives unused memory back in steps of a tenth of a second, for about 10 s after it was freed.
fn allocator_only(name: &str) -> u64 {
    if name.starts_with("jemalloc") { 160 } else { 0 }
}

#[test]
fn no_thread_of_an_idle_server_wakes_up() {
    // With the application `clienttest`, whose timer runs only for subscribers.
    let server = Server::start(&[]);
    assert_idle(&server, allocator_only);
    // It is idle again after its clients have come and gone, and after a broadcast has had subscribers.
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.subscribe("/clienttest/broadcast");
        assert_eq!(client.event().path, "/clienttest/broadcast");
        client.unsubscribe("/clienttest/broadcast");
    }
    let mut client = server.websocket();
    client.subscribe("/clienttest/broadcast");
    drop(client); // the end of a client ends its subscriptions
    server.stats();
    assert_idle(&server, allocator_only);
}

/// Watching the files of certificates wakes no thread.
#[test]
fn no_thread_of_an_idle_server_with_certificates_wakes_up() {
    let authority = Authority::new();
    let [certificate, key] = authority.issue("server", &["localhost"]);
    let server = Server::start(&["--tls-cert", &certificate, "--tls-key", &key]);
    assert_idle(&server, allocator_only);
}

#[test]
fn clients_wake_a_server_only_for_their_heartbeats() {
    let server = Server::start(&[]);
    let _clients: Vec<_> =
        (0..100).map(|_| server.client(Transport::Raw)).chain(server.spread(100)).collect();
    // A look at the sends of the handshakes after 7.5 s, and what the wheel of timers has to do for the heartbeats, which
    // are due after 40 s and for all clients of a shard at whole seconds.
    let shards = |name: &str| if name.starts_with("quickio-") && name != "quickio-control" { 4 } else { 0 };
    assert_idle(&server, |name| shards(name).max(allocator_only(name)));
}

/// Returns the reason why this kernel cannot do what the tests of waits examine.
fn too_old() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (version < (6, 15))
        .then(|| format!("Linux {} counts waits in an io_uring as waits for a disk", release.trim()))
}

/// The kernel counts a thread as waiting for a disk if it sleeps in an io_uring without this flag.
#[test]
fn every_thread_of_an_idle_server_sleeps_in_a_call_that_is_no_wait_for_a_disk() {
    if let Some(reason) = too_old() {
        return eprintln!("**** SKIPPED: {reason} ****");
    }
    let server = Server::start(&[]);
    if fs::read_to_string(format!("/proc/{}/syscall", server.pid())).is_err() {
        return eprintln!("**** SKIPPED: this user may not read in which calls other processes sleep ****");
    }
    let deadline = Instant::now() + DEADLINE;
    loop {
        let threads = threads(&server);
        if threads.values().all(|thread| thread.call.is_some()) {
            let rings = |thread: &&ThreadSample| thread.call.as_ref().unwrap()[0] == IO_URING_ENTER;
            let rings: Vec<_> = threads.values().filter(rings).collect();
            assert!(rings.len() >= 2, "the shards sleep in their rings: {threads:?}");
            // The arguments are the descriptor, two numbers, and the flags.
            let is_counted = |thread: &&&ThreadSample| thread.call.as_ref().unwrap()[4] & NO_IOWAIT == 0;
            let counted: Vec<_> = rings.iter().filter(is_counted).collect();
            assert!(counted.is_empty(), "these count as waiting for a disk: {counted:?}");
            return;
        }
        assert!(Instant::now() < deadline, "these never sleep: {threads:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the number of threads of this machine that wait for a disk: the least of several moments.
fn waiting_threads() -> i64 {
    let now = |_| {
        thread::sleep(Duration::from_millis(5));
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let count = stat.lines().find_map(|line| line.strip_prefix("procs_blocked "));
        count.expect("Linux counts them").parse().unwrap()
    };
    (0..10).map(now).min().unwrap()
}

/// The kernel's own count. It is that of the whole machine, so that it is compared with the count while the server is
/// stopped, again and again: others change it in both directions, and the server would always change it in one.
#[test]
fn an_idle_server_adds_nothing_to_the_threads_that_wait_for_a_disk() {
    if let Some(reason) = too_old() {
        return eprintln!("**** SKIPPED: {reason} ****");
    }
    let server = Server::start(&[]);
    let added = |_| {
        let running = waiting_threads();
        server.signal("STOP");
        let stopped = waiting_threads();
        server.signal("CONT");
        thread::sleep(Duration::from_millis(20)); // the threads fall asleep again
        running - stopped
    };
    let median = || {
        let mut added: Vec<i64> = (0..11).map(added).collect();
        added.sort_unstable();
        added[5]
    };
    let deadline = Instant::now() + DEADLINE;
    let mut medians = vec![median()];
    while medians.last() > Some(&0) {
        assert!(Instant::now() < deadline, "threads that wait for a disk while the server runs: {medians:?}");
        medians.push(median());
    }
}

/// The accounting of delays, which is off by default. Dropping it restores the setting.
struct DelayAccounting(String);

const DELAY_ACCOUNTING: &str = "/proc/sys/kernel/task_delayacct";

impl DelayAccounting {
    /// Turns the accounting on, or returns `None` if that is not possible.
    fn start() -> Option<DelayAccounting> {
        let before = fs::read_to_string(DELAY_ACCOUNTING).ok()?;
        fs::write(DELAY_ACCOUNTING, "1").ok()?;
        Some(DelayAccounting(before))
    }
}

impl Drop for DelayAccounting {
    fn drop(&mut self) {
        let _ = fs::write(DELAY_ACCOUNTING, &self.0); // it could be written before
    }
}

/// The time that the kernel shows as iowait, for each thread: less than one percent.
#[test]
fn the_threads_of_an_idle_server_do_not_wait_for_a_disk() {
    let accounting = DelayAccounting::start();
    let reason =
        too_old().or_else(|| accounting.is_none().then(|| "only root can turn the accounting on".into()));
    if let Some(reason) = reason {
        return eprintln!("**** SKIPPED: {reason} ****");
    }
    let server = Server::start(&[]);
    let waited = || -> BTreeMap<PathBuf, ThreadSample> {
        // The wait of a thread is accounted when it ends: an idle server has to be asked again and again.
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(200));
            server.wait_for_shards();
        }
        threads(&server)
    };
    let deadline = Instant::now() + DEADLINE;
    let mut before = waited();
    loop {
        // At least a second, which is a hundred ticks.
        let now = waited();
        let ticks = |(id, thread): (&PathBuf, &ThreadSample)| {
            thread.waited_ticks - before.get(id).map_or(0, |before| before.waited_ticks)
        };
        let most = now.iter().map(ticks).max().expect("the server has threads");
        if most == 0 {
            return;
        }
        // The system may have had to read a page of the program from a disk.
        assert!(Instant::now() < deadline, "{most} of at least 100 ticks, now {now:?}, before {before:?}");
        before = now;
    }
}
