//! The message of a panic as a line of the log.
//!
//! The standard hook writes to standard error at once. An application that panics for an event of a client could
//! therefore write without bound, and block its shard while nobody reads the output.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

use super::throttle::throttle;

/// The message of the standard library for a panic that ends the process.
const ABORTS: &str = "panic in a function that cannot unwind";

/// Logs panics from now on. A panic that ends the process, which the log may not survive, is also written to standard
/// error at once.
pub(super) fn log_panics() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if message_of(info).starts_with(ABORTS) {
            before(info);
        }
        log(info);
    }));
}

fn log(info: &PanicHookInfo<'_>) {
    let message = message_of(info);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    // Captured only if RUST_BACKTRACE asks for it and the line is logged: it takes milliseconds.
    let backtrace = || {
        let backtrace = Backtrace::capture();
        match backtrace.status() {
            BacktraceStatus::Captured => format!("\n{backtrace}"),
            _ => String::new(),
        }
    };
    throttle!(error, "panic", thread, location, "panicked: {message}{}", backtrace());
}

fn message_of<'a>(info: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a value that is not a text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::panic::catch_unwind;
    use std::sync::{Arc, Mutex};
    use tracing::subscriber::with_default;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The hook belongs to the whole process. Other tests keep theirs.
    #[test]
    fn a_panic_is_one_line_and_a_flood_of_them_is_counted() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let own = std::thread::current().id();
        let before = panic::take_hook();
        panic::set_hook(Box::new(
            move |info| {
                if std::thread::current().id() == own { log(info) } else { before(info) }
            },
        ));
        let suppressed = super::super::throttle::suppressed_lines();
        with_default(subscriber, || {
            for n in 0..100 {
                assert!(catch_unwind(|| panic!("number {n}")).is_err());
                assert!(catch_unwind(|| panic!("a text")).is_err());
            }
        });
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("ERROR quickio::log::panics: panicked: number 0"), "{text}");
        assert!(text.contains(&format!("location=\"{}:", file!())), "{text}");
        // On a slow machine there may be more than one window.
        let lines = text.matches("panicked: ").count() as u64;
        let suppressed = super::super::throttle::suppressed_lines() - suppressed;
        assert!(lines < 100 && suppressed + lines >= 200, "{lines} lines, {suppressed} suppressed");
    }
}
