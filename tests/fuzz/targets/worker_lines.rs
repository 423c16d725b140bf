//! The lines of a worker on its control socket, and what it prints.

#![no_main]

use quickio::app::worker::fuzzing::{LineSplitter, WorkerMessage, parse_control_line};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(Some(WorkerMessage::Ready(manifest))) = parse_control_line(input) {
        assert_eq!(manifest.check(), Ok(()), "a manifest is checked when it is parsed");
    }
    let lines = |size: usize| {
        let (mut splitter, mut lines) = (LineSplitter::default(), Vec::new());
        input.chunks(size).for_each(|piece| splitter.push(piece, |line| lines.push(line.to_owned())));
        splitter.finish(|line| lines.push(line.to_owned()));
        lines
    };
    assert_eq!(lines(1), lines(input.len().max(1)), "the lines must not depend on the pieces");
});
