//! Requests on an HTTP connection.

#![no_main]

mod connection;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    connection::check(b"", input);
    connection::check(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", input);
    connection::check(b"POST /?sid=0123456789abcdef0123456789abcdef HTTP/1.1\r\nHost: a\r\n", input);
});
