//! The payload of a Close frame, and the codes that it may have (RFC 6455, sections 5.5.1 and 7.4).

use std::str;

use crate::protocol::Violation;

/// The code that stands for a Close without a code (7.1.5). It is never sent.
pub const NO_STATUS: u16 = 1005;

/// The maximum length of the text of a Close in bytes: control frames have at most 125, two of which are the code (RFC 6455,
/// 5.5).
pub const TEXT_BYTES_MAX: usize = 123;

/// Parses the payload of a Close, which is empty or has a code and a reason.
pub fn parse(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    match payload {
        [] => Ok(None),
        // 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer".
        [_] => Err(Violation::CloseTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_sent(code) {
                return Err(Violation::CloseCode);
            }
            let reason = str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

/// Returns whether a Close may have this code.
///
/// 7.4.1 and the IANA registry define 1000 to 1003 and 1007 to 1014; 1004 has no meaning; 1005, 1006 and 1015 "MUST NOT
/// be set as a status code in a Close control frame by an endpoint". 7.4.2 leaves 3000 to 4999 to libraries and
/// applications, and the rest of 1000 to 2999 to future versions of the protocol.
pub fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(code: u16, reason: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes(), reason].concat()
    }

    #[test]
    fn every_code() {
        // These are the codes of Autobahn's cases 7.7 and 7.9.
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
            assert!(may_be_sent(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            assert!(!may_be_sent(code), "{code}");
        }
        for code in 0..=u16::MAX {
            let expected =
                if may_be_sent(code) { Ok(Some((code, "why"))) } else { Err(Violation::CloseCode) };
            assert_eq!(parse(&payload(code, b"why")), expected);
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"\x03"), Err(Violation::CloseTooShort));
        assert_eq!(parse(&payload(1000, b"")), Ok(Some((1000, ""))));
        assert_eq!(parse(&payload(1000, "ü".as_bytes())), Ok(Some((1000, "ü"))));
        assert_eq!(parse(&payload(1000, b"\xC3")), Err(Violation::InvalidUtf8));
        assert_eq!(parse(&payload(1005, b"\xC3")), Err(Violation::CloseCode));
    }
}
