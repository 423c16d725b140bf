//! Tests of the decoder against its naive twin: table cases at every split, and random streams in random pieces.

use proptest::prelude::*;

use super::naive::{Naive, Owned};
use super::*;
use crate::protocol::CompressionBounds;
use crate::protocol::testing::{self, Random};
use crate::protocol::websocket::encode;

const RULES: Rules<'_> = Rules { message_bytes_max: 1 << 17, binary: true, compression: None };

/// The messages of a stream, each with the position of its end. The last may be a violation.
type Outcomes = Vec<(usize, Result<Owned, Violation>)>;

/// Returns a frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode::client_frame(&mut bytes, Opcode::Text, payload, [0x37, 0xFA, 0x21, 0x3D]);
    bytes[0] = first;
    bytes
}

fn owned(message: ClientMessage<'_>) -> Owned {
    match message {
        ClientMessage::Text(text) => (1, text.into()),
        ClientMessage::Binary(bytes) => (2, bytes.into()),
        ClientMessage::Close(None) => (8, Vec::new()),
        ClientMessage::Close(Some((code, reason))) => (8, [&code.to_be_bytes(), reason.as_bytes()].concat()),
        ClientMessage::Ping(payload) => (9, payload.into()),
        ClientMessage::Pong(payload) => (10, payload.into()),
    }
}

/// Returns the outcomes of the naive twin, and whether the stream ends between messages.
fn naive(stream: &[u8], rules: Rules<'_>) -> (Outcomes, bool) {
    let mut naive = Naive::default();
    let mut outcome = Outcomes::new();
    for (at, byte) in stream.iter().enumerate() {
        match naive.byte(*byte, rules).transpose() {
            Some(Err(violation)) => {
                outcome.push((at + 1, Err(violation)));
                return (outcome, false);
            }
            Some(message) => outcome.push((at + 1, message)),
            None => {}
        }
    }
    (outcome, naive.is_idle())
}

/// Returns the outcomes of the decoder, and whether it is idle. A violation has the position at which its piece ends.
fn decoded(pieces: &[&[u8]], rules: Rules<'_>) -> (Outcomes, bool) {
    let mut decoder = Decoder::default();
    let mut outcome = Outcomes::new();
    let mut before = 0;
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut at = 0;
        loop {
            match decoder.decode(&mut input[at..], rules) {
                Ok(DecodedMessage { consumed, message: None }) => {
                    assert_eq!(at + consumed, piece.len(), "all input is consumed if no message is complete");
                    break;
                }
                Ok(DecodedMessage { consumed, message: Some(message) }) => {
                    at += consumed;
                    outcome.push((before + at, Ok(owned(message))));
                }
                Err(violation) => {
                    outcome.push((before + piece.len(), Err(violation)));
                    return (outcome, false);
                }
            }
        }
        before += piece.len();
        assert_eq!(decoder.is_idle(), decoder.partial.is_none(), "a delivered message is freed");
    }
    (outcome, decoder.is_idle())
}

/// Returns the outcomes without the position of a violation, which depends on the pieces.
fn without_positions((mut outcome, idle): (Outcomes, bool)) -> (Outcomes, bool) {
    if let Some((at, Err(_))) = outcome.last_mut() {
        *at = 0;
    }
    (outcome, idle)
}

/// Asserts that the decoder behaves like its twin. When bytes come one by one, it must fail at the same byte.
fn check_pieces(stream: &[u8], rules: Rules<'_>, pieces: &[&[u8]]) {
    let expected = naive(stream, rules);
    assert_eq!(decoded(&stream.chunks(1).collect::<Vec<_>>(), rules), expected, "byte by byte");
    assert_eq!(without_positions(decoded(pieces, rules)), without_positions(expected.clone()), "in pieces");
    assert_eq!(without_positions(decoded(&[stream], rules)), without_positions(expected), "in one piece");
}

fn check_every_split(stream: &[u8], rules: Rules<'_>) {
    check_pieces(stream, rules, &[stream]);
    let expected = without_positions(naive(stream, rules));
    for split in 0..=stream.len() {
        let (left, right) = stream.split_at(split);
        assert_eq!(without_positions(decoded(&[left, right], rules)), expected, "split at {split}");
    }
}

/// Returns the only outcome of these frames, which must be the same at every split.
fn only(frames: &[Vec<u8>]) -> Result<Owned, Violation> {
    let stream = frames.concat();
    check_every_split(&stream, RULES);
    let (outcome, _) = naive(&stream, RULES);
    let [(_, found)] = &outcome[..] else { panic!("there must be one outcome: {outcome:?}") };
    found.clone()
}

#[test]
fn an_idle_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 16);
    assert!(size_of::<PartialMessage>() <= 136, "{}", size_of::<PartialMessage>());
}

#[test]
fn messages_in_one_frame() {
    for len in [0, 1, 7, 8, 9, 125, 126, 127, 300] {
        assert_eq!(only(&[frame(0x81, &vec![b'x'; len])]), Ok((1, vec![b'x'; len])));
        assert_eq!(only(&[frame(0x82, &vec![0xFF; len])]), Ok((2, vec![0xFF; len])));
    }
}

#[test]
fn long_messages() {
    for len in [65535, 65536, 100_000] {
        let stream = frame(0x81, &"€".repeat(len / 3).into_bytes());
        let expected = (vec![(stream.len(), Ok((1, "€".repeat(len / 3).into_bytes())))], true);
        for size in [1000, 4096, 16384, 65536, stream.len()] {
            assert_eq!(decoded(&stream.chunks(size).collect::<Vec<_>>(), RULES), expected);
        }
    }
}

#[test]
fn fragments() {
    assert_eq!(only(&[frame(0x01, b"a"), frame(0x00, b"b"), frame(0x80, b"c")]), Ok((1, b"abc".into())));
    assert_eq!(only(&[frame(0x02, b""), frame(0x00, b""), frame(0x80, b"")]), Ok((2, b"".into())));
    assert_eq!(
        only(&[frame(0x01, b"\xE2"), frame(0x00, b"\x82"), frame(0x80, b"\xAC")]),
        Ok((1, "€".into()))
    );
}

#[test]
fn control_frames_between_fragments() {
    let stream =
        [frame(0x01, b"a\xE2\x82"), frame(0x89, b"1"), frame(0x00, b""), frame(0x8A, b""), frame(0x89, b"2")];
    let stream = [&stream.concat()[..], &frame(0x80, b"\xAC"), &frame(0x81, b"next")].concat();
    check_every_split(&stream, RULES);
    let (outcome, idle) = naive(&stream, RULES);
    let found: Vec<_> = outcome.into_iter().map(|(_, found)| found.expect("there is no violation")).collect();
    let expected = [(9, "1"), (10, ""), (9, "2"), (1, "a€"), (1, "next")];
    assert_eq!(found, expected.map(|(opcode, payload)| (opcode, payload.into())));
    assert!(idle);
}

#[test]
fn closes() {
    assert_eq!(only(&[frame(0x88, b"")]), Ok((8, b"".into())));
    assert_eq!(only(&[frame(0x88, b"\x03\xE8bye")]), Ok((8, b"\x03\xE8bye".into())));
    assert_eq!(only(&[frame(0x88, b"\x03")]), Err(Violation::CloseTooShort));
    assert_eq!(only(&[frame(0x88, b"\x03\xED")]), Err(Violation::CloseCode));
    assert_eq!(only(&[frame(0x88, b"\x03\xE8\xCE")]), Err(Violation::InvalidUtf8));
}

#[test]
fn violations() {
    let unmasked = vec![0x81, 0x01, b'x'];
    for (frames, violation) in [
        (vec![frame(0xC1, b"")], Violation::ReservedBits),
        (vec![frame(0x83, b"")], Violation::ReservedOpcode),
        (vec![frame(0x8B, b"")], Violation::ReservedOpcode),
        (vec![unmasked], Violation::Unmasked),
        (vec![frame(0x09, b"")], Violation::ControlFragmented),
        (vec![frame(0x89, &[0; 126])], Violation::ControlTooLong),
        (vec![frame(0x80, b"")], Violation::UnexpectedContinuation),
        (vec![frame(0x00, b"x")], Violation::UnexpectedContinuation),
        (vec![frame(0x01, b"a"), frame(0x81, b"b")], Violation::ExpectedContinuation),
        (vec![frame(0x01, b"a"), frame(0x02, b"b")], Violation::ExpectedContinuation),
        (vec![frame(0x81, b"\xC3")], Violation::InvalidUtf8),
        (vec![frame(0x01, b"\xC3"), frame(0x80, b"")], Violation::InvalidUtf8),
        (vec![frame(0x01, b"\xC3"), frame(0x80, b"a")], Violation::InvalidUtf8),
    ] {
        assert_eq!(only(&frames), Err(violation), "{frames:X?}");
    }
}

#[test]
fn invalid_text_fails_before_the_frame_or_the_message_is_complete() {
    // Autobahn 6.4: the octet behind F4 must not be 90.
    let text = b"\xCE\xBA\xE1\xBD\xB9\xF4\x90\x80\x80edited";
    let stream = frame(0x81, text);
    let (outcome, _) = decoded(&stream.chunks(1).collect::<Vec<_>>(), RULES);
    assert_eq!(outcome, [(6 + 7, Err(Violation::InvalidUtf8))]);
    let (outcome, _) = decoded(&[&frame(0x01, &text[..6]), &frame(0x00, &text[6..7])], RULES);
    assert_eq!(outcome, [(12 + 7, Err(Violation::InvalidUtf8))]);
}

#[test]
fn limits_hold_when_a_length_is_read() {
    let rules = Rules { message_bytes_max: 10, binary: false, compression: None };
    let at_limit = frame(0x81, b"0123456789");
    let over = frame(0x81, b"0123456789x");
    check_every_split(&[&at_limit[..], &at_limit, &over].concat(), rules);
    assert_eq!(decoded(&[&over[..6]], rules).0, [(6, Err(Violation::MessageTooLong))]);
    let fragments =
        [frame(0x01, b"01234"), frame(0x89, &[0; 100]), frame(0x00, b"56789"), frame(0x80, b"x")].concat();
    check_every_split(&fragments, rules);
    let (outcome, _) = naive(&fragments, rules);
    assert_eq!(outcome[1..], [(fragments.len() - 1, Err(Violation::MessageTooLong))]);
    assert_eq!(decoded(&[&frame(0x02, b"x")[..6]], rules).0, [(6, Err(Violation::Binary))]);
    let huge = [0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0];
    check_every_split(&huge, Rules { message_bytes_max: usize::MAX, binary: false, compression: None });
    check_every_split(&huge, rules);
}

#[test]
fn memory_grows_with_the_bytes_received_not_with_those_announced() {
    let rules = Rules { message_bytes_max: 1 << 40, binary: true, compression: None };
    let compression = compression();
    let rules = Rules { compression: Some(&compression), ..rules };
    for first in [0x81, 0x82, 0xC1, 0xC2] {
        let mut decoder = Decoder::default();
        let mut input = vec![first, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        input.extend([b'x'; 100]);
        assert_eq!(decoder.decode(&mut input, rules).map(|decoded| decoded.consumed), Ok(114));
        let partial = decoder.partial.expect("a message is incomplete");
        assert!(partial.message.expect("a message is incomplete").capacity() <= 200);
    }
}

#[test]
fn searching_for_a_close_needs_no_memory_for_messages() {
    let mut decoder = Decoder::default();
    let stream = [frame(0x01, &[b'x'; 300]), frame(0x00, &[b'y'; 300])].concat();
    let (mut begun, rest) = (stream[..200].to_vec(), &stream[200..]);
    assert_eq!(decoder.decode(&mut begun, RULES), Ok(DecodedMessage { consumed: 200, message: None }));
    let skipped = SkipOutcome { consumed: rest.len(), closed: false };
    assert_eq!(decoder.skip_to_close(rest, false), Ok(skipped));
    assert!(decoder.partial.as_ref().is_some_and(|partial| partial.message.is_none()));
    assert_eq!(decoder.skip_to_close(b"\x88", false), Ok(SkipOutcome { consumed: 1, closed: false }));
    let skipped = SkipOutcome { consumed: 7, closed: true };
    assert_eq!(decoder.skip_to_close(b"\x82\0\0\0\0\xFF\xFFbehind", false), Ok(skipped));
}

#[test]
fn a_complete_message_is_borrowed_from_the_input() {
    let mut input = frame(0x81, b"/a:0=1");
    let place = input[6..].as_ptr_range();
    let mut decoder = Decoder::default();
    let decoded = decoder.decode(&mut input, RULES).expect("a message");
    let Some(ClientMessage::Text(text)) = decoded.message else { panic!("a text in {decoded:?}") };
    assert_eq!(text.as_bytes().as_ptr_range(), place);
    assert!(decoder.partial.is_none());
}

/// Returns a stream that is mostly valid: frames of all kinds, in an order that is mostly allowed.
fn random_stream(random: &mut Random) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut is_partial = false;
    for _ in 0..random.below(12) {
        let control = random.once_in(4);
        let in_order = !random.once_in(40);
        let fin = control && in_order || random.once_in(2);
        let opcode = match (control, is_partial == in_order) {
            (true, _) => random.pick(&[9, 10, 9, 10, 8]),
            (false, true) => 0,
            (false, false) => random.pick(&[1, 1, 2]),
        };
        let payload = random_payload(random, opcode);
        let mut bytes = Vec::new();
        let key = if random.once_in(4) { [0; 4] } else { (random.next() as u32).to_le_bytes() };
        encode::client_frame(&mut bytes, Opcode::Text, &payload, key);
        bytes[0] = if fin { 0x80 | opcode } else { opcode };
        stream.extend(bytes);
        is_partial = if control { is_partial } else { !fin };
    }
    stream
}

fn random_payload(random: &mut Random, opcode: u8) -> Vec<u8> {
    let longest = if opcode >= 8 { 120 } else { random.pick(&[1, 5, 30, 130, 130, 400]) };
    let len = random.below(longest);
    let mut payload = random.text(len);
    if opcode == 8 {
        let code = random.pick(&[1000, 1001, 1004, 1015, 3000, 5000]);
        payload.splice(0..0, u16::to_be_bytes(code));
    }
    if random.once_in(10) {
        random.damage(&mut payload);
    }
    if opcode < 8 && random.once_in(3) {
        // Make a fragment that ends or begins inside a character.
        payload.truncate(payload.len().saturating_sub(1));
    }
    payload
}

#[test]
fn fuzz_frames_in_pieces() {
    testing::fuzz(|random| {
        let mut stream = random_stream(random);
        if random.once_in(3) {
            random.damage(&mut stream);
        }
        let rules = Rules {
            message_bytes_max: random.pick(&[0, 1, 40, 300, 5000]),
            binary: !random.once_in(8),
            compression: None,
        };
        let pieces = random.pieces(&stream);
        check_pieces(&stream, rules, &pieces);
    });
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces(stream: Vec<u8>, split: prop::sample::Index, binary: bool) {
        let (left, right) = stream.split_at(split.index(stream.len() + 1));
        check_pieces(&stream, Rules { message_bytes_max: 50, binary, compression: None }, &[left, right]);
    }

    #[test]
    fn decodes_what_was_encoded(
        texts in prop::collection::vec(".{0,150}", 0..5),
        key: [u8; 4],
        size in 1usize..100,
    ) {
        let mut stream = Vec::new();
        for text in &texts {
            encode::client_frame(&mut stream, Opcode::Text, text.as_bytes(), key);
        }
        let (outcome, idle) = decoded(&stream.chunks(size).collect::<Vec<_>>(), RULES);
        let found: Vec<_> = outcome.into_iter().map(|(_, found)| found).collect();
        let expected: Vec<_> = texts.iter().map(|text| Ok((1, text.clone().into_bytes()))).collect();
        prop_assert_eq!(found, expected);
        prop_assert!(idle);
    }
}

// Compressed messages. The naive twin does not know them: what must come out is what was put in.

fn compression() -> Compression {
    Compression::new(CompressionBounds { broadcast_bytes_min: 1, single_bytes_min: 1 })
}

/// Compresses a payload as a client does.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut deflater = flate2::Compress::new(flate2::Compression::default(), false);
    let mut bytes = Vec::with_capacity(payload.len() * 2 + 100);
    deflater.compress_vec(payload, &mut bytes, flate2::FlushCompress::Sync).expect("the state is good");
    bytes.truncate(bytes.len() - 4);
    bytes
}

/// Returns the outcomes at every split, which must be the same, without their positions.
fn inflated(stream: &[u8], message_bytes_max: usize) -> Vec<Result<Owned, Violation>> {
    let compression = compression();
    let rules = Rules { message_bytes_max, binary: true, compression: Some(&compression) };
    let whole = without_positions(decoded(&[stream], rules));
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(without_positions(decoded(&bytes, rules)), whole, "byte by byte");
    for split in 0..=stream.len() {
        let (left, right) = stream.split_at(split);
        assert_eq!(without_positions(decoded(&[left, right], rules)), whole, "split at {split}");
    }
    whole.0.into_iter().map(|(_, outcome)| outcome).collect()
}

#[test]
fn compressed_messages() {
    let text = "Grüße ".repeat(40).into_bytes();
    let compressed = deflated(&text);
    let (first, rest) = compressed.split_at(5);
    let stream = [
        frame(0xC1, &compressed),
        // Fragments, of which only the first has the bit, and control frames between them.
        frame(0x41, first),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x80, rest),
        frame(0xC2, &deflated(b"\xFF\x00")),
        // An empty message, and plain ones behind the compressed.
        frame(0xC1, &[0]),
        frame(0x81, b"plain"),
        frame(0x01, b"pl"),
        frame(0x80, b"ain"),
        // An empty first fragment.
        frame(0x41, b""),
        frame(0x80, &compressed),
    ];
    let expected = [
        (1, &text[..]),
        (9, b"ping"),
        (1, &text),
        (2, b"\xFF\x00"),
        (1, b""),
        (1, b"plain"),
        (1, b"plain"),
        (1, &text),
    ];
    let expected: Vec<_> =
        expected.into_iter().map(|(opcode, payload)| Ok((opcode, payload.to_vec()))).collect();
    assert_eq!(inflated(&stream.concat(), text.len()), expected);
}

#[test]
fn violations_of_compression() {
    let bomb = deflated(&[b'x'; 5000]);
    for (frames, violation) in [
        // RSV1 on control and continuation frames, and other bits.
        (vec![frame(0xC9, b"")], Violation::ReservedBits),
        (vec![frame(0xC8, b"")], Violation::ReservedBits),
        (vec![frame(0xCA, b"")], Violation::ReservedBits),
        (vec![frame(0x41, b"\x02"), frame(0xC0, b"\x00")], Violation::ReservedBits),
        (vec![frame(0x01, b"a"), frame(0xC0, b"b")], Violation::ReservedBits),
        (vec![frame(0xC0, b"")], Violation::ReservedBits),
        (vec![frame(0xC3, b"")], Violation::ReservedBits),
        (vec![frame(0xA1, b"")], Violation::ReservedBits),
        (vec![frame(0x91, b"")], Violation::ReservedBits),
        (vec![frame(0xE1, b"")], Violation::ReservedBits),
        (vec![frame(0xF1, b"")], Violation::ReservedBits),
        (vec![frame(0x41, b"a"), frame(0xC1, b"b")], Violation::ExpectedContinuation),
        (vec![frame(0xC1, b"\x06")], Violation::Deflate),
        (vec![frame(0xC1, &[0xFF; 20])], Violation::Deflate),
        (vec![frame(0xC1, &deflated(b"\xC3"))], Violation::InvalidUtf8),
        (vec![frame(0xC1, &deflated(b"a\xFFb"))], Violation::InvalidUtf8),
        (vec![frame(0xC1, &bomb)], Violation::MessageTooLong),
        (vec![frame(0xC2, &bomb)], Violation::MessageTooLong),
        (vec![frame(0x41, &bomb[..4]), frame(0x80, &bomb[4..])], Violation::MessageTooLong),
        // Too long before it is inflated.
        (vec![frame(0x41, &[0; 3000]), frame(0x80, &[0; 2000])], Violation::MessageTooLong),
    ] {
        let found = inflated(&frames.concat(), 4999);
        assert_eq!(found, [Err(violation)], "{:X?}", &frames[0][..frames[0].len().min(20)]);
    }
}

#[test]
fn a_close_is_found_behind_compressed_frames() {
    let stream = [frame(0xC1, &deflated(b"text")), frame(0x41, b"\xFF"), frame(0x88, b"")].concat();
    for split in 0..=stream.len() {
        let mut decoder = Decoder::default();
        let (left, right) = stream.split_at(split);
        let first = decoder.skip_to_close(left, true).expect("the frames are valid");
        let closed = first.closed || decoder.skip_to_close(right, true).expect("the frames are valid").closed;
        assert!(closed, "split at {split}");
        assert_eq!(Decoder::default().skip_to_close(&stream, false), Err(Violation::ReservedBits));
    }
}

#[test]
fn an_inflated_message_is_freed_and_counted() {
    let compression = compression();
    let rules = Rules { message_bytes_max: 1 << 20, binary: false, compression: Some(&compression) };
    let text = vec![b'x'; 100_000];
    let mut stream = frame(0xC1, &deflated(&text));
    let mut decoder = Decoder::default();
    let decoded = decoder.decode(&mut stream, rules).expect("the message is valid");
    assert!(matches!(decoded.message, Some(ClientMessage::Text(text)) if text.len() == 100_000));
    assert!(decoder.incomplete_bytes() >= 100_000);
    assert!(decoder.decode(&mut [], rules).expect("nothing is invalid").message.is_none());
    assert_eq!((decoder.incomplete_bytes(), decoder.is_idle()), (0, true));
    // While it is incomplete, it has the memory of what has come.
    let mut half = frame(0xC1, &deflated(&text));
    half.pop();
    assert!(decoder.decode(&mut half, rules).expect("it is incomplete").message.is_none());
    assert!((1..1000).contains(&decoder.incomplete_bytes()), "{}", decoder.incomplete_bytes());
    assert_eq!(compression.counts().inflated, 1);
}

proptest! {
    #[test]
    fn compressed_messages_in_any_pieces(
        messages in prop::collection::vec(("[a-dü]{0,200}", 0..4_usize, any::<bool>()), 1..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for (text, fragments, compressed) in &messages {
            let payload = if *compressed { deflated(text.as_bytes()) } else { text.clone().into_bytes() };
            let size = payload.len().div_ceil(fragments + 1).max(1);
            let mut parts: Vec<&[u8]> = payload.chunks(size).collect();
            if parts.is_empty() {
                parts.push(b"");
            }
            for (index, part) in parts.iter().enumerate() {
                let opcode = if index == 0 { 1 } else { 0 };
                let rsv = if index == 0 && *compressed { 0x40 } else { 0 };
                let fin = if index + 1 == parts.len() { 0x80 } else { 0 };
                stream.extend(frame(fin | rsv | opcode, part));
                if fin == 0 {
                    stream.extend(frame(0x89, b"?"));
                    expected.push(Ok((9, b"?".to_vec())));
                }
            }
            expected.push(Ok((1, text.clone().into_bytes())));
        }
        let compression = compression();
        let rules = Rules { message_bytes_max: 1000, binary: false, compression: Some(&compression) };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        let (found, idle) = decoded(&pieces, rules);
        prop_assert_eq!(found.into_iter().map(|(_, found)| found).collect::<Vec<_>>(), expected);
        prop_assert!(idle);
    }
}
