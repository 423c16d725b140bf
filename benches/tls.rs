//! Benchmarks of TLS, in CPU time of the server's side alone: `cargo bench --bench tls`.
//!
//! The client of a handshake is rustls, and its part is not counted. Sealing and opening compute the key schedule for each
//! record, as the server does for a message.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quickio::tls::{Established, Opened, TlsContext, TlsSession};
use rustix::time::{ClockId, clock_gettime};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

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
                            (0..batch).map(|_| client_record(&mut client, &data)).collect();
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
    for certificate in ["server", "rsa"] {
        let context = context(certificate);
        for kind in ["full", "resumed"] {
            let mut config = client_config("TLS13_AES_128_GCM_SHA256");
            if kind == "full" {
                config.resumption = rustls::client::Resumption::disabled();
            }
            let config = Arc::new(config);
            shake_hands(&context, &config);
            let name = if certificate == "rsa" { "RSA-2048" } else { "P-256" };
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

fn certificate(name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let file = |ending: &str| format!("{}/tests/certificates/{name}.{ending}", env!("CARGO_MANIFEST_DIR"));
    let chain = CertificateDer::pem_file_iter(file("pem")).expect("a file of the tests");
    let chain = chain.map(|certificate| certificate.expect("a certificate")).collect();
    (chain, PrivateKeyDer::from_pem_file(file("key")).expect("a key"))
}

fn context(name: &str) -> TlsContext {
    let (chain, key) = certificate(name);
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).expect("a certificate and its key");
    config.ticketer = Ticketer::new().expect("random numbers");
    TlsContext::new(config)
}

fn client_config(suite: &str) -> ClientConfig {
    let mut provider: CryptoProvider = default_provider();
    provider.cipher_suites.retain(|known| format!("{known:?}") == suite);
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca").0.remove(0)).expect("an authority");
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a suite of TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth()
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
    let name = ServerName::try_from("quickio.example").expect("a name");
    let mut client = ClientConnection::new(config.clone(), name).expect("a client");
    let mut time = Duration::ZERO;
    let start = thread_time();
    let mut handshake = context.accept();
    time += thread_time() - start;
    loop {
        let mut input = Vec::new();
        client.write_tls(&mut input).expect("a vector can be written");
        let mut output = Vec::new();
        let start = thread_time();
        let (_, established) = handshake.receive(&input, &mut output).expect("a handshake");
        time += thread_time() - start;
        let mut rest = &output[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("a slice can be read");
            client.process_new_packets().expect("the server keeps to the protocol");
        }
        if let Some(established) = established {
            return (client, established, time);
        }
    }
}

fn client_record(client: &mut ClientConnection, data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    client.writer().write_all(data).expect("the client has room");
    let mut record = Vec::with_capacity(data.len() + 64);
    while client.wants_write() {
        client.write_tls(&mut record).expect("a vector can be written");
    }
    record
}
