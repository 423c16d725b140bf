//! The causes for which a client fails or ends.

use crate::error::ProtocolError;
use std::fmt;
use std::io;

/// The cause for which a client has failed or ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndCause {
    /// The server sent a close frame, with this code.
    Closed(Option<u16>),
    /// The server closed the connection without a close frame.
    EndOfStream,
    /// The kernel reported this error.
    Os(i32),
    /// The server refused a subscription, with this answer.
    Refused(String),
    /// The server refused the upgrade, or violated the protocol.
    Protocol(String),
    /// A part of an opening took longer than this number of milliseconds.
    TimedOut(u64),
}

impl EndCause {
    /// Returns whether the server, or its kernel, has refused the connection.
    pub fn is_refusal(&self) -> bool {
        match self {
            EndCause::Closed(_) | EndCause::Refused(_) | EndCause::Protocol(_) => true,
            EndCause::Os(code) => *code == libc::ECONNREFUSED,
            EndCause::EndOfStream | EndCause::TimedOut(_) => false,
        }
    }
}

impl From<&io::Error> for EndCause {
    fn from(error: &io::Error) -> EndCause {
        match error.raw_os_error() {
            Some(code) => EndCause::Os(code),
            None => EndCause::Protocol(error.to_string()),
        }
    }
}

impl From<&ProtocolError> for EndCause {
    fn from(error: &ProtocolError) -> EndCause {
        EndCause::Protocol(error.to_string())
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndCause::Closed(Some(code)) => write!(f, "closed by the server with {code}"),
            EndCause::Closed(None) => f.write_str("closed by the server without a code"),
            EndCause::EndOfStream => f.write_str("the server ended the connection without a close frame"),
            EndCause::Os(code) => io::Error::from_raw_os_error(*code).fmt(f),
            EndCause::Refused(answer) => write!(f, "refused: {answer}"),
            EndCause::Protocol(error) => f.write_str(error),
            EndCause::TimedOut(ms) => write!(f, "no answer within {} s", *ms as f64 / 1e3),
        }
    }
}
