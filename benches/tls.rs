//! Benchmarks of TLS, in CPU time of the server's side alone: `cargo bench --bench tls`.
//!
//! The client of a handshake is rustls, and its part is not counted. Sealing and opening compute the key schedule for each
//! record, as the server does for a message.

#[path = "../src/tls/testing/peer.rs"]
#[allow(dead_code, reason = "the tests of the crate need the rest")]
mod peer;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quickio::tls::{Established, Opened, TlsContext, TlsSession};
use rustix::time::{ClockId, clock_gettime};
use rustls::{ClientConfig, ClientConnection};

criterion_main!(benches);

criterion_group! {
    name = benches;
    config = Criterion::default()
        .with_measurement(ThreadTime)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = records, handshakes
}

/// The CPU time of the thread.
struct ThreadTime;

impl Measurement for ThreadTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        thread_time()
    }
    fn end(&self, start: Duration) -> Duration {
        thread_time() - start
    }
    fn add(&self, left: &Duration, right: &Duration) -> Duration {
        *left + *right
    }
    fn zero(&self) -> Duration {
        Duration::ZERO
    }
    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("the CPU time is positive")
}

/// Seals messages, and opens those of a client.
fn records(criterion: &mut Criterion<ThreadTime>) {
    for suite in ["TLS13_AES_128_GCM_SHA256", "TLS13_AES_256_GCM_SHA384", "TLS13_CHACHA20_POLY1305_SHA256"] {
        let mut group = criterion.benchmark_group(suite);
        for len in [64, 200, 1024, 16 * 1024] {
            let (mut client, mut session) = connected(suite);
            let data = vec![b'a'; len];
            let mut output = Vec::with_capacity(session.sealed_len(len));
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::new("seal", len), |bencher| {
                bencher.iter(|| {
                    output.clear();
                    session.seal([black_box(&data[..])], &mut output);
                });
            });
            group.bench_function(BenchmarkId::new("open", len), |bencher| {
                // A batch at a time: to ask for the CPU time costs as much as a record.
                const BATCH: u64 = 64;
                bencher.iter_custom(|rounds| {
                    let mut time = Duration::ZERO;
                    for done in (0..rounds).step_by(BATCH as usize) {
                        let batch = (rounds - done).min(BATCH);
                        let mut records: Vec<_> =
                            (0..batch).map(|_| peer::sealed(&mut client, &data)).collect();
                        let start = thread_time();
                        for record in &mut records {
                            let opened = session.open(black_box(record)).expect("the record of a client");
                            assert!(matches!(opened, Opened::Data { plain, .. } if plain.len() == len));
                        }
                        time += thread_time() - start;
                    }
                    time
                });
            });
        }
        group.finish();
    }
}

/// Whole handshakes: with a certificate, and resumed by a ticket.
fn handshakes(criterion: &mut Criterion<ThreadTime>) {
    let mut group = criterion.benchmark_group("handshake");
    for (certificate, name) in
        [("server", "P-256"), ("p384", "P-384"), ("rsa", "RSA-2048"), ("rsa4096", "RSA-4096")]
    {
        let context = context(certificate);
        for kind in ["full", "resumed"] {
            let mut config = client_config("TLS13_AES_128_GCM_SHA256");
            if kind == "full" {
                config.resumption = rustls::client::Resumption::disabled();
            }
            let config = Arc::new(config);
            shake_hands(&context, &config);
            group.bench_function(BenchmarkId::new(kind, name), |bencher| {
                bencher.iter_custom(|rounds| {
                    let mut time = Duration::ZERO;
                    for _ in 0..rounds {
                        let (_, established, taken) = shake_hands(&context, &config);
                        assert_eq!(established.peer.is_resumed, kind == "resumed");
                        time += taken;
                    }
                    time
                });
            });
        }
    }
    group.finish();
}

fn context(name: &str) -> TlsContext {
    TlsContext::new(peer::server_config(name, rustls::ALL_VERSIONS))
}

fn client_config(suite: &str) -> ClientConfig {
    let mut suites = peer::suites().into_iter().map(|(suite, _)| suite);
    let found = suites.find(|known| format!("{:?}", known.suite()) == suite);
    peer::client_config(found.expect("a suite of the provider"))
}

fn connected(suite: &str) -> (ClientConnection, TlsSession) {
    let (client, established, _) = shake_hands(&context("server"), &Arc::new(client_config(suite)));
    (client, established.session)
}

/// Completes a handshake. Returns the CPU time of the server's part, too.
fn shake_hands(
    context: &TlsContext,
    config: &Arc<ClientConfig>,
) -> (ClientConnection, Established, Duration) {
    let mut client = peer::client(config);
    let mut time = Duration::ZERO;
    let start = thread_time();
    let mut handshake = context.accept();
    time += thread_time() - start;
    loop {
        let input = peer::written(&mut client);
        let mut output = Vec::new();
        let start = thread_time();
        let (_, established) = handshake.receive(&input, &mut output).expect("a handshake");
        time += thread_time() - start;
        peer::deliver(&mut client, &output).expect("the server keeps to the protocol");
        if let Some(established) = established {
            return (client, established, time);
        }
    }
}
