//! Benchmarks of `qev` against naive twins: timers, messages between shards, and latency histograms.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hint::black_box;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use hdrhistogram::Histogram;
use quickio::qev::mesh::{Class, MeshSettings, Port, SendOutcome, mesh};
use quickio::qev::stats::LatencyHistogram;
use quickio::qev::timer::{TimerId, Wheel};

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = timers, messages_in_one_thread, messages_between_threads, latencies
}
criterion_main!(benches);

const TIMERS: u32 = 100_000;

/// The number of timers that are moved in one iteration. Every message of a client moves its timeout.
const MOVES: u64 = 1_000;

/// Returns a time half a second after `now_ms`, spread over a tenth of a second. This is short enough for the benchmark
/// to reach its steady state.
fn timeout(now_ms: u64, client: u32) -> u64 {
    now_ms + 500 + u64::from(client).wrapping_mul(7_919) % 100
}

fn timers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("move one of 100,000 timers, advance 1 ms each 1,000");
    group.throughput(Throughput::Elements(MOVES));

    let mut wheel = Wheel::new(0);
    let mut ids: Vec<TimerId> = (0..TIMERS).map(|client| wheel.insert(timeout(0, client), client)).collect();
    let (mut now_ms, mut next, mut fired) = (0, 0, Vec::new());
    group.bench_function("Wheel", |bencher| {
        bencher.iter(|| {
            now_ms += 1;
            wheel.advance(now_ms, &mut fired);
            for client in fired.drain(..) {
                ids[client as usize] = wheel.insert(timeout(now_ms, client), client);
            }
            for client in clients(&mut next) {
                wheel.cancel(ids[client as usize], client);
                ids[client as usize] = wheel.insert(timeout(now_ms, client), client);
            }
        });
    });

    let mut map: BTreeMap<(u64, u32), ()> =
        (0..TIMERS).map(|client| ((timeout(0, client), client), ())).collect();
    let mut times: Vec<u64> = (0..TIMERS).map(|client| timeout(0, client)).collect();
    let (mut now_ms, mut next) = (0, 0);
    group.bench_function("BTreeMap", |bencher| {
        bencher.iter(|| {
            now_ms += 1;
            while let Some(entry) = map.first_entry().filter(|entry| entry.key().0 <= now_ms) {
                let client = entry.remove_entry().0.1;
                times[client as usize] = timeout(now_ms, client);
                map.insert((times[client as usize], client), ());
            }
            for client in clients(&mut next) {
                map.remove(&(times[client as usize], client));
                times[client as usize] = timeout(now_ms, client);
                map.insert((times[client as usize], client), ());
            }
        });
    });

    // A heap cannot cancel a timer. A timer that was moved stays in the heap until its old time.
    let mut heap: BinaryHeap<Reverse<(u64, u32)>> =
        (0..TIMERS).map(|client| Reverse((timeout(0, client), client))).collect();
    let mut times: Vec<u64> = (0..TIMERS).map(|client| timeout(0, client)).collect();
    let (mut now_ms, mut next) = (0, 0);
    group.bench_function("BinaryHeap, moved ones left in it", |bencher| {
        bencher.iter(|| {
            now_ms += 1;
            while heap.peek().is_some_and(|Reverse((at_ms, _))| *at_ms <= now_ms) {
                let Some(Reverse((at_ms, client))) = heap.pop() else { break };
                if times[client as usize] == at_ms {
                    times[client as usize] = timeout(now_ms, client);
                    heap.push(Reverse((times[client as usize], client)));
                }
            }
            for client in clients(&mut next) {
                times[client as usize] = timeout(now_ms, client);
                heap.push(Reverse((times[client as usize], client)));
            }
        });
    });
}

/// Returns the next thousand clients that send a message, spread over the table.
fn clients(next: &mut u32) -> impl Iterator<Item = u32> {
    let first = *next;
    *next = next.wrapping_add(MOVES as u32);
    (0..MOVES as u32).map(move |client| first.wrapping_add(client).wrapping_mul(7_919) % TIMERS)
}

/// A message with the size of those that shards send each other: the handle of a frame and its destination.
type Message = [u64; 6];

/// The number of messages that one turn sends and the next receives.
const TURN: u64 = 64;

fn ports() -> (Port<Message>, Port<Message>) {
    let mut ports = mesh(2, MeshSettings { ring_messages: 1024, overflow_bytes_max: 1024 }).into_iter();
    (ports.next().expect("shard 0"), ports.next().expect("shard 1"))
}

fn messages_in_one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("64 messages of 48 bytes, sent and received");
    group.throughput(Throughput::Elements(TURN));

    let (mut zero, mut one) = ports();
    group.bench_function("Port", |bencher| {
        bencher.iter(|| {
            for number in 0..TURN {
                let _ = black_box(zero.send(1, [number; 6], Class::Data));
            }
            zero.doorbells(|peer| unreachable!("{peer} is awake"));
            one.receive(usize::MAX, |_, message| {
                black_box(message);
            });
            one.doorbells(|peer| unreachable!("{peer} is awake"));
        });
    });

    let (sender, receiver) = mpsc::channel::<Message>();
    group.bench_function("mpsc::channel", |bencher| {
        bencher.iter(|| {
            for number in 0..TURN {
                sender.send([number; 6]).expect("the receiver exists");
            }
            receiver.try_iter().for_each(|message| {
                black_box(message);
            });
        });
    });

    let queue = Mutex::new(VecDeque::<Message>::new());
    group.bench_function("Mutex<VecDeque>", |bencher| {
        bencher.iter(|| {
            for number in 0..TURN {
                queue.lock().expect("no thread panics").push_back([number; 6]);
            }
            while let Some(message) = queue.lock().expect("no thread panics").pop_front() {
                black_box(message);
            }
        });
    });
}

/// The number of messages from one thread to another in one iteration.
const CROSSING: u64 = 200_000;

fn messages_between_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("200,000 messages of 48 bytes to another thread");
    group.throughput(Throughput::Elements(CROSSING));
    group.bench_function("Port", |bencher| bencher.iter_batched(ports, cross_mesh, BatchSize::PerIteration));
    group.bench_function("mpsc::sync_channel", |bencher| {
        bencher.iter_batched(|| mpsc::sync_channel(1024), cross_channel, BatchSize::PerIteration);
    });
    group.bench_function("Mutex<VecDeque>", |bencher| {
        bencher.iter_batched(Arc::default, cross_lock, BatchSize::PerIteration);
    });
}

/// Sends messages through the mesh. Both threads yield when they have nothing to do, as do the twins. This measures the
/// passing of messages and not the wake-up.
fn cross_mesh((mut zero, mut one): (Port<Message>, Port<Message>)) {
    let sender = thread::spawn(move || {
        let mut number = 0;
        while number < CROSSING {
            while number < CROSSING && zero.send(1, [number; 6], Class::Data) == SendOutcome::Queued {
                number += 1;
            }
            number += u64::from(zero.has_overflow());
            while zero.has_overflow() {
                zero.doorbells(|_| ());
                thread::yield_now();
                zero.flush();
            }
        }
    });
    let mut received = 0;
    while received < CROSSING {
        let count = one.receive(256, |_, message| {
            black_box(message);
        });
        one.doorbells(|_| ());
        received += count as u64;
        if count == 0 {
            thread::yield_now();
        }
    }
    sender.join().expect("the sender does not panic");
}

fn cross_channel((sender, receiver): (mpsc::SyncSender<Message>, mpsc::Receiver<Message>)) {
    let sender = thread::spawn(move || {
        for number in 0..CROSSING {
            while sender.try_send([number; 6]).is_err() {
                thread::yield_now();
            }
        }
    });
    let mut received = 0;
    while received < CROSSING {
        match receiver.try_recv() {
            Ok(message) => {
                black_box(message);
                received += 1;
            }
            Err(_) => thread::yield_now(),
        }
    }
    sender.join().expect("the sender does not panic");
}

fn cross_lock(queue: Arc<Mutex<VecDeque<Message>>>) {
    let senders_queue = Arc::clone(&queue);
    let sender = thread::spawn(move || {
        for number in 0..CROSSING {
            while !push_if_room(&senders_queue, [number; 6]) {
                thread::yield_now();
            }
        }
    });
    let mut received = 0;
    while received < CROSSING {
        let message = queue.lock().expect("no thread panics").pop_front();
        if message.is_none() {
            thread::yield_now();
        }
        received += u64::from(black_box(message).is_some());
    }
    sender.join().expect("the sender does not panic");
}

fn push_if_room(queue: &Mutex<VecDeque<Message>>, message: Message) -> bool {
    let mut queue = queue.lock().expect("no thread panics");
    let room = queue.len() < 1024;
    if room {
        queue.push_back(message);
    }
    room
}

/// The number of durations that are recorded in one iteration.
const RECORDED: u64 = 10_000;

fn latencies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record a duration");
    group.throughput(Throughput::Elements(RECORDED));
    // The number of equal durations in a row: one, or as many as the sends of a fan-out.
    for run in [1, 100] {
        let times: Vec<u64> =
            (0..RECORDED).map(|at| 20_000 + (at / run).wrapping_mul(7_919) % 1_000_000).collect();
        let mut latencies = LatencyHistogram::new();
        group.bench_function(format!("LatencyHistogram, runs of {run}"), |bencher| {
            bencher.iter(|| times.iter().for_each(|ns| latencies.record(black_box(*ns))));
        });
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 3).expect("good bounds");
        group.bench_function(format!("Histogram, runs of {run}"), |bencher| {
            bencher.iter(|| times.iter().for_each(|ns| histogram.saturating_record(black_box(*ns))));
        });
        let shared = Mutex::new(histogram);
        group.bench_function(format!("Mutex<Histogram>, runs of {run}"), |bencher| {
            bencher.iter(|| {
                let record =
                    |ns: &u64| shared.lock().expect("no thread panics").saturating_record(black_box(*ns));
                times.iter().for_each(record);
            });
        });
    }
}
