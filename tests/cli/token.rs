//! `quickio token`: what it signs, another program verifies.

use crate::support::Server;
use crate::support::tls::Authority;
use crate::{quickio, run};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::process::Command;

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn tokens_have_their_claims_and_a_signature_that_openssl_computes_too() {
    let files = Authority::new();
    let secret = "a secret of thirty-two bytes ....";
    let file = files.write("secret", format!("{secret}\n"));
    let end = run(
        quickio(&[
            "token",
            "--user",
            "7",
            "--expires",
            "2h",
            "--key-file",
            &file,
            "--key-id",
            "k1",
            "--on",
            "/user/7/**",
        ]),
        "",
    );
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    let token = end.stdout.strip_suffix('\n').unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(decoded(parts[0]), json!({"typ": "JWT", "alg": "HS256", "kid": "k1"}));
    let claims = decoded(parts[1]);
    let (issued, expires) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert_eq!(expires - issued, 7200);
    assert_eq!((&claims["sub"], &claims["qio"]), (&json!("7"), &json!({"on": ["/user/7/**"]})));
    let script = format!(
        "printf %s '{}.{}' | openssl dgst -sha256 -hmac '{secret}' -binary | base64 -w0",
        parts[0], parts[1]
    );
    let signature = Command::new("bash").args(["-c", &script]).output().unwrap();
    let signature = String::from_utf8(signature.stdout).unwrap();
    assert_eq!(signature.trim_end_matches('=').replace('+', "-").replace('/', "_"), parts[2]);
}

#[test]
fn keys_and_arguments_that_do_not_fit() {
    let files = Authority::new();
    let short = files.write("short", "short");
    let secret = files.write("secret", "x".repeat(64));
    let [_, key] = files.issue("server", &["a"]);
    let with = |arguments: &[&str]| run(quickio(&[&["token"], arguments].concat()), "");
    for (arguments, message) in [
        (&["--key-file", &secret][..], "token needs --user USER"),
        (&["--user", "7"], "token needs --key-file FILE"),
        (&["--user", "7", "--key-file", "/nonexistent"], "--key-file /nonexistent: No such file"),
        (&["--user", "7", "--key-file", &short], "short"),
        (&["--user", "7", "--key-file", &key], "name its --algorithm"),
        (&["--user", "7", "--key-file", &key, "--algorithm", "RS256"], "no private key for RS256"),
        (&["--user", "7", "--key-file", &secret, "--algorithm", "none"], "the algorithms are HS256"),
        (&["--user", "7", "--key-file", &secret, "--expires", "soon"], "--expires cannot be `soon`"),
    ] {
        let end = with(arguments);
        assert_eq!((end.code, end.stdout.as_str()), (Some(2), ""), "{arguments:?}: {}", end.stderr);
        assert!(end.stderr.contains(message), "{arguments:?}: {}", end.stderr);
    }
    assert_eq!(with(&["--user", "7", "--key-file", &key, "--algorithm", "ES256"]).code, Some(0));
}

#[test]
fn a_token_authenticates_a_publisher() {
    let files = Authority::new();
    let secret = files.write("secret", "x".repeat(40) + "\n");
    let settings =
        format!("[[auth-keys]]\nid = \"one\"\nalgorithm = \"HS256\"\nsecret-file = \"{secret}\"\n");
    let settings = files.write("settings.toml", settings);
    let server = Server::start(&["--config", &settings, "--auth", "required"]);
    let at =
        |arguments: &[&str]| run(quickio(&[&["pub", "--server", server.address()], arguments].concat()), "");
    let token = run(quickio(&["token", "--user", "7", "--key-id", "one", "--key-file", &secret]), "");
    let token = files.write("token", token.stdout);
    let end = at(&["--token-file", &token, "/clienttest/echo", "1"]);
    assert_eq!((end.code, end.stdout.as_str()), (Some(0), "1\n"), "{}", end.stderr);
    let end = at(&["/clienttest/echo", "1"]);
    assert!(end.code == Some(1) && end.stderr.contains("401"), "{}", end.stderr);
    let wrong = files.write("wrong", "no.jwt.here");
    let end = at(&["--token-file", &wrong, "/clienttest/echo", "1"]);
    assert!(
        end.code == Some(1) && end.stderr.contains("the server refused the token: 401"),
        "{}",
        end.stderr
    );
}

#[test]
fn explain_knows_what_a_token_grants() {
    let files = Authority::new();
    let secret = files.write("secret", "x".repeat(40) + "\n");
    let rule = "[[rules]]\npath = \"/chat/*\"\non = \"granted\"\nsend = \"user\"\n";
    let key = format!("[[auth-keys]]\nid = \"one\"\nalgorithm = \"HS256\"\nsecret-file = \"{secret}\"\n");
    let set = "[[auth-keys]]\nid = \"two\"\nalgorithm = \"ES256\"\njwks-url = \"http://127.0.0.1:1/\"\n";
    let own = files.write("own.toml", format!("auth = \"required\"\n{key}{rule}"));
    let fetched = files.write("fetched.toml", format!("auth = \"required\"\n{set}{rule}"));
    let sign = |arguments: &[&str]| {
        let end = run(quickio(&[&["token", "--user", "7", "--key-file", &secret], arguments].concat()), "");
        assert_eq!(end.code, Some(0), "{}", end.stderr);
        end.stdout
    };
    let token = files.write("token", sign(&["--expires", "never", "--on", "/chat/rust"]));
    let explain = |settings: &str, token: &str| {
        run(quickio(&["explain", "--config", settings, "--token-file", token, "/chat/rust", "/chat/go"]), "")
    };
    let end = explain(&own, &token);
    let paths = "/chat/rust\n  rule 1 of 1 decides: /chat/* (line 6)\n  on = granted: user 7 may subscribe, because the \
                 token's claim qio.on has /chat/rust\n  send = user: user 7 may send\n\n/chat/go\n  rule 1 of 1 decides: \
                 /chat/* (line 6)\n  on = granted: user 7 may not subscribe, because no pattern of the token's claim qio.on \
                 matches\n  send = user: user 7 may send\n";
    assert_eq!((end.code, end.stderr.as_str()), (Some(0), ""));
    assert_eq!(end.stdout, format!("the token of user 7 does not expire\n\n{paths}"));
    // Keys that must be fetched are not.
    let end = explain(&fetched, &token);
    let title = "the token of user 7 does not expire. Its signature was not verified, because no file has its key\n\n";
    assert_eq!((end.code, end.stdout), (Some(0), format!("{title}{paths}")), "{}", end.stderr);
    let (header, rest) = sign(&[]).split_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let forged = files.write("forged", format!("{header}.{}.AAAA", rest.split('.').next().unwrap()));
    let other = files.write("other", sign(&["--audience", "another"]));
    for (settings, token, message) in [
        (&own, &forged, "its signature does not match"),
        (&own, &other, "it is for another audience"),
        (&fetched, &other, "it is for another audience"),
    ] {
        let end = explain(settings, token);
        assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{}", end.stderr);
        assert!(end.stderr.contains("the server would refuse the token in") && end.stderr.contains(message));
    }
}
