//! The negotiation of permessage-deflate (RFC 7692, section 7.1) in the header `Sec-WebSocket-Extensions` (RFC 6455,
//! section 9.1).
//!
//! A client offers extensions in its order of preference, and may offer one several times with other parameters, as
//! fallbacks. The first offer of permessage-deflate whose parameters are valid is accepted. Other extensions are ignored.

use crate::protocol::http::{HttpRefusal, is_token_byte};

/// The name of the extension.
const PERMESSAGE_DEFLATE: &[u8] = b"permessage-deflate";

/// The window with which the server may compress messages for a client: the base-2 logarithm of its size.
///
/// The bits are the discriminants. An enum, and not a number, so that a [`Framing`](crate::protocol::Framing) that has
/// them takes one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum WindowBits {
    Eight = 8,
    Nine,
    Ten,
    Eleven,
    Twelve,
    Thirteen,
    Fourteen,
    Fifteen,
}

impl WindowBits {
    const ALL: [WindowBits; 8] = [
        WindowBits::Eight,
        WindowBits::Nine,
        WindowBits::Ten,
        WindowBits::Eleven,
        WindowBits::Twelve,
        WindowBits::Thirteen,
        WindowBits::Fourteen,
        WindowBits::Fifteen,
    ];

    /// Returns the length of the longest message that may be compressed for a client with this window.
    ///
    /// The server compresses with the largest window. Because it begins each message anew, a reference in a message of N
    /// bytes reaches back less than N bytes, and every client whose window has N bytes can resolve it. Longer messages are
    /// not compressed. Any message is valid for the largest window.
    pub const fn message_bytes_max(self) -> usize {
        match self {
            WindowBits::Fifteen => usize::MAX,
            bits => 1 << bits as u8,
        }
    }

    /// Parses a value of the parameter `server_max_window_bits`: "a decimal integer value without leading zeroes between 8
    /// to 15, inclusive" (7.1.2.1).
    fn parse(value: &[u8]) -> Option<WindowBits> {
        let number = match value {
            [digit @ b'8'..=b'9'] => digit - b'0',
            [b'1', digit @ b'0'..=b'5'] => 10 + digit - b'0',
            _ => return None,
        };
        Some(WindowBits::ALL[usize::from(number - 8)])
    }
}

/// An accepted offer of permessage-deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The value of `server_max_window_bits`, if the offer has it. It must be in the response then.
    server_window: Option<WindowBits>,
}

impl Deflate {
    /// Returns the window with which messages may be compressed for the client.
    pub fn window(self) -> WindowBits {
        self.server_window.unwrap_or(WindowBits::Fifteen)
    }

    /// Returns the value of the response's header.
    ///
    /// Neither side keeps its window from one message to the next, whatever the client has offered. 7.1.1.1 and 7.1.1.2
    /// let a server demand both, and clients must support it. `client_max_window_bits` is never in the response, because
    /// the server can inflate with any window.
    pub fn response(self) -> String {
        let mut response =
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
        if let Some(bits) = self.server_window {
            response.push_str(&format!("; server_max_window_bits={}", bits as u8));
        }
        response
    }
}

/// Returns the first offer of permessage-deflate that can be accepted, from the values of all `Sec-WebSocket-Extensions`
/// headers in order.
///
/// # Errors
///
/// A value does not have the form of RFC 6455, 9.1: the recipient "MUST immediately _Fail the WebSocket Connection_".
pub fn negotiate<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<Deflate>, HttpRefusal> {
    let mut accepted = None;
    for value in values {
        let mut parser = Parser { rest: value };
        parser.skip_empty_elements();
        while !parser.rest.is_empty() {
            let offer = parser.extension()?;
            accepted = accepted.or(offer);
            parser.skip_empty_elements();
        }
    }
    Ok(accepted)
}

/// The parameters of an offer, as far as they were read.
#[derive(Default)]
struct Offer {
    /// The parameters that were read, in the order of [`PARAMETERS`].
    seen: [bool; PARAMETERS.len()],
    server_window: Option<WindowBits>,
    is_declined: bool,
}

/// The parameters that 7.1 defines.
const PARAMETERS: [&[u8]; 4] =
    [b"server_no_context_takeover", b"client_no_context_takeover", SERVER_WINDOW, CLIENT_WINDOW];
const SERVER_WINDOW: &[u8] = b"server_max_window_bits";
const CLIENT_WINDOW: &[u8] = b"client_max_window_bits";

impl Offer {
    /// Adds a parameter. "A server MUST decline an extension negotiation offer for this extension if": a parameter is not
    /// defined for an offer, has an invalid value, or occurs twice (7.1).
    fn add(&mut self, name: &[u8], value: Option<&[u8]>) {
        let Some(index) = PARAMETERS.iter().position(|known| *known == name) else {
            self.is_declined = true;
            return;
        };
        let is_repeated = std::mem::replace(&mut self.seen[index], true);
        let bits = value.map(WindowBits::parse);
        let is_valid = match PARAMETERS[index] {
            SERVER_WINDOW => bits.is_some_and(|bits| bits.is_some()),
            // 7.1.2.2: the value is optional in an offer.
            CLIENT_WINDOW => bits.is_none_or(|bits| bits.is_some()),
            _ => value.is_none(),
        };
        if PARAMETERS[index] == SERVER_WINDOW {
            self.server_window = bits.flatten();
        }
        self.is_declined |= is_repeated || !is_valid;
    }

    fn accept(self) -> Option<Deflate> {
        (!self.is_declined).then_some(Deflate { server_window: self.server_window })
    }
}

/// The rest of a header's value. Elements, parameters and their parts may have spaces around them.
struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    /// RFC 9110, 5.6.1.2: "a recipient MUST parse and ignore a reasonable number of empty list elements".
    fn skip_empty_elements(&mut self) {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Parses an extension with its parameters, up to the comma or the end behind it. Returns it if it is an offer of
    /// permessage-deflate that can be accepted.
    fn extension(&mut self) -> Result<Option<Deflate>, HttpRefusal> {
        let name = self.token()?;
        let mut offer = Offer::default();
        while self.takes(b';') {
            let parameter = self.token()?;
            let mut unquoted = Vec::new();
            let value = match self.takes(b'=') {
                true if self.rest.first() == Some(&b'"') => Some(self.quoted(&mut unquoted)?),
                true => Some(self.token()?),
                false => None,
            };
            offer.add(parameter, value);
        }
        match self.rest.first() {
            None | Some(b',') => Ok(offer.accept().filter(|_| name == PERMESSAGE_DEFLATE)),
            Some(_) => Err(HttpRefusal::Extensions),
        }
    }

    fn token(&mut self) -> Result<&'a [u8], HttpRefusal> {
        self.skip_spaces();
        let len = self.rest.iter().take_while(|byte| is_token_byte(**byte)).count();
        let (token, rest) = self.rest.split_at(len);
        self.rest = rest;
        self.skip_spaces();
        if token.is_empty() { Err(HttpRefusal::Extensions) } else { Ok(token) }
    }

    /// Parses a quoted string. "When using the quoted-string syntax variant, the value after quoted-string unescaping MUST
    /// conform to the 'token' ABNF" (RFC 6455, 9.1).
    fn quoted<'u>(&mut self, unquoted: &'u mut Vec<u8>) -> Result<&'u [u8], HttpRefusal> {
        let mut rest = self.rest.strip_prefix(b"\"").ok_or(HttpRefusal::Extensions)?;
        loop {
            match rest {
                [b'"', behind @ ..] if !unquoted.is_empty() => {
                    self.rest = behind;
                    self.skip_spaces();
                    return Ok(unquoted);
                }
                [b'\\', byte, behind @ ..] | [byte, behind @ ..] if is_token_byte(*byte) => {
                    unquoted.push(*byte);
                    rest = behind;
                }
                _ => return Err(HttpRefusal::Extensions),
            }
        }
    }

    /// Returns whether this byte comes next, which is consumed, with the spaces behind it.
    fn takes(&mut self, byte: u8) -> bool {
        let Some(rest) = self.rest.strip_prefix(&[byte]) else { return false };
        self.rest = rest;
        self.skip_spaces();
        true
    }

    fn skip_spaces(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn negotiated(values: &[&str]) -> Result<Option<String>, HttpRefusal> {
        let accepted = negotiate(values.iter().map(|value| value.as_bytes()))?;
        Ok(accepted.map(|deflate| {
            let response = deflate.response();
            let rest = response
                .strip_prefix("permessage-deflate; server_no_context_takeover; client_no_context_takeover");
            rest.expect("both sides begin each message anew").to_owned()
        }))
    }

    #[test]
    fn the_offers_of_clients() {
        for offer in [
            // Chromium and Firefox, ws (Node), websockets (Python), gorilla (Go), Safari's old name beside the new one.
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits=15",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate",
        ] {
            assert_eq!(negotiated(&[offer]), Ok(Some(String::new())), "{offer}");
        }
    }

    #[test]
    fn the_window_of_the_server_is_echoed() {
        for bits in 8..=15 {
            let offer = format!("permessage-deflate;server_max_window_bits={bits}");
            let expected = format!("; server_max_window_bits={bits}");
            assert_eq!(negotiated(&[&offer]), Ok(Some(expected.clone())));
            let quoted = format!("permessage-deflate ; server_max_window_bits = \"{bits}\" ");
            assert_eq!(negotiated(&[&quoted]), Ok(Some(expected)));
        }
        assert_eq!(
            negotiated(&["permessage-deflate; server_max_window_bits=\"1\\0\""]),
            Ok(Some("; server_max_window_bits=10".into()))
        );
    }

    #[test]
    fn offers_that_are_declined() {
        for parameters in [
            "unknown",
            "unknown=1",
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=100",
            "server_max_window_bits=+9",
            "client_max_window_bits=7",
            "client_max_window_bits=\"16\"",
            "client_max_window_bits=x",
            "server_no_context_takeover=1",
            "client_no_context_takeover=true",
            "server_no_context_takeover; server_no_context_takeover",
            "client_max_window_bits; client_max_window_bits=10",
            "server_max_window_bits=10; server_max_window_bits=10",
            "Server_No_Context_Takeover",
        ] {
            let offer = format!("permessage-deflate; {parameters}");
            assert_eq!(negotiated(&[&offer]), Ok(None), "{offer}");
            // The fallback is accepted, in the same header or in another one.
            let fallback = format!("{offer}, permessage-deflate; server_max_window_bits=9");
            assert_eq!(negotiated(&[&fallback]), Ok(Some("; server_max_window_bits=9".into())), "{fallback}");
            assert_eq!(negotiated(&[&offer, "permessage-deflate"]), Ok(Some(String::new())));
        }
        for other in
            ["", " , ,", "permessage-bzip2", "permessage-deflate2", "Permessage-Deflate", "x; a=\"b\""]
        {
            assert_eq!(negotiated(&[other]), Ok(None), "{other}");
        }
    }

    #[test]
    fn the_first_offer_that_is_valid_is_accepted() {
        let offers = "permessage-deflate; server_max_window_bits=9, permessage-deflate";
        assert_eq!(negotiated(&[offers]), Ok(Some("; server_max_window_bits=9".into())));
        let reversed = "other; a; b=c, permessage-deflate, permessage-deflate; server_max_window_bits=9";
        assert_eq!(negotiated(&[reversed]), Ok(Some(String::new())));
        assert_eq!(negotiated(&[]), Ok(None));
    }

    #[test]
    fn values_that_are_malformed() {
        for value in [
            ";",
            "permessage-deflate;",
            "permessage-deflate; ;",
            "permessage-deflate; =",
            "permessage-deflate; a=",
            "permessage-deflate; a=\"",
            "permessage-deflate; a=\"\"",
            "permessage-deflate; a=\"b",
            "permessage-deflate; a=\"b c\"",
            "permessage-deflate; a=\"b\\",
            "permessage-deflate; a=\"b\"c",
            "permessage-deflate a",
            "permessage-deflate; a b",
            "permessage-deflate/1",
            "permessage-deflate; a=b=c",
            "\"permessage-deflate\"",
        ] {
            assert_eq!(negotiated(&[value]), Err(HttpRefusal::Extensions), "{value}");
            assert_eq!(negotiated(&["permessage-deflate", value]), Err(HttpRefusal::Extensions), "{value}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_the_parser_fail(value in "[a-z_;=,\"\\\\ \t0-9-]{0,60}", prefix in any::<bool>()) {
            let value = if prefix { format!("permessage-deflate; {value}") } else { value };
            let _ = negotiated(&[&value]);
        }

        #[test]
        fn spaces_and_quotes_do_not_matter(bits in 8..=15, pads in prop::collection::vec("[ \t]{0,3}", 6), quoted: bool) {
            let quote = if quoted { "\"" } else { "" };
            let [a, b, c, d, e, f] = &pads[..] else { unreachable!("there are six") };
            let value = format!(
                "{a}permessage-deflate{b};{c}server_max_window_bits{d}={e}{quote}{bits}{quote}{f}"
            );
            prop_assert_eq!(negotiated(&[&value]), Ok(Some(format!("; server_max_window_bits={bits}"))));
        }
    }
}
