//! The authentication of clients by an application: for tokens that no key of the settings is for, and for clients that are
//! known by a header of the request with which they connect, such as a cookie.

use crate::client::ClientId;
use crate::identity::{Flaw, Identity, TokenError};
use std::fmt;
use std::net::IpAddr;

/// An application that authenticates clients. [`Application::authenticator`](super::Application::authenticator) returns it.
///
/// ```
/// use quickio::app::{AuthAttempt, Authenticate};
/// use quickio::identity::Identity;
///
/// /// Every token is the name of its user.
/// struct Trusting;
///
/// impl Authenticate for Trusting {
///     fn authenticate(&self, attempt: AuthAttempt) {
///         let user = attempt.client().token.as_deref().unwrap_or_default();
///         match Identity::vouched(user, None, None, None) {
///             Ok(identity) => attempt.accept(identity),
///             Err(_) => attempt.refuse(),
///         }
///     }
/// }
/// ```
pub trait Authenticate: Send + Sync + 'static {
    /// Returns the headers that say who a client is, in lower case, such as `cookie`. The application is asked about a client
    /// without a token if the request that opens its WebSocket or HTTP session has one of them. Headers that the setting
    /// `app-headers` does not name are never seen.
    fn credential_headers(&self) -> Vec<String> {
        Vec::new()
    }

    /// Decides who a client is, now or later: the attempt can be kept, and moved to another thread. This function runs on a
    /// thread that all attempts share, and must not wait.
    fn authenticate(&self, attempt: AuthAttempt);
}

/// A client that wants to be authenticated.
#[derive(Clone, PartialEq, Eq)]
pub struct UnknownClient {
    /// The identity of the client.
    pub client: ClientId,
    /// The token. `None` for a client with a credential header.
    pub token: Option<Box<str>>,
    /// The IP address, as [`ClientInfo::address`](super::ClientInfo::address) has it.
    pub address: Option<IpAddr>,
    /// The transport: `websocket`, `raw`, or `http` for an HTTP session.
    pub transport: &'static str,
    /// The headers that the setting `app-headers` names, with their names in lower case.
    pub headers: Vec<(Box<str>, Box<str>)>,
}

impl fmt::Debug for UnknownClient {
    /// Shows no token and no header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnknownClient")
            .field("client", &self.client)
            .field("address", &self.address)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

/// A promise to decide who a client is. What is dropped without a decision is answered with 503, as what takes longer than
/// the setting `auth-timeout` is.
#[must_use = "an attempt that is dropped is answered with 503"]
pub struct AuthAttempt {
    client: UnknownClient,
    /// Taken when it is decided.
    end: Option<Box<dyn AttemptEnd>>,
}

/// The receiver of a decision. The server implements it.
pub(crate) trait AttemptEnd: Send {
    /// Takes the decision: an identity, nobody, or the reason why the client is not authenticated.
    fn decide(&self, decision: Result<Option<Identity>, TokenError>);

    /// Returns whether the server does not wait for the decision any more.
    fn is_late(&self) -> bool;
}

impl AuthAttempt {
    pub(crate) fn new(client: UnknownClient, end: Box<dyn AttemptEnd>) -> AuthAttempt {
        AuthAttempt { client, end: Some(end) }
    }

    /// Returns what is known of the client.
    pub fn client(&self) -> &UnknownClient {
        &self.client
    }

    /// Returns whether the server does not wait for the decision any more, because too much time has passed.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.end.as_ref().is_none_or(|end| end.is_late())
    }

    /// Accepts the client.
    pub fn accept(self, identity: Identity) {
        self.decide(Ok(Some(identity)));
    }

    /// Lets a client without a token connect, but as nobody: it can still authenticate. A token is refused by this.
    pub fn accept_nobody(self) {
        self.decide(Ok(None));
    }

    /// Refuses the client: its token is invalid.
    pub fn refuse(self) {
        self.decide(Err(TokenError::Invalid(Flaw::Refused)));
    }

    /// Refuses the client: its token has expired.
    pub fn refuse_expired(self) {
        self.decide(Err(TokenError::Expired));
    }

    /// Gives up: it cannot be known who the client is. The client is told to try again.
    pub fn fail(self) {
        self.decide(Err(TokenError::Unavailable));
    }

    fn decide(mut self, decision: Result<Option<Identity>, TokenError>) {
        if let Some(end) = self.end.take() {
            end.decide(decision);
        }
    }
}

impl Drop for AuthAttempt {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end.decide(Err(TokenError::Unavailable));
        }
    }
}

impl fmt::Debug for AuthAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AuthAttempt").field(&self.client).finish()
    }
}
