//! A connection's codec, fed in pieces. The items in the bytes must not depend on the pieces.

use quickio::protocol::http::{HttpDate, HttpResponse, Persistence, ReadyResponses, RequestKind};
use quickio::protocol::{Codec, CodecSettings, Compression, CompressionBounds, Incoming, Options, Origins, TrustedProxies, WantedHeaders};

/// The limit of messages: small, so that inputs reach it.
const MESSAGE_BYTES_MAX: usize = 100;
const HTTP_HEAD_BYTES_MAX: usize = 1000;

/// The items of a connection, each as text.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    items: Vec<String>,
    /// The connection has ended.
    has_ended: bool,
}

/// Checks a connection on which `prefix` and `input` arrive. The first byte of the input chooses the sizes of pieces.
pub fn check(prefix: &[u8], input: &[u8]) {
    let Some((choice, input)) = input.split_first() else { return };
    let bytes = [prefix, input].concat();
    let options = Options { echo: choice & 1 == 1, ..Options::default() };
    let whole = transcript(options, &bytes, bytes.len().max(1));
    // One byte at a time is slow for long inputs, which other sizes split often enough.
    let sizes = if bytes.len() <= 512 { vec![1, usize::from(*choice).max(2)] } else { vec![7 + usize::from(*choice)] };
    for size in sizes {
        assert_eq!(transcript(options, &bytes, size), whole, "in pieces of {size}");
    }
}

fn transcript(options: Options, bytes: &[u8], size: usize) -> Transcript {
    let settings = CodecSettings {
        message_bytes_max: MESSAGE_BYTES_MAX,
        http_head_bytes_max: HTTP_HEAD_BYTES_MAX,
        origins: Origins::Only(vec!["https://a.example".into()].into()),
        date: HttpDate::EPOCH,
        proxies: TrustedProxies::NONE,
        wanted: WantedHeaders::NONE,
        compression: Compression::new(CompressionBounds { broadcast_bytes_min: 1, single_bytes_min: 1 }),
    };
    let mut codec = Codec::new(options);
    let mut transcript = Transcript::default();
    for piece in bytes.chunks(size) {
        feed(&mut codec, piece, &settings, &mut transcript);
    }
    transcript
}

/// Decodes a piece as a shard would: each request is answered at once.
fn feed(codec: &mut Codec, piece: &[u8], settings: &CodecSettings, transcript: &mut Transcript) {
    let mut piece = piece.to_vec();
    let mut at = 0;
    while !transcript.has_ended {
        let step = codec.decode(&mut piece[at..], settings);
        at += step.consumed;
        let item = format!("{:?}", step.incoming);
        match step.incoming {
            Incoming::Incomplete => return assert_eq!(at, piece.len(), "bytes were left over"),
            Incoming::Event(text) => assert!(text.len() <= MESSAGE_BYTES_MAX, "{} bytes", text.len()),
            Incoming::Request(request) => {
                let (number, is_stream) = (request.number, matches!(request.kind, RequestKind::Stream { .. }));
                let response = match &request.kind {
                    RequestKind::Stream { .. } => HttpResponse::Stream,
                    RequestKind::Poll { body, .. } => {
                        assert!(body.len() <= MESSAGE_BYTES_MAX, "{} bytes", body.len());
                        HttpResponse::Whole { status: 200, headers: "", body: b"" }
                    }
                    _ => HttpResponse::Whole { status: 200, headers: "", body: b"" },
                };
                let ReadyResponses { bytes, persistence } = codec.respond(number, response, settings);
                assert!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes));
                transcript.has_ended = is_stream || persistence != Persistence::KeepAlive;
            }
            // Sent only if the body is still on its way, which depends on the pieces.
            Incoming::Reply(bytes) if bytes.starts_with(b"HTTP/1.1 100 ") => continue,
            Incoming::Close(_) => transcript.has_ended = true,
            Incoming::Closed { .. } => panic!("nobody has begun a closing handshake"),
            _ => {}
        }
        transcript.items.push(item);
    }
}
