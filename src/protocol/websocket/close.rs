//! The payload of a Close frame, and which codes may be in it (RFC 6455, sections 5.5.1 and 7.4).

use std::str;

use crate::protocol::Violation;

/// What the code of a Close is taken for where it has none (7.1.5). Never sent.
pub const NO_STATUS: u16 = 1005;

/// Reads the payload of a Close: nothing, or a code and a reason.
pub fn parse(payload: &[u8]) -> Result<Option<(u16, &str)>, Violation> {
    match payload {
        [] => Ok(None),
        // 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer".
        [_] => Err(Violation::CloseTooShort),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !may_be_received(code) {
                return Err(Violation::CloseCode);
            }
            let reason = str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
            Ok(Some((code, reason)))
        }
    }
}

/// Whether a peer may send this code.
///
/// 7.4.1 and the IANA registry define 1000 to 1003 and 1007 to 1014; 1004 has no meaning; 1005, 1006 and 1015 "MUST NOT
/// be set as a status code in a Close control frame by an endpoint". 7.4.2 leaves 3000 to 4999 to libraries and
/// applications, and the rest of 1000 to 2999 to future versions of the protocol.
pub fn may_be_received(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
