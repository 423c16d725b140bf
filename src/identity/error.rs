//! The reasons for refusing a token or a key.

use super::algorithm::Algorithm;
use thiserror::Error;

/// The reason for refusing a token. Clients are told only its [`message`](TokenError::message): what is wrong with a forged
/// token is for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TokenError {
    /// The token is not one that the server accepts.
    #[error("the token is refused: {0}")]
    Invalid(Flaw),
    /// The token was valid.
    #[error("the token has expired")]
    Expired,
    /// Nobody could tell if the token is valid: the application that is asked does not answer.
    #[error("the application that authenticates clients does not answer")]
    Unavailable,
}

impl TokenError {
    /// Returns the text for the client.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            TokenError::Invalid(_) => "token invalid",
            TokenError::Expired => "token expired",
            TokenError::Unavailable => "authentication unavailable",
        }
    }

    /// Returns whether no key is for the token, which may therefore be none that a key could verify.
    #[must_use]
    pub const fn is_of_no_key(self) -> bool {
        matches!(self, TokenError::Invalid(Flaw::Form | Flaw::Header | Flaw::UnknownKey))
    }
}

/// The flaw of a token that is not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Flaw {
    #[error("it is longer than a token may be")]
    TooLong,
    #[error("it is not a JSON Web Token of three parts")]
    Form,
    #[error("its header is not understood")]
    Header,
    #[error("no key has its kid, or it has none and several keys could be meant")]
    UnknownKey,
    #[error("its algorithm is not the one of its key")]
    Algorithm,
    #[error("its signature does not match")]
    Signature,
    #[error("its claims are not an object of distinct names")]
    Claims,
    #[error("its claim sub, which is the user, is missing, empty, too long, or not a text")]
    User,
    #[error("its claim exp or nbf is not a time in seconds")]
    Time,
    #[error("its claim qio is not of the form {{\"on\": [patterns], \"send\": [patterns], \"info\": any}}")]
    Permissions,
    #[error("it is not valid yet (nbf)")]
    NotYetValid,
    #[error("it is for another audience (aud), see the setting auth-audience")]
    Audience,
    #[error("it is from another issuer (iss), see the setting auth-issuer")]
    Issuer,
    #[error("the application that authenticates clients refuses it")]
    Refused,
}

/// The reason why a key cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum KeyError {
    #[error(
        "the secret has {len} bytes, but {algorithm} needs at least {min}; `openssl rand -hex 64` makes one"
    )]
    SecretTooShort { algorithm: Algorithm, len: usize, min: usize },
    #[error("{algorithm} needs a public key, not a secret: name it as public-key-file")]
    NeedsPublicKey { algorithm: Algorithm },
    #[error("{algorithm} needs a secret, not a public key: name it as secret-file")]
    NeedsSecret { algorithm: Algorithm },
    #[error(
        "the file has a private key, which the server must not have; give it the public key: `openssl pkey -in KEY -pubout`"
    )]
    PrivateKey,
    #[error(
        "it is not a public key for {algorithm} in PEM, which begins with -----BEGIN PUBLIC KEY-----: {problem}"
    )]
    Pem { algorithm: Algorithm, problem: String },
    #[error("the public key cannot be used for {algorithm}, which needs {}", needs(*.algorithm))]
    WrongKind { algorithm: Algorithm },
    #[error("it is not a JSON Web Key Set: {0}")]
    NotJwks(String),
    #[error("the key set has more than {0} keys")]
    TooManyKeys(usize),
}

/// Returns the kind of public key that an algorithm needs.
fn needs(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Es256 => "a key of the curve P-256",
        Algorithm::Es384 => "a key of the curve P-384",
        Algorithm::EdDsa => "a key of Ed25519",
        _ => "an RSA key of 2048 to 8192 bits",
    }
}
