//! `quickio token`.

use super::args::{ArgumentError, Arguments};
use super::command::{Example, Flag, Invocation, Subcommand, no_details};
use super::connect::{self, ClientError};
use super::outcome;
use super::signing;
use crate::config;
use crate::identity::Algorithm;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "token",
    summary: "Signs a token with which a client authenticates",
    usage: "--user USER --key-file FILE [FLAG VALUE]...",
    about: "Prints a JSON Web Token for the event /qio/auth, signed with the secret or the private key in a file. It is meant for \
            tests, scripts and devices: a back end signs the tokens of its users itself, with any JWT library.\n\n\
            The server must know the key: a section [[auth-keys]] of its settings has the same algorithm, and the secret or the \
            public key.",
    flags: &[
        Flag { name: "user", value: "USER", doc: "The user, who is the claim sub." },
        Flag {
            name: "key-file",
            value: "FILE",
            doc: "The secret, without the line end behind it, or the private key in PEM (PKCS #8).",
        },
        Flag {
            name: "algorithm",
            value: "ALGORITHM",
            doc: "HS256, HS384 or HS512 for a secret; RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA for a \
                  private key. [default: HS256]",
        },
        Flag {
            name: "key-id",
            value: "ID",
            doc: "The id of the key in [[auth-keys]], which becomes the header kid.",
        },
        Flag {
            name: "expires",
            value: "DURATION",
            doc: "The time until the token expires, or never. [default: 1h]",
        },
        Flag { name: "audience", value: "TEXT", doc: "The claim aud." },
        Flag { name: "issuer", value: "TEXT", doc: "The claim iss." },
        Flag {
            name: "on",
            value: "PATTERN",
            doc: "A pattern of paths to which the user may subscribe. The flag may be repeated.",
        },
        Flag {
            name: "send",
            value: "PATTERN",
            doc: "A pattern of paths to which the user may send. The flag may be repeated.",
        },
        Flag { name: "info", value: "JSON", doc: "Information about the user, for applications." },
        Flag {
            name: "claim",
            value: "NAME=JSON",
            doc: "Another claim. A value that is not JSON is a text. The flag may be repeated.",
        },
    ],
    takes_settings: false,
    examples: &[
        Example {
            line: "(umask 077; openssl rand -hex 32 > secret)",
            does: "Makes a secret, for quickio token and for the server.",
        },
        Example {
            line: "quickio token --user 7 --expires 1h --key-file secret > jwt",
            does: "Signs a token for quickio pub --token-file jwt.",
        },
        Example {
            line: "quickio token --user 7 --key-file key.pem --algorithm ES256 --on '/user/7/**'",
            does: "Signs a token that allows subscriptions below /user/7, with a private key.",
        },
    ],
    details: no_details,
    run: |invocation: Invocation| connect::act(invocation, run),
};

/// The default of `--expires`.
const EXPIRES: Duration = Duration::from_secs(60 * 60);

/// The word for a token without an end.
const NEVER: &str = "never";

fn run(arguments: &Arguments) -> Result<ExitCode, ClientError> {
    let usage = |problem: &str| ArgumentError::Usage { command: COMMAND.name, problem: problem.into() };
    if !arguments.words.is_empty() {
        return Err(usage("token takes only flags").into());
    }
    let user = arguments
        .value("user")
        .filter(|user| !user.is_empty())
        .ok_or_else(|| usage("token needs --user USER"))?;
    let key_file =
        arguments.value("key-file").map(PathBuf::from).ok_or_else(|| usage("token needs --key-file FILE"))?;
    let algorithm = arguments.parsed("algorithm", |name| {
        Algorithm::named(name).ok_or_else(|| {
            let names: Vec<&str> = Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect();
            format!("the algorithms are {}", names.join(", "))
        })
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = claims(arguments, user, now)?;
    let token =
        signing::sign(&key_file, algorithm.unwrap_or(Algorithm::Hs256), arguments.value("key-id"), &claims);
    let token = token.map_err(|problem| ClientError::KeyFile { path: key_file, problem })?;
    Ok(outcome::print(&(token + "\n")))
}

/// Returns the claims of a token that is signed at this Unix time.
fn claims(arguments: &Arguments, user: &str, now: u64) -> Result<Value, ArgumentError> {
    let mut claims = Map::new();
    for claim in arguments.values("claim") {
        let bad = |problem: &str| ArgumentError::BadValue {
            flag: "claim",
            text: claim.into(),
            problem: problem.into(),
        };
        let (name, value) = claim.split_once('=').ok_or_else(|| bad("it has no = behind the name"))?;
        if ["sub", "iat", "exp", "aud", "iss", "qio"].contains(&name) {
            return Err(bad("this claim has a flag of its own"));
        }
        claims.insert(name.into(), serde_json::from_str(value).unwrap_or_else(|_| value.into()));
    }
    claims.insert("sub".into(), user.into());
    claims.insert("iat".into(), now.into());
    let expires = arguments.parsed("expires", |text| match text {
        NEVER => Ok(None),
        text => config::parse_duration(text).map(Some),
    })?;
    if let Some(left) = expires.unwrap_or(Some(EXPIRES)) {
        claims.insert("exp".into(), now.saturating_add(left.as_secs()).into());
    }
    for (claim, flag) in [("aud", "audience"), ("iss", "issuer")] {
        if let Some(text) = arguments.value(flag) {
            claims.insert(claim.into(), text.into());
        }
    }
    let mut qio = Map::new();
    for flag in ["on", "send"] {
        let patterns: Vec<&str> = arguments.values(flag).collect();
        if !patterns.is_empty() {
            qio.insert(flag.into(), json!(patterns));
        }
    }
    let info = arguments.parsed("info", |text| {
        serde_json::from_str::<Value>(text).map_err(|error| format!("it is not JSON ({error})"))
    })?;
    if let Some(info) = info {
        qio.insert("info".into(), info);
    }
    if !qio.is_empty() {
        claims.insert("qio".into(), Value::Object(qio));
    }
    Ok(Value::Object(claims))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;
    use std::ffi::OsString;

    fn claims_of(flags: &[&str]) -> Result<Value, String> {
        let arguments = args::read(&COMMAND, flags.iter().map(OsString::from).collect()).unwrap().unwrap();
        claims(&arguments, "7", 1000).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_become_claims() {
        assert_eq!(claims_of(&[]).unwrap(), json!({"sub": "7", "iat": 1000, "exp": 4600}));
        let flags = [
            "--expires=never",
            "--on",
            "/a/*",
            "--on",
            "/b",
            "--send=/c/**",
            "--info",
            "{\"x\":1}",
            "--audience=a",
            "--issuer=i",
            "--claim",
            "role=admin",
            "--claim",
            "level=3",
        ];
        let expected = json!({
            "sub": "7", "iat": 1000, "aud": "a", "iss": "i", "role": "admin", "level": 3,
            "qio": {"on": ["/a/*", "/b"], "send": ["/c/**"], "info": {"x": 1}},
        });
        assert_eq!(claims_of(&flags).unwrap(), expected);
        for (flags, problem) in [
            (&["--expires", "soon"][..], "--expires cannot be `soon`"),
            (&["--claim", "x"], "no ="),
            (&["--claim", "sub=8"], "flag of its own"),
            (&["--info", "x"], "not JSON"),
        ] {
            assert!(claims_of(flags).unwrap_err().contains(problem), "{flags:?}");
        }
    }
}
