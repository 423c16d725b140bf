//! Tests of tokens: what is accepted, and every way in which a token pretends to be something else.

use super::testing::TestSigner;
use super::*;
use crate::limits::{
    AUTH_CLAIMS_MAX, AUTH_PATTERNS_MAX, AUTH_TOKEN_BYTES_MAX, AUTH_USER_BYTES_MAX, JWKS_KEYS_MAX,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::sync::Arc;

/// The present time of the tests, in Unix seconds.
const NOW: u64 = 1_800_000_000;

fn policy() -> TokenPolicy {
    TokenPolicy { leeway: 5, ..TokenPolicy::default() }
}

fn keys(keys: Vec<AuthKey>) -> KeySet {
    KeySet::new(keys, policy())
}

fn verify(keys: &KeySet, token: &str) -> Result<Identity, TokenError> {
    keys.open(token)?.verify(keys, NOW)
}

fn flaw(keys: &KeySet, token: &str) -> Flaw {
    match verify(keys, token) {
        Err(TokenError::Invalid(flaw)) => flaw,
        other => panic!("{token}: {other:?}"),
    }
}

/// The keys of a server with one secret, and its signer.
fn with_secret() -> (KeySet, TestSigner) {
    let signer = TestSigner::new(Algorithm::Hs256);
    (keys(vec![signer.verifier("a")]), signer)
}

#[test]
fn tokens_of_every_algorithm_are_accepted() {
    for algorithm in Algorithm::ALL {
        let signer = TestSigner::new(algorithm);
        let keys = keys(vec![signer.verifier("a")]);
        for kid in [Some("a"), None] {
            let token = signer.token(kid, r#"{"sub":"7"}"#);
            assert_eq!(
                &*verify(&keys, &token).unwrap_or_else(|error| panic!("{}: {error}", algorithm.name())).user,
                "7"
            );
        }
        assert_eq!(keys.open(&signer.token(None, "{}")).unwrap().is_fast(), algorithm.is_symmetric());
    }
}

#[test]
fn an_identity_has_what_the_token_says() {
    let (keys, signer) = with_secret();
    let claims = r#"{"sub":"Zoë","exp":1800000060.9,"nbf":1,"iat":1,"role":["x"],
        "qio":{"on":["/a/{user}/**"],"send":["/b/*"],"info":{"n":[1, 2]},"later":true}}"#;
    let identity = verify(&keys, &signer.token(Some("a"), claims)).unwrap();
    assert_eq!((&*identity.user, identity.expires), ("Zoë", Some(NOW + 60)));
    assert_eq!(&*identity.claims, claims);
    assert_eq!((identity.on[0].as_str(), identity.send[0].as_str()), ("/a/{user}/**", "/b/*"));
    assert_eq!(identity.info.as_deref(), Some(r#"{"n":[1, 2]}"#));
    assert!(identity.bytes() > size_of::<Identity>() + claims.len());

    let plain = verify(&keys, &signer.token(None, r#"{"\u0073ub":"7"}"#)).unwrap();
    assert_eq!((&*plain.user, plain.expires, plain.on.len()), ("7", None, 0), "a name may have escapes");
}

// Algorithms.

#[test]
fn a_token_without_a_signature_is_refused() {
    let (keys, signer) = with_secret();
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        for kid in ["", r#","kid":"a""#] {
            let signed = signer.sign(&format!(r#"{{"alg":"{alg}"{kid}}}"#), r#"{"sub":"7"}"#);
            let unsigned = format!("{}.", signed.rsplit_once('.').unwrap().0);
            for token in [signed, unsigned] {
                assert!(matches!(flaw(&keys, &token), Flaw::Algorithm | Flaw::UnknownKey), "{alg} {kid}");
            }
        }
    }
    // The right algorithm, without a signature.
    let signed = signer.token(None, r#"{"sub":"7"}"#);
    let message = signed.rsplit_once('.').unwrap().0;
    assert_eq!(flaw(&keys, &format!("{message}.")), Flaw::Signature);
    assert_eq!(flaw(&keys, message), Flaw::Form);
}

/// The attack that gives JWT libraries their reputation: a public key is no secret, so that anybody can sign with it.
#[test]
fn a_public_key_does_not_verify_as_a_secret() {
    for algorithm in [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::EdDsa] {
        let signer = TestSigner::new(algorithm);
        let keys = keys(vec![signer.verifier("a")]);
        let pem = signer.public_pem();
        for secret in [pem.as_bytes(), pem.trim_end().as_bytes()] {
            for hmac in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
                let forged = TestSigner::with_secret(hmac, secret);
                assert_eq!(flaw(&keys, &forged.token(Some("a"), r#"{"sub":"7"}"#)), Flaw::Algorithm);
                assert_eq!(flaw(&keys, &forged.token(None, r#"{"sub":"7"}"#)), Flaw::UnknownKey);
                // The header names the key's algorithm, but the signature is an HMAC.
                let header = format!(r#"{{"alg":"{algorithm}","kid":"a"}}"#);
                assert_eq!(flaw(&keys, &forged.sign(&header, r#"{"sub":"7"}"#)), Flaw::Signature);
            }
        }
    }
}

#[test]
fn an_algorithm_of_the_same_family_is_another_algorithm() {
    let (rs, ps) = (TestSigner::new(Algorithm::Rs256), TestSigner::new(Algorithm::Ps256));
    let rs_keys = keys(vec![rs.verifier("a")]);
    assert_eq!(flaw(&rs_keys, &ps.token(Some("a"), r#"{"sub":"7"}"#)), Flaw::Algorithm);
    assert_eq!(flaw(&rs_keys, &ps.sign(r#"{"alg":"RS256","kid":"a"}"#, r#"{"sub":"7"}"#)), Flaw::Signature);
    let (keys, _) = with_secret();
    let longer = TestSigner::new(Algorithm::Hs512);
    assert_eq!(flaw(&keys, &longer.token(Some("a"), r#"{"sub":"7"}"#)), Flaw::Algorithm);
}

#[test]
fn a_header_with_a_key_or_an_address_of_its_own_is_no_use() {
    let (keys, _) = with_secret();
    let attacker = TestSigner::with_secret(Algorithm::Hs256, &[9; 32]);
    let own = URL_SAFE_NO_PAD.encode([9; 32]);
    for header in [
        format!(r#"{{"alg":"HS256","jwk":{{"kty":"oct","k":"{own}"}}}}"#),
        r#"{"alg":"HS256","jku":"https://attacker.example/jwks"}"#.into(),
        r#"{"alg":"HS256","x5u":"https://attacker.example/cert"}"#.into(),
        r#"{"alg":"HS256","kid":"a"}"#.into(),
    ] {
        assert_eq!(flaw(&keys, &attacker.sign(&header, r#"{"sub":"7"}"#)), Flaw::Signature, "{header}");
    }
}

#[test]
fn a_header_that_asks_for_more_is_refused() {
    let (keys, signer) = with_secret();
    for header in [
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","enc":"A128GCM"}"#,
        r#"{"alg":"HS256","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"a","kid":"a"}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":"HS256","kid":7}"#,
        r#"{"kid":"a"}"#,
        r#"["HS256"]"#,
        "",
        "{",
    ] {
        assert_eq!(flaw(&keys, &signer.sign(header, r#"{"sub":"7"}"#)), Flaw::Header, "{header}");
    }
}

// Keys.

#[test]
fn the_kid_selects_the_key() {
    let (old, new) = (
        TestSigner::with_secret(Algorithm::Hs256, &[1; 32]),
        TestSigner::with_secret(Algorithm::Hs256, &[2; 32]),
    );
    let keys = keys(vec![old.verifier("old"), new.verifier("new")]);
    let claims = r#"{"sub":"7"}"#;
    assert!(
        verify(&keys, &old.token(Some("old"), claims)).is_ok(),
        "several keys are valid while they are changed"
    );
    assert!(verify(&keys, &new.token(Some("new"), claims)).is_ok());
    assert_eq!(flaw(&keys, &old.token(Some("new"), claims)), Flaw::Signature);
    for kid in ["other", "", "OLD", "old ", "../../dev/null", "' OR 1=1"] {
        assert_eq!(flaw(&keys, &old.token(Some(kid), claims)), Flaw::UnknownKey, "{kid}");
    }
    assert_eq!(flaw(&keys, &old.token(None, claims)), Flaw::UnknownKey, "two keys could be meant");
    let other = TestSigner::new(Algorithm::Es256);
    let keys = KeySet::new(vec![old.verifier("old"), other.verifier("other")], policy());
    assert!(verify(&keys, &old.token(None, claims)).is_ok(), "only one key has this algorithm");
}

#[test]
fn keys_that_do_not_fit_their_algorithm_are_refused() {
    let secret = AuthKey::from_secret("a", Algorithm::Hs512, &[7; 32]).unwrap_err();
    assert!(matches!(secret, KeyError::SecretTooShort { len: 32, min: 64, .. }), "{secret}");
    assert!(matches!(
        AuthKey::from_secret("a", Algorithm::Es256, &[7; 32]),
        Err(KeyError::NeedsPublicKey { .. })
    ));
    let pem_of = |algorithm| TestSigner::new(algorithm).public_pem();
    let load = |algorithm, pem: &str| AuthKey::from_pem("a", algorithm, pem.as_bytes());
    assert!(matches!(load(Algorithm::Hs256, &pem_of(Algorithm::Es256)), Err(KeyError::NeedsSecret { .. })));
    let kinds = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];
    for algorithm in kinds {
        for key in kinds {
            assert_eq!(
                load(algorithm, &pem_of(key)).is_ok(),
                algorithm == key,
                "a key of {key} for {algorithm}"
            );
        }
        assert!(matches!(load(algorithm, &TestSigner::private_pem()), Err(KeyError::PrivateKey)));
        assert!(matches!(load(algorithm, "no PEM"), Err(KeyError::Pem { .. })));
    }
}

#[test]
fn the_same_key_has_the_same_mark() {
    let mark = |algorithm, secret: &[u8]| TestSigner::with_secret(algorithm, secret).verifier("a").mark();
    assert_eq!(mark(Algorithm::Hs256, &[7; 64]), mark(Algorithm::Hs256, &[7; 64]));
    assert_ne!(mark(Algorithm::Hs256, &[7; 64]), mark(Algorithm::Hs384, &[7; 64]));
    assert_ne!(mark(Algorithm::Hs256, &[7; 64]), mark(Algorithm::Hs256, &[8; 64]));
}

// Claims.

#[test]
fn times_are_compared_with_some_leeway() {
    let (keys, signer) = with_secret();
    let at = |name: &str, time: &str| {
        verify(&keys, &signer.token(None, &format!(r#"{{"sub":"7","{name}":{time}}}"#)))
    };
    let relative = |name: &str, seconds: i64| at(name, &(NOW as i64 + seconds).to_string()).map(|_| ());
    assert_eq!(relative("exp", 1), Ok(()));
    assert_eq!(relative("exp", -4), Ok(()));
    assert_eq!(relative("exp", -5), Err(TokenError::Expired));
    assert_eq!(relative("exp", -100_000), Err(TokenError::Expired));
    assert_eq!(at("exp", "0").map(|_| ()), Err(TokenError::Expired));
    assert_eq!(relative("nbf", 5), Ok(()));
    assert_eq!(relative("nbf", 6), Err(TokenError::Invalid(Flaw::NotYetValid)));
    for time in [
        "-1",
        "\"1900000000\"",
        "null",
        "true",
        "[1]",
        "{}",
        "1e300",
        "1e400",
        "9007199254740992",
        "18446744073709551616",
    ] {
        for name in ["exp", "nbf"] {
            let refused = at(name, time).map(|_| ());
            assert!(
                matches!(refused, Err(TokenError::Invalid(Flaw::Time | Flaw::Claims))),
                "{name} {time}: {refused:?}"
            );
        }
    }
    assert_eq!(at("exp", "9007199254740991").unwrap().expires, Some(9_007_199_254_740_991));
}

#[test]
fn an_expired_token_that_was_forged_is_invalid() {
    let (keys, _) = with_secret();
    let forged = TestSigner::with_secret(Algorithm::Hs256, &[9; 32]);
    assert_eq!(flaw(&keys, &forged.token(None, r#"{"sub":"7","exp":1}"#)), Flaw::Signature);
}

#[test]
fn audience_and_issuer_must_be_those_of_the_settings() {
    let signer = TestSigner::new(Algorithm::Hs256);
    let (audience, issuer) =
        (vec!["here".to_owned(), "there".into()], vec!["https://id.example/".to_owned()]);
    let strict = KeySet::new(vec![signer.verifier("a")], TokenPolicy { audience, issuer, leeway: 0 });
    let says = |keys: &KeySet, claims: &str| {
        verify(keys, &signer.token(None, &format!(r#"{{"sub":"7"{claims}}}"#))).map(|_| ())
    };
    let invalid = |flaw| Err(TokenError::Invalid(flaw));
    let iss = r#","iss":"https://id.example/""#;
    for aud in [r#""here""#, r#"["elsewhere","there"]"#] {
        assert_eq!(says(&strict, &format!(r#"{iss},"aud":{aud}"#)), Ok(()));
    }
    for aud in [
        r#""elsewhere""#,
        r#"["elsewhere"]"#,
        "[]",
        "7",
        "null",
        r#"["here",7]"#,
        r#"{"here":1}"#,
        r#""HERE""#,
    ] {
        assert_eq!(says(&strict, &format!(r#"{iss},"aud":{aud}"#)), invalid(Flaw::Audience), "{aud}");
    }
    assert_eq!(says(&strict, iss), invalid(Flaw::Audience), "the audience must be given");
    for iss in ["", r#","iss":"https://id.example""#, r#","iss":["https://id.example/"]"#, r#","iss":null"#] {
        assert_eq!(says(&strict, &format!(r#","aud":"here"{iss}"#)), invalid(Flaw::Issuer), "{iss}");
    }
    let (open, _) = with_secret();
    assert_eq!(says(&open, r#","iss":"anybody""#), Ok(()));
    assert_eq!(says(&open, r#","aud":"here""#), invalid(Flaw::Audience), "the token is for somebody else");
}

#[test]
fn a_claim_may_occur_only_once() {
    let (keys, signer) = with_secret();
    for claims in [
        r#"{"sub":"7","sub":"8"}"#,
        r#"{"sub":"7","exp":1,"exp":1900000000}"#,
        r#"{"sub":"7","role":"user","role":"admin"}"#,
        r#"{"sub":"7","\u0073ub":"8"}"#,
    ] {
        assert_eq!(flaw(&keys, &signer.token(None, claims)), Flaw::Claims, "{claims}");
    }
    let twice = r#"{"sub":"7","qio":{"on":["/a"],"on":["/b"]}}"#;
    assert_eq!(flaw(&keys, &signer.token(None, twice)), Flaw::Permissions);
}

#[test]
fn claims_that_are_not_an_object_are_refused() {
    let (keys, signer) = with_secret();
    for claims in [
        "",
        "[]",
        "7",
        r#""7""#,
        "null",
        "{",
        r#"{"sub":"7"}x"#,
        r#"{"sub":"7"}{"sub":"8"}"#,
        r#"{"sub":'7'}"#,
    ] {
        assert_eq!(flaw(&keys, &signer.token(None, claims)), Flaw::Claims, "{claims}");
    }
}

#[test]
fn the_user_is_a_text_of_some_length() {
    let (keys, signer) = with_secret();
    let longest = "x".repeat(AUTH_USER_BYTES_MAX);
    assert!(verify(&keys, &signer.token(None, &format!(r#"{{"sub":"{longest}"}}"#))).is_ok());
    let longer = format!(r#"{{"sub":"{longest}x"}}"#);
    for claims in [
        "{}",
        r#"{"sub":7}"#,
        r#"{"sub":null}"#,
        r#"{"sub":""}"#,
        r#"{"sub":["7"]}"#,
        r#"{"sub":"a\nb"}"#,
        &longer,
    ] {
        assert_eq!(flaw(&keys, &signer.token(None, claims)), Flaw::User, "{claims}");
    }
}

#[test]
fn permissions_are_lists_of_patterns() {
    let (keys, signer) = with_secret();
    let says = |qio: &str| verify(&keys, &signer.token(None, &format!(r#"{{"sub":"7","qio":{qio}}}"#)));
    assert_eq!(says("{}").unwrap().info, None);
    assert_eq!(says(r#"{"info":"x"}"#).unwrap().info.as_deref(), Some(r#""x""#));
    let many = |n: usize| format!(r#"{{"send":[{}]}}"#, vec![r#""/a""#; n].join(","));
    assert_eq!(says(&many(AUTH_PATTERNS_MAX)).unwrap().send.len(), AUTH_PATTERNS_MAX);
    for qio in [
        "[]",
        "7",
        r#"{"on":"/a"}"#,
        r#"{"on":[7]}"#,
        r#"{"on":["/a/**/b"]}"#,
        r#"{"send":["a"]}"#,
        r#"{"send":{"/a":1}}"#,
        &many(AUTH_PATTERNS_MAX + 1),
    ] {
        let refused = says(qio).map(|_| ());
        assert_eq!(refused, Err(TokenError::Invalid(Flaw::Permissions)), "{qio}");
    }
}

// Bounds.

#[test]
fn huge_tokens_are_refused_before_they_are_parsed() {
    let (keys, signer) = with_secret();
    let padded = |n: usize| signer.token(None, &format!(r#"{{"sub":"7","x":"{}"}}"#, "x".repeat(n)));
    assert!(verify(&keys, &padded(5000)).is_ok());
    let long = padded(7000);
    assert!(long.len() > AUTH_TOKEN_BYTES_MAX);
    assert_eq!(flaw(&keys, &long), Flaw::TooLong);
    assert_eq!(flaw(&keys, &"x".repeat(AUTH_TOKEN_BYTES_MAX + 1)), Flaw::TooLong);
    assert_eq!(flaw(&keys, &".".repeat(AUTH_TOKEN_BYTES_MAX)), Flaw::Form);

    let claims = |n: usize| {
        let more: String = (1..n).map(|at| format!(r#","c{at}":{at}"#)).collect();
        signer.token(None, &format!(r#"{{"sub":"7"{more}}}"#))
    };
    assert!(verify(&keys, &claims(AUTH_CLAIMS_MAX)).is_ok());
    assert_eq!(flaw(&keys, &claims(AUTH_CLAIMS_MAX + 1)), Flaw::Claims);
    let deep = format!(r#"{{"sub":"7","x":{}{}}}"#, "[".repeat(2500), "]".repeat(2500));
    assert!(verify(&keys, &signer.token(None, &deep)).is_ok(), "depth takes no stack");
}

#[test]
fn what_is_no_token_is_refused() {
    let (keys, signer) = with_secret();
    let token = signer.token(None, r#"{"sub":"7"}"#);
    for text in [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c.d",
        "é.é.é",
        " ",
        "null",
        &format!("{token}."),
        &format!(" {token}"),
        &format!("{token}="),
    ] {
        assert!(verify(&keys, text).is_err(), "{text}");
    }
    // Every change of a single character makes another token.
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(verify(&keys, &changed).is_err(), "{changed}");
    }
}

// Key sets.

#[test]
fn a_key_set_gives_the_keys_of_an_algorithm() {
    let (one, other) = (TestSigner::new(Algorithm::Es256), TestSigner::new(Algorithm::Es256));
    let ec = |signer: &TestSigner, more: &str| {
        let bytes = signer.public_bytes();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&bytes[1..33]), URL_SAFE_NO_PAD.encode(&bytes[33..]));
        format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"{more}}}"#)
    };
    let ed = URL_SAFE_NO_PAD.encode(TestSigner::new(Algorithm::EdDsa).public_bytes());
    let set = format!(
        r#"{{"keys":[{},{},{},{},{},{{"kty":"OKP","crv":"Ed25519","x":"{ed}"}},{{"kty":"new","z":[]}},7,{{"kty":"oct","k":"AA"}}]}}"#,
        ec(&one, r#","kid":"1","alg":"ES256","use":"sig""#),
        ec(&other, r#","kid":"2""#),
        ec(&other, r#","kid":"3","use":"enc""#),
        ec(&other, r#","kid":"4","alg":"ES384""#),
        r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA","kid":"5"}"#,
    );
    let (found, skipped) = keys_of_jwks(set.as_bytes(), Algorithm::Es256).unwrap();
    let ids: Vec<_> = found.iter().map(AuthKey::id).collect();
    assert_eq!((ids, skipped), (vec![Some("1"), Some("2")], SkippedKeys(7)));
    let keys = keys(found);
    assert!(verify(&keys, &one.token(Some("1"), r#"{"sub":"7"}"#)).is_ok());
    assert_eq!(flaw(&keys, &one.token(Some("2"), r#"{"sub":"7"}"#)), Flaw::Signature);
    assert_eq!(flaw(&keys, &one.token(Some("5"), r#"{"sub":"7"}"#)), Flaw::UnknownKey);
    assert_eq!(keys_of_jwks(set.as_bytes(), Algorithm::EdDsa).unwrap().0.len(), 1);
    assert_eq!(keys_of_jwks(set.as_bytes(), Algorithm::Rs256).unwrap().0.len(), 0);
}

#[test]
fn a_key_set_that_is_none_is_refused() {
    for text in ["", "{}", "[]", "<html>", r#"{"keys":7}"#] {
        assert!(
            matches!(keys_of_jwks(text.as_bytes(), Algorithm::Es256), Err(KeyError::NotJwks(_))),
            "{text}"
        );
    }
    let many = format!(r#"{{"keys":[{}]}}"#, vec!["{}"; JWKS_KEYS_MAX + 1].join(","));
    assert_eq!(
        keys_of_jwks(many.as_bytes(), Algorithm::Es256).unwrap_err(),
        KeyError::TooManyKeys(JWKS_KEYS_MAX)
    );
    assert!(matches!(keys_of_jwks(b"{}", Algorithm::Hs256), Err(KeyError::NeedsSecret { .. })));
}

// Tokens that were seen.

fn seen(user: usize, key: KeyMark) -> (TokenDigest, Seen) {
    let (user, claims): (Box<str>, Box<str>) = (user.to_string().into(), "x".repeat(200).into());
    let token = TokenDigest::of(&user);
    let identity = Identity { user, expires: None, claims, on: [].into(), send: [].into(), info: None };
    (token, Seen { identity: Arc::new(identity), key })
}

#[test]
fn tokens_are_remembered_within_a_bound() {
    let (keys, signer) = with_secret();
    let mark = signer.verifier("a").mark();
    let mut tokens = SeenTokens::new(64 * 1024);
    for user in 0..1000 {
        let (token, of) = seen(user, mark);
        tokens.insert(token, of);
        tokens.check();
        // One that comes back again and again stays.
        assert!(tokens.get(&seen(0, mark).0, &keys).is_some(), "{user}");
    }
    tokens.check();
    assert!(tokens.bytes() <= 64 * 1024 && tokens.len() > 50, "{} {}", tokens.bytes(), tokens.len());
    let user = tokens.get(&seen(999, mark).0, &keys).map(|identity| identity.user.clone());
    assert_eq!(user.as_deref(), Some("999"));
    assert!(tokens.get(&seen(1, mark).0, &keys).is_none(), "forgotten");
    tokens.clear();
    assert!(tokens.is_empty() && tokens.get(&seen(0, mark).0, &keys).is_none());
}

#[test]
fn a_token_is_forgotten_with_its_key() {
    let (keys, signer) = with_secret();
    let (token, of) = seen(1, signer.verifier("a").mark());
    let mut tokens = SeenTokens::new(64 * 1024);
    tokens.insert(token, of);
    assert!(tokens.get(&token, &keys).is_some());
    let other =
        KeySet::new(vec![TestSigner::with_secret(Algorithm::Hs256, &[9; 32]).verifier("a")], policy());
    assert!(tokens.get(&token, &other).is_none());
    let again = KeySet::new(vec![signer.verifier("renamed")], policy());
    assert!(tokens.get(&token, &again).is_some(), "the key was loaded again");
}

#[test]
fn nothing_is_remembered_if_there_is_no_room() {
    let (keys, signer) = with_secret();
    let (token, of) = seen(1, signer.verifier("a").mark());
    let mut tokens = SeenTokens::new(0);
    tokens.insert(token, of);
    assert!(tokens.is_empty() && tokens.get(&token, &keys).is_none());
}

#[test]
fn an_identity_expires() {
    let (keys, signer) = with_secret();
    let identity =
        verify(&keys, &signer.token(None, &format!(r#"{{"sub":"7","exp":{}}}"#, NOW + 60))).unwrap();
    assert!(!identity.has_expired(NOW + 64, 5) && identity.has_expired(NOW + 65, 5));
    let forever = verify(&keys, &signer.token(None, r#"{"sub":"7"}"#)).unwrap();
    assert!(!forever.has_expired(u64::MAX, 0));
}
