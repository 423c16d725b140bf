//! The opening handshake of RFC 6455, section 4: from the head of an HTTP request to the response that opens the
//! WebSocket.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use sha1_smol::Sha1;

use super::extensions::{self, Deflate};
use crate::protocol::http::HttpRefusal;
use crate::protocol::http::head::{Headers, RequestHead};

/// The subprotocol of the server.
pub const SUBPROTOCOL: &str = "quickio";

/// The GUID of RFC 6455, 1.3. It proves that the server understood the handshake.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The decoder of keys. It ignores the bits behind the 16 bytes, which some clients choose at random.
const KEY_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// An accepted handshake.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::protocol) struct Upgrade {
    /// The complete response, 101, behind which frames follow.
    pub response: Vec<u8>,
    /// The permessage-deflate that was negotiated, if it was.
    pub deflate: Option<Deflate>,
}

/// Returns the upgrade of a connection that sends this handshake. An `echo`, whose client receives back what it sends
/// instead of being a client of QuickIO, needs no subprotocol. `deflates`: permessage-deflate may be negotiated. Otherwise
/// the extensions that the client offers are ignored.
///
/// The checks are those of RFC 6455, 4.2.1, and their order gives the most helpful refusal. Those that every request
/// needs are not among them: the method, the target, the `Host` and the body.
pub(in crate::protocol) fn upgrade(
    head: &RequestHead<'_, '_>,
    echo: bool,
    deflates: bool,
) -> Result<Upgrade, HttpRefusal> {
    // "the HTTP version MUST be at least 1.1" (4.1).
    if head.is_http_1_0 {
        return Err(HttpRefusal::OldHttp);
    }
    check_upgrade(head.headers)?;
    let key = check_key(head.headers)?;
    let subprotocol = choose_subprotocol(head.headers, echo)?;
    let deflate = match deflates {
        true => extensions::negotiate(head.headers.values("Sec-WebSocket-Extensions"))?,
        false => None,
    };
    Ok(Upgrade { response: switching_protocols(key, subprotocol, deflate), deflate })
}

fn check_upgrade(headers: Headers<'_, '_>) -> Result<(), HttpRefusal> {
    if !headers.lists("Upgrade", "websocket") || !headers.lists("Connection", "upgrade") {
        return Err(HttpRefusal::UpgradeMissing);
    }
    if headers.single("Sec-WebSocket-Version")? != Some(b"13") {
        return Err(HttpRefusal::Version);
    }
    Ok(())
}

/// "a base64-encoded value that, when decoded, is 16 bytes in length".
fn check_key<'a>(headers: Headers<'_, 'a>) -> Result<&'a [u8], HttpRefusal> {
    let key = headers.single("Sec-WebSocket-Key")?.ok_or(HttpRefusal::Key)?;
    let mut decoded = [0; 18];
    match KEY_BASE64.decode_slice(key, &mut decoded) {
        Ok(16) => Ok(key),
        Ok(_) | Err(_) => Err(HttpRefusal::Key),
    }
}

/// Chooses one of the subprotocols that the client offers. Names are compared exactly, as browsers do with the chosen
/// subprotocol.
fn choose_subprotocol(headers: Headers<'_, '_>, echo: bool) -> Result<Option<&'static str>, HttpRefusal> {
    if !headers.has("Sec-WebSocket-Protocol") {
        return Ok(None);
    }
    match headers.tokens("Sec-WebSocket-Protocol").any(|token| token == SUBPROTOCOL.as_bytes()) {
        true => Ok(Some(SUBPROTOCOL)),
        false if echo => Ok(None),
        false => Err(HttpRefusal::Subprotocol),
    }
}

fn switching_protocols(key: &[u8], subprotocol: Option<&str>, deflate: Option<Deflate>) -> Vec<u8> {
    let accept = accept(key);
    let (name, subprotocol, end) =
        subprotocol.map_or(("", "", ""), |subprotocol| ("Sec-WebSocket-Protocol: ", subprotocol, "\r\n"));
    let extensions = match deflate {
        Some(deflate) => format!("Sec-WebSocket-Extensions: {}\r\n", deflate.response()),
        None => String::new(),
    };
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{name}{subprotocol}{end}{extensions}\r\n"
    )
    .into_bytes()
}

/// Returns the SHA-1 of the key and the GUID, in base64 (4.2.2).
pub fn accept(key: &[u8]) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key);
    sha1.update(ACCEPT_GUID);
    STANDARD.encode(sha1.digest().bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::head::header_space;

    const HOST: &str = "Host: quickio.example";
    const UPGRADE: &str = "Upgrade: websocket";
    const CONNECTION: &str = "Connection: Upgrade";
    const VERSION: &str = "Sec-WebSocket-Version: 13";
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    const ALL: [&str; 5] = [HOST, UPGRADE, CONNECTION, VERSION, KEY];

    fn get(headers: &[&str]) -> String {
        request("GET / HTTP/1.1", headers)
    }

    fn request(line: &str, headers: &[&str]) -> String {
        let lines: Vec<_> = [&[line], headers, &["", ""]].concat();
        lines.join("\r\n")
    }

    /// Returns a request with all headers, of which the one with this name is replaced by others.
    fn with(header: &str, others: &[&str]) -> String {
        let name = header.split_once(':').expect("a header has a colon").0;
        let kept = ALL.into_iter().filter(|kept| !kept.starts_with(name));
        get(&kept.chain(others.iter().copied()).collect::<Vec<_>>())
    }

    fn without(header: &str) -> String {
        with(header, &[])
    }

    /// Parses the head and returns the outcome of the handshake.
    fn shake_hands(request: &str, echo: bool) -> Result<Vec<u8>, HttpRefusal> {
        shake_hands_with(request, echo, false).map(|upgrade| upgrade.response)
    }

    fn shake_hands_with(request: &str, echo: bool, deflates: bool) -> Result<Upgrade, HttpRefusal> {
        RequestHead::parse(request.as_bytes(), &mut header_space())
            .and_then(|head| upgrade(&head, echo, deflates))
    }

    fn refusal(request: &str) -> HttpRefusal {
        match shake_hands(request, false) {
            Err(refusal) => refusal,
            Ok(other) => panic!("{other:?} for {request}"),
        }
    }

    fn upgraded(request: &str) -> String {
        match shake_hands(request, false) {
            Ok(answer) => String::from_utf8(answer).expect("answers are text"),
            Err(refusal) => panic!("{refusal:?} for {request}"),
        }
    }

    #[test]
    fn the_example_of_the_rfc() {
        // 1.3.
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            upgraded(&get(&ALL)),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
    }

    #[test]
    fn accepts_valid_handshakes() {
        let long = format!("Cookie: {}", "x".repeat(500));
        for request in [
            get(&ALL).replace("GET / ", "GET /any/path?and=query "),
            get(&ALL).replace("\r\n", "\n"),
            get(&ALL)
                .to_ascii_lowercase()
                .replace("get / http", "GET / HTTP")
                .replace(&KEY.to_ascii_lowercase(), KEY),
            get(&[&ALL[..], &["Content-Length: 0", "Origin: null", &long]].concat()),
            with(UPGRADE, &["uPGRADE:  h2c , WebSocket \t"]),
            with(UPGRADE, &["Upgrade: h2c", "Upgrade: websocket"]),
            with(CONNECTION, &["Connection: keep-alive, Upgrade"]),
            with(CONNECTION, &["Connection: keep-alive", "Connection:,,UPGRADE,"]),
            // A key of 16 bytes with bits behind them.
            with(KEY, &["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR=="]),
        ] {
            let answer = upgraded(&request);
            assert!(!answer.contains("Protocol:"), "no subprotocol was offered: {answer}");
        }
    }

    #[test]
    fn the_subprotocol_is_chosen_if_it_is_offered() {
        for offers in [
            &["Sec-WebSocket-Protocol: quickio"][..],
            &["Sec-WebSocket-Protocol: chat,quickio , other"],
            &["Sec-WebSocket-Protocol: chat", "sec-websocket-protocol: quickio"],
        ] {
            let answer = upgraded(&get(&[&ALL, offers].concat()));
            assert!(answer.ends_with("\r\nSec-WebSocket-Protocol: quickio\r\n\r\n"), "{answer}");
        }
        for offers in ["", "chat", "quickio2", "QuickIO", "quick, io"] {
            let offers = format!("Sec-WebSocket-Protocol: {offers}");
            assert_eq!(refusal(&get(&[&ALL[..], &[&offers]].concat())), HttpRefusal::Subprotocol, "{offers}");
        }
    }

    #[test]
    fn refuses_invalid_handshakes() {
        let key = |key| with(KEY, &[&*format!("Sec-WebSocket-Key: {key}")]);
        for (refused, request) in [
            (HttpRefusal::OldHttp, request("GET / HTTP/1.0", &ALL)),
            (HttpRefusal::RepeatedHeader, with(HOST, &["Host: a", "Host: a"])),
            (HttpRefusal::RepeatedHeader, with(VERSION, &[VERSION, VERSION])),
            (HttpRefusal::RepeatedHeader, with(KEY, &[KEY, KEY])),
            (HttpRefusal::UpgradeMissing, without(UPGRADE)),
            (HttpRefusal::UpgradeMissing, without(CONNECTION)),
            (HttpRefusal::UpgradeMissing, with(UPGRADE, &["Upgrade: websocket2"])),
            (HttpRefusal::UpgradeMissing, with(CONNECTION, &["Connection: close"])),
            (HttpRefusal::Version, without(VERSION)),
            (HttpRefusal::Version, with(VERSION, &["Sec-WebSocket-Version: 8"])),
            (HttpRefusal::Version, with(VERSION, &["Sec-WebSocket-Version: 13, 8"])),
            (HttpRefusal::Key, without(KEY)),
            (HttpRefusal::Key, key("")),
            (HttpRefusal::Key, key("dGhlIHNhbXBsZSBub25jZQ")),
            (HttpRefusal::Key, key("dGhlIHNhbXBsZSBub25j")),
            (HttpRefusal::Key, key("dGhlIHNhbXBsZSBub25jZQAA")),
            (HttpRefusal::Key, key("dGhlIHNhbXBsZSBub25jZQ==dGhlIHNhbXBsZSBub25jZQ==")),
            (HttpRefusal::Key, key("dGhlIHNhbXBsZSBub25j!Q==")),
        ] {
            assert_eq!(refusal(&request), refused, "{request}");
        }
    }

    #[test]
    fn compression_is_negotiated_if_it_is_on() {
        let offers = [
            "Sec-WebSocket-Extensions: x, permessage-deflate; unknown",
            "sec-websocket-extensions: permessage-deflate; server_max_window_bits=9",
        ];
        let request = get(&[&ALL[..], &offers, &["Sec-WebSocket-Protocol: quickio"]].concat());
        let upgrade = shake_hands_with(&request, false, true).expect("the handshake is valid");
        let response = String::from_utf8(upgrade.response).expect("answers are text");
        assert!(
            response.ends_with(
                "\r\nSec-WebSocket-Protocol: quickio\r\nSec-WebSocket-Extensions: permessage-deflate; \
                 server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9\r\n\r\n"
            ),
            "{response}"
        );
        assert_eq!(upgrade.deflate.map(Deflate::window), Some(extensions::WindowBits::Nine));
        let off = shake_hands_with(&request, false, false).expect("the handshake is valid");
        assert_eq!(off.deflate, None);
        assert!(!String::from_utf8(off.response).expect("answers are text").contains("Extensions"));
        let malformed = get(&[&ALL[..], &["Sec-WebSocket-Extensions: permessage-deflate;"]].concat());
        assert_eq!(shake_hands_with(&malformed, false, true), Err(HttpRefusal::Extensions));
        assert!(shake_hands(&malformed, false).is_ok(), "nobody reads the offers");
        let declined = get(&[&ALL[..], &offers[..1]].concat());
        let declined = shake_hands_with(&declined, false, true).expect("the handshake is valid");
        assert_eq!(declined.deflate, None);
    }

    #[test]
    fn an_echo_needs_no_subprotocol() {
        let other = get(&[&ALL[..], &["Sec-WebSocket-Protocol: other"]].concat());
        assert!(shake_hands(&other, true).is_ok());
        assert_eq!(shake_hands(&other, false), Err(HttpRefusal::Subprotocol));
    }
}
