//! Tokens: what a reconnect with a token costs beyond a plain one, and what each algorithm takes.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use criterion::{Criterion, criterion_group, criterion_main};
use quickio::identity::{Algorithm, AuthKey, KeySet, TokenPolicy};
use quickio::shard::bench::Reconnecting;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The allocator of the server: that of glibc takes far longer for a block of identities.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Clients that reconnect, each with a token of its own.
const CLIENTS: usize = 100_000;

/// Reconnects that are measured at once; what they send fits a second-level cache.
const AT_ONCE: u64 = 64;

/// Returns how long this many reconnects take.
fn reconnect(clients: &mut Reconnecting, times: u64) -> Duration {
    let mut left = times;
    let mut took = Duration::ZERO;
    while left > 0 {
        let count = left.min(AT_ONCE);
        let received = clients.received(count as usize);
        let start = Instant::now();
        clients.connect(received);
        took += start.elapsed();
        left -= count;
    }
    took
}

fn reconnects(c: &mut Criterion) {
    // `cargo test` runs the benchmarks without measuring anything.
    let is_measured = std::env::args().any(|argument| argument == "--bench");
    let clients = if is_measured { CLIENTS } else { 10 };
    let mut group = c.benchmark_group("reconnect");
    let mut plain = Reconnecting::new(clients, false);
    group.bench_function("plain", |b| b.iter_custom(|times| reconnect(&mut plain, times)));
    let mut known = Reconnecting::new(clients, true);
    let first = known.received(clients);
    known.connect(first);
    assert_eq!(known.accepted(), (clients as u64, 0));
    group.bench_function("with a token seen before", |b| b.iter_custom(|times| reconnect(&mut known, times)));
    let (accepted, seen) = known.accepted();
    assert_eq!(accepted - seen, clients as u64, "each token was verified once");
    group.finish();
}

fn message(algorithm: Algorithm) -> String {
    let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"JWT","alg":"{algorithm}","kid":"bench"}}"#));
    let claims = r#"{"sub":"user-7","iat":1790000000,"exp":9790000000,"name":"Somebody","qio":{"on":["/user/{user}/**"]}}"#;
    format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims))
}

fn pem(der: &PublicKeyX509Der<'_>) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
}

/// A key of an algorithm, and a token.
fn key_and_token(algorithm: Algorithm) -> (AuthKey, String) {
    let message = message(algorithm);
    let random = SystemRandom::new();
    let public = |pem: String| AuthKey::from_pem("bench", algorithm, pem.as_bytes()).expect("a public key");
    let (key, signature) = match algorithm {
        Algorithm::Hs256 => {
            let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]), message.as_bytes());
            let key = AuthKey::from_secret("bench", algorithm, &[7; 32]).expect("a secret");
            (key, signature.as_ref().to_vec())
        }
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).expect("a signature");
            (public(pem(&pair.public_key().as_der().expect("a public key"))), signature)
        }
        Algorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
            let signature = pair.sign(&random, message.as_bytes()).expect("a signature").as_ref().to_vec();
            (public(pem(&pair.public_key().as_der().expect("a public key"))), signature)
        }
        _ => {
            let pair = Ed25519KeyPair::generate().expect("a key");
            let signature = pair.sign(message.as_bytes()).as_ref().to_vec();
            (public(pem(&pair.public_key().as_der().expect("a public key"))), signature)
        }
    };
    (key, format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn verification(c: &mut Criterion) {
    let mut group = c.benchmark_group("verify");
    for algorithm in [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa] {
        let (key, token) = key_and_token(algorithm);
        let keys = KeySet::new([key], TokenPolicy::default());
        group.bench_function(algorithm.name(), |b| {
            b.iter(|| {
                keys.open(black_box(&token))
                    .and_then(|open| open.verify(&keys, 1_790_000_000))
                    .expect("a valid token")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, reconnects, verification);
criterion_main!(benches);
