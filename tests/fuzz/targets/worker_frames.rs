//! The frames of a worker on its link.

#![no_main]

use quickio::app::worker::fuzzing::{HEADER_BYTES, decode};
use quickio::limits::WORKER_FRAME_BYTES_MAX;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Ok(Some((frame, bytes))) = decode(rest) {
        assert_eq!(bytes, HEADER_BYTES + frame.text.len() + frame.data.len());
        assert!(bytes <= WORKER_FRAME_BYTES_MAX + 4 && bytes <= rest.len());
        // No part of the frame is enough, and what follows it does not matter.
        for cut in [bytes - 1, bytes / 2, HEADER_BYTES.min(bytes - 1), HEADER_BYTES - 1] {
            assert_eq!(decode(&rest[..cut]), Ok(None), "the first {cut} bytes");
        }
        assert_eq!(decode(&rest[..bytes]), Ok(Some((frame, bytes))));
        rest = &rest[bytes..];
    }
});
