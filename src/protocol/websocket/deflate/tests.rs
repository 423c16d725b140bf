//! Tests of the transformation against flate2 as the other side.

use proptest::prelude::*;

use super::*;
use crate::protocol::websocket::frame::COMPRESSED;

const BOUNDS: CompressionBounds = CompressionBounds { broadcast_bytes_min: 256, single_bytes_min: 1024 };

/// Compresses a payload as a client does: with a flush, and without the tail.
pub fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut bytes = stream(payload, FlushCompress::Sync, 6);
    bytes.truncate(bytes.len() - TAIL.len());
    bytes
}

fn stream(payload: &[u8], flush: FlushCompress, level: u32) -> Vec<u8> {
    let mut deflater = Compress::new(flate2::Compression::new(level), false);
    let mut bytes = Vec::with_capacity(payload.len() + payload.len() / 100 + 100);
    deflater.compress_vec(payload, &mut bytes, flush).expect("the state is good");
    assert!(bytes.len() < bytes.capacity(), "the room is enough");
    bytes
}

/// Inflates a frame of the server as a client does that has a window of this size.
fn opened(frame: &[u8]) -> Vec<u8> {
    let payload = encode::payload(frame);
    if frame[0] & COMPRESSED == 0 {
        return payload.to_vec();
    }
    let mut message = Vec::with_capacity(4 << 20);
    let mut inflater = Decompress::new(false);
    let whole = [payload, &TAIL].concat();
    inflater.decompress_vec(&whole, &mut message, FlushDecompress::Sync).expect("the payload is valid");
    assert_eq!(inflater.total_in(), whole.len() as u64);
    message
}

fn on() -> Compression {
    Compression::new(BOUNDS)
}

fn plain_frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::frame(&mut bytes, Opcode::Text, payload);
    bytes
}

/// JSON as applications send it.
fn json(len: usize) -> Vec<u8> {
    let rows =
        (0..).map(|i| format!(r#"{{"id":{i},"user":"user-{}","price":{}.5}},"#, i * 7919 % 1000, i * 31));
    rows.flat_map(String::into_bytes).take(len).collect()
}

/// Bytes that cannot be compressed.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn the_examples_of_the_rfc() {
    let compression = on();
    for payload in [
        // 7.2.3.1: one block; 7.2.3.2: the same message with the window of the first is not for us.
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        // 7.2.3.3: a block without compression.
        &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
        // 7.2.3.4: a block with BFINAL.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // The same without the octet behind it.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
        // 7.2.3.5: two blocks.
        &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
    ] {
        assert_eq!(compression.inflate(payload, 5).as_deref(), Ok(&b"Hello"[..]), "{payload:x?}");
        assert_eq!(compression.inflate(payload, 4), Err(Violation::MessageTooLong), "{payload:x?}");
    }
    // 7.2.3.6: an empty message.
    assert_eq!(compression.inflate(&[0x00], 0).as_deref(), Ok(&b""[..]));
    assert_eq!(compression.inflate(&[0x02, 0x00], 0).as_deref(), Ok(&b""[..]));
}

#[test]
fn streams_follow_one_another() {
    let compression = on();
    let parts = [json(3000), b"second".to_vec(), Vec::new(), json(500)];
    let streams: Vec<Vec<u8>> = parts.iter().map(|part| stream(part, FlushCompress::Finish, 9)).collect();
    let whole = parts.concat();
    assert_eq!(compression.inflate(&streams.concat(), 1 << 16).as_ref(), Ok(&whole));
    let padded = [streams.concat(), vec![0]].concat();
    assert_eq!(compression.inflate(&padded, 1 << 16).as_ref(), Ok(&whole));
    assert_eq!(compression.inflate(&padded, whole.len()).as_ref(), Ok(&whole));
    assert_eq!(compression.inflate(&padded, whole.len() - 1), Err(Violation::MessageTooLong));
    // Streams without content are work too.
    compression.take_inflated();
    let empty = stream(b"", FlushCompress::Finish, 1).repeat(1000);
    assert_eq!(compression.inflate(&empty, 0).as_deref(), Ok(&b""[..]));
    assert_eq!(compression.take_inflated(), 1000 * STREAM_COST_BYTES);
}

#[test]
fn data_that_cannot_be_inflated() {
    let compression = on();
    for payload in [
        // A reserved type of block.
        &[0x06][..],
        &[0xFF; 20],
        // A block without compression whose lengths differ.
        &[0x00, 0x05, 0x00, 0x00, 0x00, 0x48],
        // A distance beyond the beginning of the message.
        &[0x4b, 0x04, 0x62, 0x00],
    ] {
        assert_eq!(compression.inflate(payload, 1 << 16), Err(Violation::Deflate), "{payload:x?}");
    }
}

/// No message can refer to what another connection has sent.
#[test]
fn a_message_does_not_see_the_one_before_it() {
    let compression = on();
    let mut deflater = Compress::new(flate2::Compression::best(), false);
    let secret = json(2000);
    let mut both = Vec::new();
    for _ in 0..2 {
        let mut bytes = Vec::with_capacity(4000);
        deflater.compress_vec(&secret, &mut bytes, FlushCompress::Sync).unwrap();
        both.push(bytes[..bytes.len() - TAIL.len()].to_vec());
    }
    assert_eq!(compression.inflate(&both[0], 4000).as_ref(), Ok(&secret));
    assert!(both[1].len() < 40, "the second message refers to the first: {} bytes", both[1].len());
    assert_eq!(compression.inflate(&both[1], 4000), Err(Violation::Deflate));
    assert_eq!(compression.inflate(&both[0], 4000).as_ref(), Ok(&secret), "an error leaves nothing behind");
}

#[test]
fn a_bomb_gets_no_more_memory_than_a_message_may_have() {
    let compression = on();
    let bomb = deflated(&vec![b'x'; 8 << 20]);
    assert!(bomb.len() < 10_000, "{}", bomb.len());
    let mut work = 0;
    let mut inflater = Decompress::new(false);
    for bytes_max in [0, 1, 511, 512, 513, 65_536, 100_000] {
        let inflation = Inflation { inflater: &mut inflater, out: Vec::new(), bytes_max, work: &mut work };
        let mut inflation = inflation;
        inflation.inflater.reset(false);
        assert_eq!(inflation.feed(&bomb), Err(Violation::MessageTooLong));
        assert!(inflation.out.capacity() <= bytes_max, "{} for {bytes_max}", inflation.out.capacity());
        assert_eq!(compression.inflate(&bomb, bytes_max), Err(Violation::MessageTooLong));
    }
    assert_eq!(compression.counts().bombs, 7);
    assert_eq!(compression.counts().inflated, 0);
    assert!(compression.take_inflated() > 65_536, "refused messages are work too");
}

#[test]
fn messages_within_the_bounds_are_compressed() {
    let compression = on();
    for (len, single, broadcast) in [
        (255, false, false),
        (256, false, true),
        (1023, false, true),
        (1024, true, true),
        (100_000, true, true),
    ] {
        let frame = plain_frame(&json(len));
        let sent = compression.shrink_single(WindowBits::Fifteen, frame.clone());
        assert_eq!(sent[0], if single { 0xC1 } else { 0x81 }, "{len}");
        assert_eq!(sent.len() < frame.len(), single);
        assert_eq!(sent.capacity(), sent.len(), "frames are counted by their memory");
        assert_eq!(opened(&sent), json(len));
        let sent = compression.shrink_broadcast(&frame);
        assert_eq!(sent.is_some(), broadcast, "{len}");
        assert!(sent.is_none_or(|sent| opened(&sent) == json(len)));
    }
    let counts = compression.counts();
    assert_eq!((counts.compressed, counts.incompressible, counts.skipped), (6, 0, 0));
    assert_eq!(counts.bytes_before, 256 + 1023 + 2 * 1024 + 200_000);
    assert!(counts.bytes_after < counts.bytes_before * 6 / 10, "{counts:?}");
}

#[test]
fn what_does_not_shrink_by_a_tenth_is_sent_as_it_is() {
    let compression = on();
    let noisy = plain_frame(&noise(5000));
    assert_eq!(compression.shrink_single(WindowBits::Fifteen, noisy.clone()), noisy);
    assert_eq!(compression.counts().incompressible, 1);
    // From nothing but noise to nothing but repetition: whatever is sent is shorter by a tenth or plain.
    for repeated in (0..5000).step_by(100) {
        let payload = [noise(5000 - repeated), vec![b'x'; repeated]].concat();
        compression.begin_turn();
        let sent = compression.shrink_single(WindowBits::Fifteen, plain_frame(&payload));
        assert_eq!(opened(&sent), payload);
        assert!(sent[0] == 0x81 || encode::payload(&sent).len() <= 4500, "{repeated}");
    }
}

/// Messages that become longer leave nothing behind in the deflater.
#[test]
fn long_messages_that_do_not_shrink_are_harmless() {
    let compression = on();
    for round in 0..20 {
        for len in [5000, 8192, 16_384, 70_000, 131_072, 300_000] {
            for payload in [noise(len + round), json(len)] {
                compression.begin_turn();
                let sent = compression.shrink_single(WindowBits::Fifteen, plain_frame(&payload));
                assert_eq!(opened(&sent), payload, "{len} in round {round}");
                assert!(
                    compression.0.as_ref().unwrap().engines.borrow().deflater.is_some(),
                    "its room was enough"
                );
            }
        }
    }
}

#[test]
fn a_message_that_is_longer_than_the_window_is_sent_as_it_is() {
    let compression = Compression::new(CompressionBounds { broadcast_bytes_min: 1, single_bytes_min: 1 });
    for (bits, len) in [(WindowBits::Eight, 256), (WindowBits::Nine, 512), (WindowBits::Fourteen, 16_384)] {
        let payload = vec![b'x'; len];
        assert_eq!(compression.shrink_single(bits, plain_frame(&payload))[0], 0xC1);
        let longer = plain_frame(&vec![b'x'; len + 1]);
        assert_eq!(compression.shrink_single(bits, longer.clone()), longer);
    }
    assert_eq!(compression.shrink_single(WindowBits::Fifteen, plain_frame(&vec![b'x'; 70_000]))[0], 0xC1);
}

#[test]
fn a_turn_compresses_a_bounded_number_of_bytes() {
    let compression = on();
    let frame = plain_frame(&vec![b'x'; 400_000]);
    let compressed =
        |compression: &Compression| (0..4).filter(|_| compression.shrink_broadcast(&frame).is_some()).count();
    assert_eq!(compressed(&compression), 2);
    assert_eq!(compression.counts().skipped, 2);
    compression.begin_turn();
    assert_eq!(compressed(&compression), 2);
    compression.begin_turn();
    let large = plain_frame(&vec![b'x'; DEFLATED_BYTES_PER_TURN_MAX + 1]);
    assert!(compression.shrink_broadcast(&large).is_none());
    let scratch = compression.0.as_ref().unwrap().engines.borrow().scratch.capacity();
    assert!(scratch <= SCRATCH_KEPT_BYTES, "{scratch}");
}

#[test]
fn compression_that_is_off_does_nothing() {
    let frame = plain_frame(&json(5000));
    assert_eq!(Compression::OFF.shrink_single(WindowBits::Fifteen, frame.clone()), frame);
    assert_eq!(Compression::OFF.shrink_broadcast(&frame), None);
    assert_eq!(Compression::OFF.counts(), CompressionCounts::default());
    assert!(!Compression::OFF.is_on());
    assert_eq!(size_of::<Compression>(), 8);
}

/// Texts with repetitions, and noise.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        (any::<u8>(), 0..3000_usize).prop_map(|(byte, len)| vec![byte; len]),
        (0..3000_usize).prop_map(json),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn clients_inflate_what_is_sent(payload in payload(), bits in 0..8_usize) {
        let compression = Compression::new(CompressionBounds { broadcast_bytes_min: 1, single_bytes_min: 1 });
        let bits = [
            WindowBits::Eight, WindowBits::Nine, WindowBits::Ten, WindowBits::Eleven, WindowBits::Twelve,
            WindowBits::Thirteen, WindowBits::Fourteen, WindowBits::Fifteen,
        ][bits];
        // What was compressed before does not matter.
        compression.shrink_broadcast(&plain_frame(&json(1000)));
        let sent = compression.shrink_single(bits, plain_frame(&payload));
        prop_assert_eq!(&opened(&sent), &payload);
        prop_assert!(sent[0] == 0x81 || payload.len() <= bits.message_bytes_max());
    }

    #[test]
    fn what_clients_send_is_inflated(payload in payload(), level in 0..10_u32, room in 0..3_usize) {
        let compression = on();
        let mut sent = stream(&payload, FlushCompress::Sync, level);
        sent.truncate(sent.len() - TAIL.len());
        prop_assert_eq!(compression.inflate(&sent, payload.len() + room), Ok(payload.clone()));
        prop_assert_eq!(compression.counts().inflated_bytes, payload.len() as u64);
        if !payload.is_empty() {
            prop_assert_eq!(compression.inflate(&sent, payload.len() - 1), Err(Violation::MessageTooLong));
        }
    }

    /// Damaged data ends in an error, or in a message within the limit.
    #[test]
    fn damaged_data_is_harmless(payload in payload(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let compression = on();
        let mut sent = deflated(&payload);
        let index = at.index(sent.len());
        sent[index] = byte;
        sent.truncate(cut.index(sent.len() + 1));
        if let Ok(message) = compression.inflate(&sent, 1000) {
            prop_assert!(message.len() <= 1000 && message.capacity() <= 1000);
        }
        prop_assert_eq!(compression.inflate(&deflated(&payload), 1 << 20), Ok(payload));
    }
}
