//! The reasons for refusing a request of a session, each with its status and the line that its client reads.

/// The reason for refusing a request of a session (protocol.md, section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::shard) enum SessionRefusal {
    /// The body has a line that is not an event.
    MalformedEvent,
    /// There is no session with this sid, and the request does not ask for one.
    Unknown,
    /// A token of the session was not accepted.
    TokenInvalid,
    /// A token of the session has expired.
    TokenExpired,
    /// The session has not authenticated in time.
    AuthTimeout,
    /// The application that authenticates clients does not answer.
    AuthUnavailable,
    /// The session has ended, or ends before it can handle the request.
    Ended,
    /// The request was handled and answered before.
    Answered,
    /// Too many requests of the session wait for an earlier one.
    TooManyEarly,
    /// The connection has created as many sessions as it may have that had no second request.
    TooManyUnused,
    /// The address of the client has as many connections and sessions as it may have.
    AddressFull,
    /// The server has as many connections and sessions as it may have.
    Full,
    /// The shard of the session does not keep up.
    Busy,
    /// The server shuts down.
    GoingAway,
}

impl SessionRefusal {
    /// Returns the status of the response.
    pub const fn status(self) -> u16 {
        match self {
            SessionRefusal::MalformedEvent => 400,
            SessionRefusal::TokenInvalid | SessionRefusal::TokenExpired | SessionRefusal::AuthTimeout => 401,
            SessionRefusal::Unknown | SessionRefusal::Ended => 403,
            SessionRefusal::Answered => 409,
            SessionRefusal::TooManyEarly | SessionRefusal::TooManyUnused | SessionRefusal::AddressFull => 429,
            SessionRefusal::Full
            | SessionRefusal::Busy
            | SessionRefusal::GoingAway
            | SessionRefusal::AuthUnavailable => 503,
        }
    }

    /// Returns the body of the response, a line.
    pub const fn line(self) -> &'static str {
        match self {
            SessionRefusal::MalformedEvent => "a line of the body is not an event: the session is closed\n",
            SessionRefusal::Unknown => "unknown session: connect again, with connect=true\n",
            SessionRefusal::TokenInvalid => "token invalid: connect again, with another token\n",
            SessionRefusal::TokenExpired => "token expired: connect again, with another token\n",
            SessionRefusal::AuthTimeout => "authentication timeout: connect again, and send a token\n",
            SessionRefusal::AuthUnavailable => "authentication unavailable: connect again later\n",
            SessionRefusal::Ended => "the session has ended: connect again, with another sid\n",
            SessionRefusal::Answered => "this seq was answered before: connect again, with another sid\n",
            SessionRefusal::TooManyEarly => "too many requests wait for an earlier seq\n",
            SessionRefusal::TooManyUnused => "too many sessions of this connection had only one request\n",
            SessionRefusal::AddressFull => "too many connections from this address\n",
            SessionRefusal::Full => "the server is full\n",
            SessionRefusal::Busy => "the server is busy\n",
            SessionRefusal::GoingAway => "the server is shutting down\n",
        }
    }

    /// Returns the headers that the response needs, as complete lines: the seconds after which the request may succeed
    /// (RFC 9110, 10.2.3). Places of a full server become free when clients disconnect, which can take a while; the
    /// other states pass in moments.
    pub const fn headers(self) -> &'static str {
        match self {
            SessionRefusal::AddressFull | SessionRefusal::Full => "Retry-After: 10\r\n",
            SessionRefusal::TooManyEarly
            | SessionRefusal::TooManyUnused
            | SessionRefusal::Busy
            | SessionRefusal::AuthUnavailable
            | SessionRefusal::GoingAway => "Retry-After: 1\r\n",
            // RFC 6750, 3: the error tells a client that had a token what is wrong with it.
            SessionRefusal::TokenInvalid | SessionRefusal::TokenExpired => {
                "WWW-Authenticate: Bearer error=\"invalid_token\"\r\n"
            }
            SessionRefusal::AuthTimeout => "WWW-Authenticate: Bearer\r\n",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [SessionRefusal; 14] = [
        SessionRefusal::AuthUnavailable,
        SessionRefusal::TokenInvalid,
        SessionRefusal::TokenExpired,
        SessionRefusal::AuthTimeout,
        SessionRefusal::MalformedEvent,
        SessionRefusal::Unknown,
        SessionRefusal::Ended,
        SessionRefusal::Answered,
        SessionRefusal::TooManyEarly,
        SessionRefusal::TooManyUnused,
        SessionRefusal::AddressFull,
        SessionRefusal::Full,
        SessionRefusal::Busy,
        SessionRefusal::GoingAway,
    ];

    #[test]
    fn each_refusal_has_a_line_of_its_own() {
        for refusal in ALL {
            let line = refusal.line();
            assert!(line.len() > 1 && line.find('\n') == Some(line.len() - 1), "{line:?}");
            assert_eq!(ALL.iter().filter(|other| other.line() == line).count(), 1, "{line:?}");
        }
    }

    #[test]
    fn clients_are_told_when_to_try_again() {
        for refusal in ALL {
            let is_temporary = matches!(refusal.status(), 429 | 503);
            assert_eq!(refusal.headers().starts_with("Retry-After: "), is_temporary, "{refusal:?}");
        }
    }
}
