//! The ways in which a server can violate the protocol.

/// A violation of the protocol by the server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("upgrade refused: {0}")]
    Upgrade(String),
    #[error("invalid HTTP response: {0}")]
    Http(String),
    #[error("the server answered {0}")]
    Status(String),
    #[error("a response {0}")]
    Response(&'static str),
    #[error("the answer to the greeting is not /qio/ohai")]
    Greeting,
    #[error("a frame that is {0}")]
    Frame(&'static str),
}
