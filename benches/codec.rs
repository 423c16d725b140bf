//! Benchmarks of the codecs against naive twins: `cargo bench --bench codec`.
//!
//! Keys and texts are such that masking a text twice gives valid text again. The same buffer is decoded repeatedly,
//! without a copy that would be measured too.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quickio::protocol::http::HttpDate;
use quickio::protocol::http::HttpResponse;
use quickio::protocol::websocket::decoder::{ClientMessage, Decoder, Rules};
use quickio::protocol::websocket::encode;
use quickio::protocol::websocket::frame::Opcode;
use quickio::protocol::websocket::mask::unmask;
use quickio::protocol::{
    Codec, CodecSettings, Compression, Framing, Incoming, OHAI, Options, Origins, TrustedProxies,
    Utf8Gatherer, WantedHeaders, frame,
};

const KEY: [u8; 4] = [0x11, 0x02, 0x14, 0x08];

const SETTINGS: CodecSettings = CodecSettings {
    message_bytes_max: 1 << 20,
    http_head_bytes_max: 16_384,
    origins: Origins::Any,
    proxies: TrustedProxies::NONE,
    compression: Compression::OFF,
    wanted: WantedHeaders::NONE,
    date: HttpDate::EPOCH,
};

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: quickio.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
    Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nOrigin: http://example\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: keep-alive, Upgrade\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: quickio\r\n\r\n";

const POLL: &[u8] =
    b"POST /?sid=0123456789abcdef0123456789abcdef&seq=7 HTTP/1.1\r\nHost: quickio.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: */*\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: 16\r\n\
    Origin: http://example\r\nConnection: keep-alive\r\nReferer: http://example/\r\n\r\n/qio/ping:1=null";

criterion_main!(benches);

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = decode, decode_in_pieces, encode_frames, unmask_payloads, check_utf8, shake_hands, polls
}

/// A complete masked text frame in the receive buffer of an open connection, which is the usual form of an event.
fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for len in [16, 32, 125, 1024, 16 * 1024] {
        let mut input = client_frame(len);
        let mut codec = open_codec();
        measure(&mut group, "session", len, || match codec.decode(&mut input, &SETTINGS).incoming {
            Incoming::Event(text) => text.len(),
            _ => unreachable!("a whole text frame is an event"),
        });
        let mut decoder = Decoder::default();
        let rules = Rules { message_bytes_max: 1 << 20, binary: false, compression: None };
        measure(&mut group, "decoder", len, || match decoder.decode(&mut input, rules) {
            Ok(decoded) => match decoded.message {
                Some(ClientMessage::Text(text)) => text.len(),
                _ => unreachable!("a whole text frame is a message"),
            },
            Err(violation) => unreachable!("{violation:?}"),
        });
        measure(&mut group, "naive", len, || naive_decode(&input).len());
    }
}

/// A frame larger than a receive buffer of 4 KiB.
fn decode_in_pieces(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode in pieces of 4 KiB");
    for len in [16 * 1024, 256 * 1024] {
        let mut input = client_frame(len);
        let mut codec = open_codec();
        measure(&mut group, "session", len, || {
            let mut found = 0;
            for piece in input.chunks_mut(4096) {
                if let Incoming::Event(text) = codec.decode(piece, &SETTINGS).incoming {
                    found += text.len();
                }
            }
            found
        });
        measure(&mut group, "naive", len, || {
            let mut gathered = Vec::new();
            input.chunks(4096).for_each(|piece| gathered.extend_from_slice(piece));
            naive_decode(&gathered).len()
        });
    }
}

fn encode_frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for len in [32, 1024] {
        let text = "x".repeat(len);
        let mut out = Vec::with_capacity(2048);
        for framing in [Framing::WebSocket, Framing::Raw] {
            measure(&mut group, &format!("{framing:?}"), len, || {
                out.clear();
                frame(framing, &mut out, black_box(&text));
                out.len()
            });
        }
        measure(&mut group, "naive", len, || {
            out.clear();
            naive_encode(&mut out, black_box(&text));
            out.len()
        });
    }
}

fn unmask_payloads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for len in [8, 32, 125, 1024, 64 * 1024] {
        let mut payload = vec![0x55; len + 1];
        measure(&mut group, "words", len, || unmask(&mut payload[..len], black_box(KEY), 0));
        measure(&mut group, "words, misaligned", len, || unmask(&mut payload[1..], black_box(KEY), 3));
        measure(&mut group, "naive", len, || naive_unmask(&mut payload[..len], black_box(KEY)));
    }
}

fn check_utf8(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("utf8 in pieces of 4 KiB");
    for (name, character) in [("ascii", "x"), ("two bytes", "ü"), ("three bytes", "€")] {
        let text = character.repeat(64 * 1024 / character.len());
        measure(&mut group, &format!("gatherer, {name}"), text.len(), || {
            let mut gatherer = Utf8Gatherer::default();
            let valid = text.as_bytes().chunks(4096).all(|piece| gatherer.push(piece).is_ok());
            (valid, gatherer.len())
        });
        measure(&mut group, &format!("naive, {name}"), text.len(), || {
            let mut gathered = Vec::new();
            text.as_bytes().chunks(4096).for_each(|piece| gathered.extend_from_slice(piece));
            (naive_is_utf8(&gathered), gathered.len())
        });
    }
}

fn shake_hands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake");
    // Requests are not modified in place.
    let mut input = UPGRADE.to_vec();
    let mut decode = |size: usize| {
        let mut codec = Codec::new(Options::default());
        input.chunks_mut(size).map(|piece| codec.decode(piece, &SETTINGS).consumed).sum::<usize>()
    };
    measure(&mut group, "in one piece", UPGRADE.len(), || decode(UPGRADE.len()));
    measure(&mut group, "byte by byte", UPGRADE.len(), || decode(1));
}

/// A poll and its response, on a connection that persists.
fn polls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("poll");
    let mut input = POLL.to_vec();
    let mut codec = Codec::new(Options::default());
    let mut answer = |size: usize| {
        let mut sent = 0;
        for piece in input.chunks_mut(size) {
            let number = match codec.decode(piece, &SETTINGS).incoming {
                Incoming::Request(request) => request.number,
                _ => continue,
            };
            let response =
                HttpResponse::Whole { status: 200, headers: "", body: b"/qio/callback/1:0={\"code\":200}\n" };
            sent += codec.respond(number, response, &SETTINGS).bytes.len();
        }
        sent
    };
    measure(&mut group, "in one piece", POLL.len(), || answer(POLL.len()));
    measure(&mut group, "byte by byte", POLL.len(), || answer(1));
}

fn measure<T>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, len: usize, mut run: impl FnMut() -> T) {
    group.throughput(Throughput::Bytes(len as u64));
    group.bench_function(BenchmarkId::new(name, len), |bencher| bencher.iter(|| black_box(run())));
}

fn client_frame(len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::client_frame(&mut bytes, Opcode::Text, &vec![b'x'; len], KEY);
    bytes
}

fn open_codec() -> Codec {
    let mut codec = Codec::new(Options::default());
    codec.decode(&mut UPGRADE.to_vec(), &SETTINGS);
    let mut ohai = Vec::new();
    encode::client_frame(&mut ohai, Opcode::Text, OHAI.as_bytes(), KEY);
    codec.decode(&mut ohai, &SETTINGS);
    assert!(codec.is_open());
    codec
}

/// Decodes byte by byte, into a new string.
fn naive_decode(frame: &[u8]) -> String {
    let (len, at) = match frame[1] & 0x7F {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (frame[2..10].iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), 10),
        len => (usize::from(len), 2),
    };
    let mut text = Vec::new();
    for i in 0..len {
        text.push(frame[at + 4 + i] ^ frame[at + i % 4]);
    }
    assert!(naive_is_utf8(&text));
    String::from_utf8(text).expect("checked above")
}

fn naive_encode(out: &mut Vec<u8>, text: &str) {
    out.push(0x81);
    if text.len() < 126 {
        out.push(text.len() as u8);
    } else {
        out.push(126);
        out.push((text.len() >> 8) as u8);
        out.push(text.len() as u8);
    }
    for byte in text.bytes() {
        out.push(byte);
    }
}

#[inline(never)]
fn naive_unmask(payload: &mut [u8], key: [u8; 4]) {
    for (i, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[i % 4];
    }
}

/// Validates one byte at a time. Keeps the number of continuation bytes that are due, and the range of the next one.
fn naive_is_utf8(bytes: &[u8]) -> bool {
    let (mut due, mut low, mut high) = (0, 0x80, 0xBF);
    for byte in bytes {
        if due > 0 {
            if *byte < low || *byte > high {
                return false;
            }
            (due, low, high) = (due - 1, 0x80, 0xBF);
            continue;
        }
        (due, low, high) = match byte {
            0x00..=0x7F => (0, 0x80, 0xBF),
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xE1..=0xEF => (2, 0x80, 0xBF),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            _ => return false,
        };
    }
    due == 0
}
