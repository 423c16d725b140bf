//! The raw protocol, and the bytes by which protocols are told apart.

#![no_main]

mod connection;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    connection::check(b"/qio/ohai", input);
    connection::check(b"", input);
});
