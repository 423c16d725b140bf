//! Tokens over every transport of the real server: keys from files and from an address, their rotation, and expiry.

use crate::support::server::{BINARY, command};
use crate::support::tls::{self, Authority};
use crate::support::{Client, Conversation, DEADLINE, Ended, Server, Transport};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A directory for the files of a server. Dropping it removes it.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Files {
        let path = std::env::temp_dir().join(format!("quickio_auth_{}_{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let files = Files(path);
        files.write("secret", &[SECRET, b"\n"].concat());
        files
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// An entry of `[[auth-keys]]` with a file.
    fn key(&self, id: &str, algorithm: &str, kind: &str, name: &str) -> String {
        let path = self.path(name);
        format!("[[auth-keys]]\nid = '{id}'\nalgorithm = '{algorithm}'\n{kind} = '{path}'\n")
    }

    fn start(&self, settings: &str, arguments: &[&str]) -> Server {
        self.write("quickio.toml", settings.as_bytes());
        let config = self.path("quickio.toml");
        Server::launch(command(BINARY, &[&["--config", &config], arguments].concat()))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(user: &str, expires_in: u64) -> String {
    format!(r#"{{"sub":"{user}","exp":{}}}"#, unix_now() + expires_in)
}

fn message(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

/// A token that is signed with a secret.
fn signed(kid: &str, secret: &[u8], claims: &str) -> String {
    let message = message(&format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#), claims);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A key pair of ES256, whose signatures the server verifies beside its shards.
struct EcSigner(EcdsaKeyPair);

impl EcSigner {
    fn new() -> EcSigner {
        EcSigner(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn token(&self, kid: &str, claims: &str) -> String {
        let message = message(&format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#), claims);
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn pem(&self) -> String {
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    fn jwk(&self, kid: &str) -> String {
        let point = self.0.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        format!(r#"{{"kty":"EC","crv":"P-256","kid":"{kid}","use":"sig","x":"{x}","y":"{y}"}}"#)
    }
}

/// The server's end of a connection.
trait Peer: Read + Write {}

impl<T: Read + Write> Peer for T {}

/// An identity provider that publishes a key set over HTTP on loopback.
struct Provider {
    url: String,
    body: Arc<Mutex<String>>,
    requests: Arc<Mutex<usize>>,
}

impl Provider {
    fn start(body: String) -> Provider {
        Provider::start_with(body, None)
    }

    /// Starts a provider that takes TLS if there is a configuration for it.
    fn start_with(body: String, tls: Option<Arc<ServerConfig>>) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = match tls {
            Some(_) => format!("https://localhost:{port}/keys"),
            None => format!("http://127.0.0.1:{port}/keys"),
        };
        let (body, requests) = (Arc::new(Mutex::new(body)), Arc::new(Mutex::new(0)));
        let (served, count) = (Arc::clone(&body), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream: Box<dyn Peer> = match &tls {
                    Some(tls) => {
                        let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
                        Box::new(StreamOwned::new(connection, stream))
                    }
                    None => Box::new(stream),
                };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                    head.push(byte[0]);
                }
                if !head.starts_with(b"GET /keys HTTP/1.1\r\n") {
                    continue;
                }
                *count.lock().unwrap() += 1;
                let body = served.lock().unwrap().clone();
                let status = if body.is_empty() { "500 Oh" } else { "200 OK" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            }
        });
        Provider { url, body, requests }
    }

    fn set(&self, keys: &[String]) {
        *self.body.lock().unwrap() = format!(r#"{{"keys":[{}]}}"#, keys.join(","));
    }

    fn requests(&self) -> usize {
        *self.requests.lock().unwrap()
    }
}

fn authenticate(client: &mut dyn Conversation, token: &str) -> (u64, String) {
    let answer = client.request("/qio/auth", &format!("\"{token}\""));
    (answer.code(), answer.body["err_msg"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn clients_authenticate_over_every_transport() {
    let files = Files::new("transports");
    let ec = EcSigner::new();
    files.write("ec.pem", ec.pem().as_bytes());
    let settings = format!(
        "auth = 'required'\n{}{}",
        files.key("a", "HS256", "secret-file", "secret"),
        files.key("b", "ES256", "public-key-file", "ec.pem")
    );
    let server = files.start(&settings, &[]);
    for transport in Transport::ALL {
        for token in [signed("a", SECRET, &claims("7", 60)), ec.token("b", &claims("7", 60))] {
            let mut client = server.conversation(transport);
            let refused = client.request_code("/relay/room", "1", 401);
            assert_eq!(refused.body["err_msg"], "authenticate first", "{transport:?}");
            let mut forged = token.clone();
            let last = forged.len() - 20;
            forged.replace_range(last..last + 1, if &forged[last..last + 1] == "A" { "B" } else { "A" });
            assert_eq!(authenticate(&mut *client, &forged), (401, "token invalid".into()), "{transport:?}");
            let answer = client.request_code("/qio/auth", &format!("\"{token}\""), 200);
            assert_eq!(answer.body["data"]["user"], "7");
            assert!(answer.body["data"]["expires"].as_u64().unwrap() > unix_now());
            client.request_code("/qio/on", "\"/relay/room\"", 200);
            let other = signed("a", SECRET, &claims("8", 60));
            assert_eq!(authenticate(&mut *client, &other), (401, "token of another user".into()));
        }
    }
    let stats = server.stats();
    assert_eq!(stats.value("auth_accepted"), 8);
    assert_eq!(stats.value("auth_refused_signature"), 8);
    assert_eq!(stats.value("auth_refused_user"), 8);
    assert!(stats.value("auth_verified_beside") >= 5);
    assert!(stats.value("events_refused_auth") >= 8);
    server.log_with("a client was not authenticated");
}

#[test]
fn a_client_without_a_token_is_closed() {
    let files = Files::new("timeout");
    let settings = format!("auth = 'required'\n{}", files.key("a", "HS256", "secret-file", "secret"));
    let server = files.start(&settings, &["--clock", "manual"]);
    let mut silent = server.websocket();
    let mut known = server.websocket();
    assert_eq!(authenticate(&mut known, &signed("a", SECRET, &claims("7", 60))).0, 200);
    server.advance(Duration::from_secs(11));
    assert_eq!(silent.ended(), Ended::Close(1008, "authentication timeout".into()));
    known.request_code("/qio/ping", "", 200);
    // The token expires, and the client has some time to send another one.
    server.advance(Duration::from_secs(60));
    known.request_code("/qio/ping", "", 200);
    server.advance(Duration::from_secs(30));
    assert_eq!(known.ended(), Ended::Close(1008, "token expired".into()));
}

#[test]
fn keys_are_rotated_by_a_reload() {
    let files = Files::new("rotation");
    let (old, new) =
        (files.key("old", "HS256", "secret-file", "secret"), files.key("new", "HS256", "secret-file", "new"));
    let settings = |keys: &str| format!("auth = 'optional'\n{keys}");
    let server = files.start(&settings(&old), &[]);
    let (by_old, by_new) =
        (signed("old", SECRET, &claims("7", 60)), signed("new", &[9; 32], &claims("7", 60)));
    let code = |token: &str| authenticate(&mut server.websocket(), token).0;
    assert_eq!((code(&by_old), code(&by_new)), (200, 401));

    let reload = |keys: &str, count: usize| {
        files.write("quickio.toml", settings(keys).as_bytes());
        server.signal("HUP");
        let deadline = Instant::now() + DEADLINE;
        while server.log_with("the reload is complete").matches("the reload is complete").count() < count {
            assert!(Instant::now() < deadline, "the reload does not end");
            thread::sleep(Duration::from_millis(5)); // leaves the core to the server
        }
        server.wait_for_shards();
    };
    // A file that is not there changes nothing.
    reload(&(old.clone() + &new), 1);
    assert_eq!((code(&by_old), code(&by_new)), (200, 401));
    server.log_with("the keys of tokens were not reloaded");
    files.write("new", &[9; 32]);
    reload(&(old + &new), 2);
    assert_eq!((code(&by_old), code(&by_new)), (200, 200));
    reload(&new, 3);
    assert_eq!((code(&by_old), code(&by_new)), (401, 200), "a token that was seen is forgotten with its key");
}

#[test]
fn keys_are_fetched_from_an_address() {
    let files = Files::new("jwks");
    let (first, second) = (EcSigner::new(), EcSigner::new());
    let provider = Provider::start(String::new());
    provider.set(&[first.jwk("1")]);
    let settings = format!(
        "auth = 'optional'\n[[auth-keys]]\nid = 'provider'\nalgorithm = 'ES256'\njwks-url = '{}'\n",
        provider.url
    );
    let server = files.start(&settings, &[]);
    let code = |token: &str| authenticate(&mut server.websocket(), token).0;
    // The first token may come before the keys, and waits for them.
    assert_eq!(code(&first.token("1", &claims("7", 60))), 200);
    server.log_with("1 keys of tokens were fetched");
    // A flood of unknown keys fetches nothing, because the last fetch was a moment ago.
    provider.set(&[first.jwk("1"), second.jwk("2")]);
    for kid in 0..200 {
        let mut client = server.websocket();
        assert_eq!(authenticate(&mut client, &second.token(&format!("x{kid}"), &claims("7", 60))).0, 401);
    }
    assert_eq!(provider.requests(), 1);
    assert_eq!(code(&first.token("1", &claims("8", 60))), 200);
}

#[test]
fn keys_are_fetched_over_tls_from_whom_the_host_trusts() {
    let files = Files::new("tls");
    let (authority, stranger) = (Authority::new(), Authority::new());
    let key = EcSigner::new();
    for (issuer, code, part) in
        [(&authority, 200, "1 keys of tokens were fetched"), (&stranger, 401, "invalid peer certificate")]
    {
        let [certificate, private] = issuer.issue("provider", &["localhost"]);
        let chain = vec![tls::certificate(&certificate)];
        let private = PrivateKeyDer::from_pem_file(&private).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private).unwrap();
        let provider = Provider::start_with(String::new(), Some(Arc::new(config)));
        provider.set(&[key.jwk("1")]);
        let settings = format!(
            "auth = 'optional'\n[[auth-keys]]\nid = 'provider'\nalgorithm = 'ES256'\njwks-url = '{}'\n",
            provider.url
        );
        files.write("quickio.toml", settings.as_bytes());
        let config = files.path("quickio.toml");
        let mut command = command(BINARY, &["--config", &config]);
        command.env("SSL_CERT_FILE", authority.path("ca.pem"));
        let server = Server::launch(command);
        server.log_with(part);
        let found = authenticate(&mut server.websocket(), &key.token("1", &claims("7", 60))).0;
        assert_eq!(found, code, "{part}");
    }
}

#[test]
fn the_last_keys_stay_in_use_if_a_fetch_fails() {
    let files = Files::new("away");
    let key = EcSigner::new();
    let provider = Provider::start(String::new());
    let settings = format!(
        "auth = 'optional'\n{}[[auth-keys]]\nid = 'provider'\nalgorithm = 'ES256'\njwks-url = '{}'\n",
        files.key("a", "HS256", "secret-file", "secret"),
        provider.url
    );
    let server = files.start(&settings, &[]);
    server.log_with("the keys of tokens cannot be fetched");
    let code = |token: &str| authenticate(&mut server.websocket(), token).0;
    assert_eq!(code(&signed("a", SECRET, &claims("7", 60))), 200, "keys of files need no provider");
    assert_eq!(code(&key.token("1", &claims("7", 60))), 401);
}

#[test]
fn wrong_keys_keep_a_server_from_starting() {
    let files = Files::new("wrong");
    files.write("short", b"short");
    files.write("pem", b"no PEM");
    for (key, part) in [
        (files.key("a", "HS256", "secret-file", "missing"), "secret-file of [[auth-keys]] number 1"),
        (files.key("a", "HS256", "secret-file", "short"), "needs at least 32"),
        (files.key("a", "ES256", "public-key-file", "pem"), "not a public key for ES256"),
    ] {
        files.write("quickio.toml", format!("auth = 'optional'\n{key}").as_bytes());
        for arguments in [&["check"][..], &[]] {
            let config = files.path("quickio.toml");
            let output = std::process::Command::new(BINARY)
                .args(arguments)
                .args(["--config", &config, "--listen", "127.0.0.1:0", "--admin", "off"])
                .output()
                .unwrap();
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains(part), "{text}");
        }
    }
}

/// An application that answers with what it sees of a client.
const WHO: &str = "from quickio import app

@app.event('/who', client_info=True)
async def who(event):
    info = event.info
    return [info.user, (info.claims or {}).get('role'), info.address, info.headers, info.certificate]
";

/// Sends a request that opens a session; returns the data of the only answer.
fn open_session(stream: &mut (impl Read + Write), sid: usize, headers: &str) -> serde_json::Value {
    let body = "/who:1=";
    let request = format!(
        "POST /?sid={sid:032x}&connect=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    // A client of TLS may see the end of the stream as an error, after the response.
    let _ = stream.read_to_string(&mut response);
    let (_, answer) = response.rsplit_once("/qio/callback/1:0=").unwrap_or_else(|| panic!("{response}"));
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["code"], 200, "{response}");
    answer["data"].clone()
}

#[test]
fn applications_see_who_a_client_is() {
    let files = Files::new("who");
    files.write("who.py", WHO.as_bytes());
    let authority = Authority::new();
    let [certificate, key] = authority.issue("server", &["localhost"]);
    let settings = format!(
        "auth = 'optional'\napp-headers = ['Origin', 'X-Name']\nlisten = ['either://127.0.0.1:0']\ntls-cert = '{certificate}'\n\
         tls-key = '{key}'\ntls-client-ca = '{}'\ntls-client-auth = 'optional'\n{}",
        authority.path("ca.pem"),
        files.key("a", "HS256", "secret-file", "secret")
    );
    let server =
        files.start(&settings, &["--app", &files.path("who.py"), "--listen", "either://127.0.0.1:0"]);
    server.eventually_is("worker_links", 2);
    let address = server.address().trim_start_matches("either://").to_owned();
    let token = signed("a", SECRET, r#"{"sub":"7","role":"admin"}"#);
    let headers = format!(
        "Origin: https://a.example\r\nX-NAME: Zoe\r\nX-Other: no\r\nAuthorization: Bearer {token}\r\n"
    );
    let kept = serde_json::json!({"origin": "https://a.example", "x-name": "Zoe"});
    // Some of the sessions live on another shard than their request.
    for sid in 1..=8 {
        let mut plain = TcpStream::connect(&address).unwrap();
        let seen = open_session(&mut plain, sid, &headers);
        assert_eq!(seen, serde_json::json!(["7", "admin", "127.0.0.1", kept, null]));
        let client = authority.client_with_certificate(&authority);
        let mut secured = tls::connect(&address, &client, "localhost").unwrap();
        let seen = open_session(&mut secured, 100 + sid, "");
        assert_eq!(seen, serde_json::json!([null, null, "127.0.0.1", {}, "CN=rcgen self signed cert"]));
    }
    let mut raw = Client::open(&address, Transport::Raw);
    let seen = raw.request_code("/who", "", 200);
    assert_eq!(seen.body["data"], serde_json::json!([null, null, "127.0.0.1", {}, null]));
    authenticate(&mut raw, &token);
    assert_eq!(raw.request_code("/who", "", 200).body["data"][0], "7");
}
