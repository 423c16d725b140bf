//! What a token says, and the checks of it.

use super::Identity;
use super::error::{Flaw, TokenError};
use crate::limits::{AUTH_CLAIMS_MAX, AUTH_PATTERNS_MAX, AUTH_TOKEN_BYTES_MAX, AUTH_USER_BYTES_MAX};
use crate::rules::Pattern;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

/// What tokens must say, beyond being signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenPolicy {
    /// The audiences that this server is, of which a token must have one. If there are none, a token must not have any
    /// (RFC 7519, 4.1.3).
    pub audience: Vec<String>,
    /// The issuers, one of which a token must be from. If there are none, the issuer does not matter.
    pub issuer: Vec<String>,
    /// The seconds by which the clocks of the server and of the issuer may differ.
    pub leeway: u64,
}

/// The latest time that is taken for one, in Unix seconds: JSON numbers are exact up to here.
const TIME_MAX: u64 = (1 << 53) - 1;

/// Checks the claims of a token whose signature was verified.
pub(super) fn check(text: String, policy: &TokenPolicy, now: u64) -> Result<Identity, TokenError> {
    let flaw = |flaw| TokenError::Invalid(flaw);
    let claims: TokenClaims<'_> = serde_json::from_str(&text).map_err(|_| flaw(Flaw::Claims))?;
    let expires = claims.get("exp").map(time).transpose()?;
    let not_before = claims.get("nbf").map(time).transpose()?;
    if expires.is_some_and(|expires| now >= expires.saturating_add(policy.leeway)) {
        return Err(TokenError::Expired);
    }
    if not_before.is_some_and(|not_before| now.saturating_add(policy.leeway) < not_before) {
        return Err(flaw(Flaw::NotYetValid));
    }
    check_audience(claims.get("aud"), &policy.audience)?;
    if !policy.issuer.is_empty() {
        let issuer = claims.get("iss").and_then(string).ok_or(flaw(Flaw::Issuer))?;
        policy.issuer.contains(&issuer).then_some(()).ok_or(flaw(Flaw::Issuer))?;
    }
    let user = claims.get("sub").and_then(string).ok_or(flaw(Flaw::User))?;
    if !is_user(&user) {
        return Err(flaw(Flaw::User));
    }
    let user = user.into();
    let permissions = claims.get("qio").map(permissions).transpose()?;
    let Permissions { on, send, info } = permissions.unwrap_or_default();
    drop(claims);
    Ok(Identity { user, expires, claims: text.into(), on, send, info })
}

/// Checks who a client is, as somebody says who is trusted. `claims` and `permissions` are JSON.
pub(super) fn checked(
    user: &str,
    expires: Option<u64>,
    claims: Option<&str>,
    permissions: Option<&str>,
) -> Result<Identity, TokenError> {
    let flaw = |flaw| Err(TokenError::Invalid(flaw));
    let len = claims.map_or(0, str::len) + permissions.map_or(0, str::len);
    if len > AUTH_TOKEN_BYTES_MAX {
        return flaw(Flaw::TooLong);
    }
    if !is_user(user) {
        return flaw(Flaw::User);
    }
    if expires.is_some_and(|expires| expires > TIME_MAX) {
        return flaw(Flaw::Time);
    }
    let claims = match claims {
        Some(claims) if serde_json::from_str::<TokenClaims<'_>>(claims).is_ok() => claims.to_owned(),
        Some(_) => return flaw(Flaw::Claims),
        None => match expires {
            Some(expires) => serde_json::json!({"sub": user, "exp": expires}).to_string(),
            None => serde_json::json!({"sub": user}).to_string(),
        },
    };
    let permissions: Option<&RawValue> = permissions
        .map(serde_json::from_str)
        .transpose()
        .map_err(|_| TokenError::Invalid(Flaw::Permissions))?;
    let Permissions { on, send, info } = permissions.map(self::permissions).transpose()?.unwrap_or_default();
    Ok(Identity { user: user.into(), expires, claims: claims.into(), on, send, info })
}

fn is_user(user: &str) -> bool {
    !user.is_empty() && user.len() <= AUTH_USER_BYTES_MAX && !user.chars().any(char::is_control)
}

fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Parses a time, which may have a fraction (RFC 7519, 2).
fn time(value: &RawValue) -> Result<u64, TokenError> {
    let number: serde_json::Number =
        serde_json::from_str(value.get()).map_err(|_| TokenError::Invalid(Flaw::Time))?;
    let seconds = number.as_u64().or_else(|| {
        let seconds = number.as_f64().filter(|seconds| (0.0..=TIME_MAX as f64).contains(seconds))?;
        Some(seconds as u64)
    });
    seconds.filter(|seconds| *seconds <= TIME_MAX).ok_or(TokenError::Invalid(Flaw::Time))
}

fn check_audience(claim: Option<&RawValue>, accepted: &[String]) -> Result<(), TokenError> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Several(Vec<String>),
    }
    let refused = TokenError::Invalid(Flaw::Audience);
    let Some(claim) = claim else { return if accepted.is_empty() { Ok(()) } else { Err(refused) } };
    let is_accepted = |one: &String| accepted.contains(one);
    let fits = match serde_json::from_str(claim.get()) {
        Ok(Audience::One(one)) => is_accepted(&one),
        Ok(Audience::Several(several)) => several.iter().any(is_accepted),
        Err(_) => false,
    };
    if fits { Ok(()) } else { Err(refused) }
}

/// The claim `qio`.
#[derive(Default)]
struct Permissions {
    on: Box<[Pattern]>,
    send: Box<[Pattern]>,
    info: Option<Box<str>>,
}

fn permissions(claim: &RawValue) -> Result<Permissions, TokenError> {
    /// The form of the claim. A member that occurs twice is an error.
    #[derive(Deserialize)]
    struct Form<'a> {
        #[serde(default, borrow)]
        on: Vec<Cow<'a, str>>,
        #[serde(default, borrow)]
        send: Vec<Cow<'a, str>>,
        #[serde(borrow)]
        info: Option<&'a RawValue>,
    }
    let invalid = TokenError::Invalid(Flaw::Permissions);
    let form: Form<'_> = serde_json::from_str(claim.get()).map_err(|_| invalid)?;
    if form.on.len() > AUTH_PATTERNS_MAX || form.send.len() > AUTH_PATTERNS_MAX {
        return Err(invalid);
    }
    let info = form.info.map(|info| info.get().into());
    let patterns = |texts: Vec<Cow<'_, str>>| texts.iter().map(|text| text.parse()).collect::<Result<_, _>>();
    let (on, send) = (patterns(form.on).map_err(|_| invalid)?, patterns(form.send).map_err(|_| invalid)?);
    Ok(Permissions { on, send, info })
}

/// The claims of a token, each once (RFC 7519, 4: "The Claim Names within a JWT Claims Set MUST be unique").
struct TokenClaims<'a>(SmallVec<[(Cow<'a, str>, &'a RawValue); 12]>);

impl<'a> TokenClaims<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(claim, _)| claim == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for TokenClaims<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TokenClaims<'de>, D::Error> {
        struct Claims;

        impl<'de> Visitor<'de> for Claims {
            type Value = TokenClaims<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TokenClaims<'de>, A::Error> {
                let mut claims: SmallVec<[(Cow<'de, str>, &'de RawValue); 12]> = SmallVec::new();
                while let Some(Name(name)) = map.next_key()? {
                    let is_repeated = claims.iter().any(|(claim, _)| *claim == name);
                    if is_repeated || claims.len() == AUTH_CLAIMS_MAX {
                        return Err(A::Error::custom("repeated or too many claims"));
                    }
                    claims.push((name, map.next_value()?));
                }
                Ok(TokenClaims(claims))
            }
        }

        deserializer.deserialize_map(Claims)
    }
}

/// The name of a claim, which is borrowed unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
