//! Certificates of a running server: errors at its start, the admin endpoint over TLS, names, reloads, and clients with
//! certificates.

use crate::support::http;
use crate::support::server::{BINARY, command, run};
use crate::support::tls::{Authority, TlsStream, certificate, connect, presented};
use crate::support::{DEADLINE, Server};
use rustls::{AlertDescription, ClientConfig, HandshakeKind};
use std::fs;
use std::io::{self, Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Starts a server whose admin endpoint takes TLS.
fn start(certificates: &[&[String; 2]], arguments: &[&str]) -> Server {
    let mut all = vec!["--admin", "tls://127.0.0.1:0"];
    for [certificate, key] in certificates {
        all.extend(["--tls-cert", certificate, "--tls-key", key]);
    }
    all.extend(arguments);
    Server::start(&all)
}

/// Returns the certificate that the admin endpoint presents for a name.
fn served(server: &Server, authority: &Authority, name: &str) -> Vec<u8> {
    presented(&connect(server.admin(), &authority.client(), name).unwrap()).to_vec()
}

/// Returns the reason why a handshake has failed.
#[track_caller]
fn tls_error(result: io::Result<TlsStream>) -> rustls::Error {
    let error = result.expect_err("the handshake fails");
    let source = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    source.unwrap_or_else(|| panic!("no error of TLS: {error}")).clone()
}

/// Waits until the admin endpoint presents the certificate in a file.
#[track_caller]
fn wait_for_certificate(server: &Server, authority: &Authority, name: &str, file: &str) {
    let deadline = Instant::now() + DEADLINE;
    while served(server, authority, name) != certificate(file).to_vec() {
        assert!(Instant::now() < deadline, "the server never presented {file}");
        thread::sleep(Duration::from_millis(10)); // leaves the core to the server
    }
}

#[test]
fn curl_reads_the_admin_endpoint_over_tls() {
    let authority = Authority::new();
    let pair = authority.issue("server", &["localhost"]);
    let server = start(&[&pair], &[]);
    let port = server.admin().rsplit_once(':').unwrap().1;
    let curl = |url: &str| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "30", "--resolve", &format!("localhost:{port}:127.0.0.1")]);
        let output = curl.args(["--cacert", &authority.path("ca.pem"), url]).output().expect("curl runs");
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(curl(&format!("https://localhost:{port}/healthz")), (true, "ok\n".into()));
    let (_, metrics) = curl(&format!("https://localhost:{port}/metrics"));
    let gauge = "quickio_tls_certificate_expires_in_seconds{certificate=\"localhost\"} ";
    let left = metrics.lines().find_map(|line| line.strip_prefix(gauge)).expect(gauge);
    assert!(left.parse::<i64>().unwrap() > 24 * 60 * 60, "{left}");
    let (_, stats) = curl(&format!("https://localhost:{port}/stats"));
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["server"]["tls_certificates"][0]["name"], "localhost");
    assert!(!curl(&format!("https://127.0.0.1:{port}/healthz")).0, "the certificate is for another name");
}

#[test]
fn the_admin_endpoint_explains_itself_to_plain_http() {
    let authority = Authority::new();
    let server = start(&[&authority.issue("server", &["localhost"])], &[]);
    let address = server.admin().strip_prefix("tls://").expect("the address tells that it takes TLS");
    let response = http::exchange(address, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(response.head.status, 400);
    assert!(response.body.contains("this port speaks TLS: use https://"), "{response:?}");
}

/// RFC 7301, section 3.2.
#[test]
fn a_client_that_knows_only_http_2_gets_the_alert_for_it() {
    let authority = Authority::new();
    let server = start(&[&authority.issue("server", &["localhost"])], &[]);
    let mut client = (*authority.client()).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let error = tls_error(connect(server.admin(), &client.into(), "localhost"));
    assert_eq!(error, rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol));
}

#[test]
fn each_name_has_its_certificate() {
    let authority = Authority::new();
    let one = authority.issue("one", &["one.example"]);
    let two = authority.issue("two", &["*.two.example"]);
    let server = start(&[&one, &two], &[]);
    for (name, [file, _]) in [("one.example", &one), ("a.two.example", &two), ("b.two.example", &two)] {
        assert_eq!(served(&server, &authority, name), certificate(file).to_vec(), "{name}");
    }
    let error = tls_error(connect(server.admin(), &authority.client(), "other.example"));
    assert!(
        matches!(error, rustls::Error::InvalidCertificate(_)),
        "the default is for another name: {error}"
    );
}

#[test]
fn a_signal_reloads_certificates() {
    let authority = Authority::new();
    let pair = authority.issue("server", &["localhost"]);
    let server = start(&[&pair], &[]);
    let mut before = connect(server.admin(), &authority.client(), "localhost").unwrap();
    let old = presented(&before).to_vec();
    authority.issue("server", &["localhost"]);
    server.signal("HUP");
    wait_for_certificate(&server, &authority, "localhost", &pair[0]);
    server.log_with("the certificates were reloaded: new connections use them (localhost)");
    server.log_with("the reload is complete: 0 of 0 workers were replaced");
    assert_ne!(old, certificate(&pair[0]).to_vec());
    // A connection keeps what it began with.
    before.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut response = String::new();
    before.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[test]
fn changed_files_are_noticed_and_bad_ones_are_not_used() {
    let authority = Authority::new();
    let pair = authority.issue("server", &["localhost"]);
    let server = start(&[&pair], &[]);
    let old = certificate(&pair[0]).to_vec();
    authority.write("server.key", "nonsense");
    server.log_with("the certificates were not reloaded; those that were loaded before stay in use");
    let log = server.log_with("server.key (setting tls-key) has no private key in PEM");
    assert_eq!(log.matches("were not reloaded").count(), 1, "{log}");
    assert_eq!(served(&server, &authority, "localhost"), old);
    authority.issue("server", &["localhost"]);
    wait_for_certificate(&server, &authority, "localhost", &pair[0]);

    // The links of certbot and Kubernetes are replaced, not the files behind them.
    let target = authority.issue("next", &["localhost"]);
    for (link, target) in pair.iter().zip(&target) {
        let unfinished = format!("{link}.link");
        std::os::unix::fs::symlink(target, &unfinished).unwrap();
        fs::rename(unfinished, link).unwrap();
    }
    wait_for_certificate(&server, &authority, "localhost", &target[0]);
    // The files behind the links are watched too.
    authority.issue("next", &["localhost"]);
    wait_for_certificate(&server, &authority, "localhost", &target[0]);
}

#[test]
fn a_reload_applies_settings_of_tls() {
    let authority = Authority::new();
    let [one, one_key] = authority.issue("one", &["one.example"]);
    let [two, two_key] = authority.issue("two", &["two.example"]);
    let settings = authority.write("quickio.toml", format!("tls-cert = '{one}'\ntls-key = '{one_key}'\n"));
    let server = Server::launch(command(BINARY, &["--config", &settings, "--admin", "tls://127.0.0.1:0"]));
    assert!(connect(server.admin(), &authority.client(), "two.example").is_err());
    let both = format!("tls-cert = ['{one}', '{two}']\ntls-key = ['{one_key}', '{two_key}']\n");
    authority.write("quickio.toml", both);
    server.signal("HUP");
    server.log_with("changed settings that take effect without a restart: tls-cert, tls-key");
    server.log_with("the certificates were reloaded: new connections use them (one.example, two.example)");
    wait_for_certificate(&server, &authority, "two.example", &two);
}

#[test]
fn clients_with_certificates() {
    let (authority, others) = (Authority::new(), Authority::new());
    let pair = authority.issue("server", &["localhost"]);
    let ca = authority.path("ca.pem");
    let good = authority.client_with_certificate(&authority);
    let bad = authority.client_with_certificate(&others);
    let none = authority.client();
    for (auth, without_is_served) in [("required", false), ("optional", true)] {
        let server = start(&[&pair], &["--tls-client-ca", &ca, "--tls-client-auth", auth]);
        // In TLS 1.3 a client learns that it was refused only when it reads.
        let is_served = |client| -> io::Result<bool> {
            let mut stream = connect(server.admin(), client, "localhost")?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            let mut response = String::new();
            stream.read_to_string(&mut response)?;
            Ok(response.starts_with("HTTP/1.1 200 "))
        };
        assert!(is_served(&good).unwrap(), "{auth}");
        assert!(is_served(&bad).is_err(), "{auth}");
        assert_eq!(is_served(&none).unwrap_or(false), without_is_served, "{auth}");
    }
}

/// Requests a document over TLS. Returns whether the session was resumed.
fn is_resumed(server: &Server, client: &Arc<ClientConfig>) -> bool {
    let mut stream = connect(server.address(), client, "localhost").unwrap();
    stream.write_all(b"GET /quickio.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("the server announces the end");
    assert!(response.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&response));
    stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn sessions_are_resumed_by_every_shard_and_after_a_restart() {
    let authority = Authority::new();
    let pair = authority.issue("server", &["localhost"]);
    let secret = authority.path("tickets.key");
    let client = authority.client();
    let start = || {
        let [certificate, key] = &pair;
        let files = ["--tls-cert", certificate, "--tls-key", key, "--tls-ticket-key-file", &secret];
        Server::start(&[&["--shards", "4"], &files[..]].concat())
    };
    let server = start();
    assert!(!is_resumed(&server, &client));
    let resumed = (0..100).filter(|_| is_resumed(&server, &client)).count();
    assert!(resumed >= 99, "{resumed} of 100 sessions were resumed");
    let used = server
        .stats()
        .shards()
        .filter(|shard| shard["counters"]["connections_accepted"].as_u64() > Some(0))
        .count();
    assert_eq!(used, 4, "each shard has accepted some of them");
    drop(server);
    let server = start();
    let resumed = (0..100).filter(|_| is_resumed(&server, &client)).count();
    assert!(resumed >= 99, "{resumed} of 100 sessions were resumed after a restart");
    drop(server);
    fs::remove_file(&secret).unwrap();
    assert!(!is_resumed(&start(), &client), "another secret");
}

#[test]
fn errors_at_the_start() {
    let authority = Authority::new();
    let [certificate, key] = authority.issue("server", &["localhost"]);
    let [_, other_key] = authority.issue("other", &["localhost"]);
    for (arguments, expected) in [
        (
            vec!["--tls-cert", "/nonexistent.pem"],
            "cannot read /nonexistent.pem (setting tls-cert): No such file",
        ),
        (vec!["--tls-cert", &certificate, "--tls-key", &other_key], "does not belong to the certificate in"),
        (vec!["--tls-cert", &key, "--tls-key", &certificate], "have tls-cert and tls-key been exchanged?"),
        (vec!["--listen", "tls://127.0.0.1:0"], "listen tls://127.0.0.1:0 needs a certificate"),
    ] {
        let (code, _, log) = run(command(BINARY, &arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {log}");
        assert!(log.contains(expected), "{arguments:?}: {log}");
        let mut check = Command::new(BINARY);
        check.args(["check", "--admin", "off"]).args(&arguments);
        let (code, report, log) = run(check);
        assert_eq!(code, Some(2), "{arguments:?}: {report}{log}");
        assert!(format!("{report}{log}").contains(expected), "{arguments:?}: {report}{log}");
    }
}
