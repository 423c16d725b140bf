//! The cost of one event in a handler, in Rust and in C. The measured code is a shard's turn with 100 events, from the
//! client's frames to the sends that the shard passes to the kernel. The difference between the two is the additional
//! cost of C. Needs a C compiler.
//!
//! `cargo bench --bench apps`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quickio::app::{Answer, Application, Error, Registrar, c};
use quickio::event::path::Path;
use quickio::shard::bench::Handling;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The number of turns of each language whose minimum is printed.
const TURNS: usize = 5000;

/// Events of one turn: as many as a busy shard handles.
const EVENTS: usize = 100;

fn handlers(c: &mut Criterion) {
    let in_c = load_c_application();
    let data = format!("\"{}\"", "x".repeat(62));
    let cases = [
        ("one event through a handler that does nothing", "/bench/nothing:1=null".to_owned()),
        ("one event through a handler that broadcasts 64 bytes", format!("/bench/broadcast:1={data}")),
    ];
    for (name, event) in cases {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(EVENTS as u64));
        let events = [event];
        let mut rust = Handling::new(Arc::new(Bench), "/bench/room");
        let mut c = Handling::new(Arc::clone(&in_c), "/bench/room");
        assert_eq!(rust.turn(&events, EVENTS), c.turn(&events, EVENTS), "both languages send the same bytes");
        print_difference(name, |app| _ = if app == 0 { &mut rust } else { &mut c }.turn(&events, EVENTS));
        group.bench_function("Rust", |b| b.iter(|| rust.turn(black_box(&events), EVENTS)));
        group.bench_function("C", |b| b.iter(|| c.turn(black_box(&events), EVENTS)));
    }
}

/// Prints the minimum of many turns of each language, which alternate. On a busy machine, the noise in criterion's
/// estimates is larger than the difference.
fn print_difference(name: &str, mut turn: impl FnMut(usize)) {
    let mut least = [Duration::MAX; 2];
    for nth in 0..2 * TURNS {
        let began = Instant::now();
        turn(nth % 2);
        least[nth % 2] = least[nth % 2].min(began.elapsed());
    }
    let [rust, c] = least.map(|time| time.as_nanos() as f64 / EVENTS as f64);
    println!("{name}: Rust {rust:.0} ns, C {c:.0} ns (the least of {TURNS} turns each)");
}

/// The application of `benches/apps/bench.c` in Rust.
struct Bench;

impl Application for Bench {
    fn name(&self) -> &str {
        "bench"
    }

    fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
        let room = Path::parse("/bench/room").expect("a path that is part of the program is clean");
        registrar.event("/bench/room").register()?;
        registrar.event("/bench/nothing").handler(|_, _| Answer::ok()).register()?;
        registrar
            .event("/bench/broadcast")
            .handler(move |cx, event| {
                cx.broadcast(&room, event.data);
                Answer::ok()
            })
            .register()
    }
}

fn load_c_application() -> Arc<dyn Application> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let object = std::env::temp_dir().join(format!("quickio-bench-{}.so", std::process::id()));
    let compiled = Command::new("cc")
        .args(["-std=c99", "-O2", "-shared", "-fPIC", "-I"])
        .arg(root.join("src/app/c"))
        .arg("-o")
        .args([&object, &root.join("benches/apps/bench.c")])
        .status();
    assert!(compiled.is_ok_and(|status| status.success()), "the C compiler compiles the application");
    let app = c::load(&object, &c::Settings::new()).unwrap_or_else(|error| panic!("{error}"));
    std::fs::remove_file(object).expect("the shared object can be removed");
    app
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = handlers
}
criterion_main!(benches);
