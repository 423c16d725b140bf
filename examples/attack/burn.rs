//! Threads that only use CPU time. Honest clients beside an attack are compared with honest clients beside them, because
//! the attacker, the clients and the server share the cores.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// The name by which this is run.
pub const NAME: &str = "burn";

/// The period in which each thread works and rests once.
const PERIOD: Duration = Duration::from_millis(10);

/// Uses `cpu_seconds` of CPU time, evenly over `seconds`.
pub fn run(cpu_seconds: f64, seconds: f64, deadline: Instant) {
    let cores = cpu_seconds / seconds.max(0.001);
    let threads = cores.ceil().max(1.0);
    let work = PERIOD.mul_f64((cores / threads).min(1.0));
    thread::scope(|scope| {
        for _ in 0..threads as usize {
            scope.spawn(move || burn(work, deadline));
        }
    });
}

fn burn(work: Duration, deadline: Instant) {
    let mut begin = Instant::now();
    while begin < deadline {
        while begin.elapsed() < work {
            black_box((0..1000_u64).sum::<u64>());
        }
        begin += PERIOD;
        thread::sleep(begin.saturating_duration_since(Instant::now()));
    }
}
