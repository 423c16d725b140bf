//! The cost of fan-out: a shard's turn from broadcasts to sends, compared with a naive implementation that encodes
//! every event for every subscriber. The kernel's part of a send, which costs thirty times as much, is not measured.
//!
//! `cargo bench --bench fanout`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quickio::event::text;
use quickio::protocol::websocket::encode;
use quickio::protocol::websocket::frame::Opcode;
use quickio::shard::bench::FanOut;
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

const SUBSCRIBERS: u32 = 1000;

/// The numbers of broadcasts in one turn.
const BURSTS: [usize; 2] = [1, 20];

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out of 64 bytes to 1,000 subscribers");
    let data = format!("\"{}\"", "x".repeat(62));
    for burst in BURSTS {
        group.throughput(Throughput::Elements(burst as u64 * u64::from(SUBSCRIBERS)));
        let mut shard = FanOut::new(SUBSCRIBERS);
        let mut naive = Naive::new(SUBSCRIBERS);
        assert_eq!(
            shard.turn(burst, &data),
            naive.turn(burst, &data),
            "both implementations send the same bytes"
        );
        group
            .bench_function(format!("bursts of {burst}"), |b| b.iter(|| shard.turn(burst, black_box(&data))));
        group.bench_function(format!("bursts of {burst}, naive"), |b| {
            b.iter(|| naive.turn(burst, black_box(&data)));
        });
    }
}

/// An implementation that encodes every event for every subscriber, queues the frames, and joins them when it sends.
struct Naive {
    outboxes: Vec<VecDeque<Vec<u8>>>,
}

impl Naive {
    fn new(subscribers: u32) -> Naive {
        Naive { outboxes: (0..subscribers).map(|_| VecDeque::new()).collect() }
    }

    fn turn(&mut self, broadcasts: usize, data: &str) -> usize {
        for _ in 0..broadcasts {
            for outbox in &mut self.outboxes {
                let mut event = Vec::new();
                text::write_event(&mut event, "/relay/room", 0, data);
                let mut frame = Vec::new();
                encode::frame(&mut frame, Opcode::Text, &event);
                outbox.push_back(frame);
            }
        }
        let send = |outbox: &mut VecDeque<Vec<u8>>| {
            let sent: Vec<u8> = outbox.drain(..).flatten().collect();
            black_box(&sent).len()
        };
        self.outboxes.iter_mut().map(send).sum()
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = fan_out
}
criterion_main!(benches);
