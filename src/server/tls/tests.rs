//! Certificates from files to handshakes, in memory: rustls is the client.

use super::error::TlsError;
use super::files::FilesRead;
use super::keypair::KeyPair;
use super::load::{Loaded, TicketSecret, check, load, provider};
use super::service::{Reloaded, TlsService};
use crate::config::{Config, TlsClientAuth, TlsVersion};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair as TestKey};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Returns a certificate that signs itself.
pub(super) fn certificate(names: &[&str], from: SystemTime, to: SystemTime) -> rcgen::Certificate {
    let mut params = params(names);
    params.not_before = from.into();
    params.not_after = to.into();
    params.self_signed(&TestKey::generate().unwrap()).unwrap()
}

/// Returns a certificate and that of its issuer.
pub(super) fn chain_of(name: &str) -> [CertificateDer<'static>; 2] {
    let authority = Authority::new("issuer");
    let own = params(&[name]).signed_by(&TestKey::generate().unwrap(), &authority.0).unwrap();
    [own.der().clone(), authority.0.der().clone()]
}

/// Returns a certificate for these names, with its key.
pub(super) fn pair(names: &[&str]) -> KeyPair {
    let files = Files::new();
    let (certificate, key) = files.pair("pair", names, &Authority::new("issuer"));
    KeyPair::read(&certificate, Some(&key), &provider(), &mut FilesRead::new(), &mut Vec::new()).unwrap()
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}

/// An authority that issues certificates.
struct Authority(CertifiedIssuer<'static, TestKey>);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, TestKey::generate().unwrap()).unwrap())
    }

    /// Issues a certificate, and returns it and its key in PEM.
    fn issue(&self, names: &[&str]) -> (String, String) {
        let key = TestKey::generate().unwrap();
        (params(names).signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }
}

/// A directory with files, which are removed when the value is dropped.
struct Files(PathBuf);

impl Files {
    fn new() -> Files {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("quickio_tls_{}_{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        Files(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes the files of a certificate and its key, and returns their paths.
    fn pair(&self, name: &str, names: &[&str], authority: &Authority) -> (PathBuf, PathBuf) {
        let (certificate, key) = authority.issue(names);
        (self.write(&format!("{name}.pem"), certificate), self.write(&format!("{name}.key"), key))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn settings(pairs: &[(PathBuf, PathBuf)]) -> Config {
    let (tls_cert, tls_key) = pairs.iter().cloned().unzip();
    Config { tls_cert, tls_key, ..Config::default() }
}

fn loaded(settings: &Config) -> Arc<ServerConfig> {
    Arc::new(load(settings, TicketSecret::OfProcess(&[7; 32])).unwrap().config)
}

fn error(settings: &Config) -> TlsError {
    match load(settings, TicketSecret::OfProcess(&[7; 32])) {
        Ok(_) => panic!("the files were accepted"),
        Err(error) => error,
    }
}

/// A client that trusts an authority.
fn client(authority: &Authority) -> ClientConfig {
    client_with(authority, aws_lc_rs::default_provider())
}

fn client_with(authority: &Authority, provider: CryptoProvider) -> ClientConfig {
    ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_no_client_auth()
}

/// A client with a certificate.
fn client_with_certificate(authority: &Authority, issuer: &Authority) -> ClientConfig {
    let key = TestKey::generate().unwrap();
    let certificate = params(&["client.example"]).signed_by(&key, &issuer.0).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_client_auth_cert(vec![certificate.der().clone()], key)
        .unwrap()
}

/// Runs a handshake in memory, and returns its ends. The error is that of the end that fails first.
fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    loop {
        let mut moved = 0;
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        moved += bytes.len();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        moved += bytes.len();
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if moved == 0 {
            return Ok((server, client));
        }
    }
}

fn leaf(connection: &ClientConnection) -> Vec<u8> {
    connection.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn the_first_suite_of_the_server_is_used() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let config = loaded(&settings(&[files.pair("a", &["a.example"], &authority)]));
    let suites = vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_128_GCM_SHA256];
    let prefers_chacha = CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() };
    let client = Arc::new(client_with(&authority, prefers_chacha));
    let (server, _) = handshake(&config, &client, "a.example").unwrap();
    assert_eq!(server.negotiated_cipher_suite().unwrap().suite(), TLS13_AES_128_GCM_SHA256.suite());
}

#[test]
fn the_oldest_version_is_a_setting() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let mut settings = settings(&[files.pair("a", &["a.example"], &authority)]);
    let old = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let old = Arc::new(old);
    let (server, _) = handshake(&loaded(&settings), &old, "a.example").unwrap();
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_2));
    settings.tls_min_version = TlsVersion::Tls13;
    assert!(handshake(&loaded(&settings), &old, "a.example").is_err());
    let (server, _) = handshake(&loaded(&settings), &Arc::new(client(&authority)), "a.example").unwrap();
    assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
}

/// RFC 7301, section 3.2: if the server knows none of the client's protocols, it sends `no_application_protocol`.
#[test]
fn protocols_inside_tls() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let config = loaded(&settings(&[files.pair("a", &["a.example"], &authority)]));
    for (offered, expected) in [
        (&[][..], Ok(None)),
        (&[b"http/1.1".as_slice()], Ok(Some(b"http/1.1".as_slice()))),
        (&[b"h2", b"http/1.1"], Ok(Some(b"http/1.1"))),
        (&[b"h2"], Err(AlertDescription::NoApplicationProtocol)),
    ] {
        let mut client = client(&authority);
        client.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        match (handshake(&config, &Arc::new(client), "a.example"), expected) {
            (Ok((server, _)), Ok(expected)) => assert_eq!(server.alpn_protocol(), expected),
            (Err(rustls::Error::NoApplicationProtocol), Err(_)) => {}
            (result, _) => panic!("{offered:?}: {:?}", result.map(|_| ())),
        }
    }
}

#[test]
fn names_get_their_certificates() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let pairs = [
        files.pair("one", &["one.example"], &authority),
        files.pair("two", &["two.example", "*.two.example"], &authority),
    ];
    let config = loaded(&settings(&pairs));
    let client = Arc::new(client(&authority));
    let of_file = |number: usize| {
        let (certificate, _) = &pairs[number];
        let read = super::keypair::certificates("tls-cert", certificate, &mut FilesRead::new()).unwrap();
        read[0].to_vec()
    };
    for (name, number) in [("one.example", 0), ("two.example", 1), ("x.two.example", 1)] {
        let (_, client) = handshake(&config, &client, name).unwrap();
        assert_eq!(leaf(&client), of_file(number), "{name}");
    }
    assert!(
        handshake(&config, &client, "other.example").is_err(),
        "the client refuses the default certificate"
    );
}

#[test]
fn a_file_may_have_the_certificate_and_its_key() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let (certificate, key) = authority.issue(&["a.example"]);
    let both = files.write("both.pem", format!("{key}{certificate}{}", authority.0.pem()));
    let settings = Config { tls_cert: vec![both], ..Config::default() };
    let (_, client) = handshake(&loaded(&settings), &Arc::new(client(&authority)), "a.example").unwrap();
    assert_eq!(client.peer_certificates().unwrap().len(), 2);
}

#[test]
fn certificates_of_clients() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let (of_clients, of_others) = (Authority::new("clients"), Authority::new("others"));
    let mut settings = settings(&[files.pair("a", &["a.example"], &authority)]);
    settings.tls_client_ca = Some(files.write("ca.pem", of_clients.0.pem()));
    let good = Arc::new(client_with_certificate(&authority, &of_clients));
    let bad = Arc::new(client_with_certificate(&authority, &of_others));
    let none = Arc::new(client(&authority));
    for (auth, without_is_accepted) in [(TlsClientAuth::Required, false), (TlsClientAuth::Optional, true)] {
        settings.tls_client_auth = auth;
        let config = loaded(&settings);
        let (server, _) = handshake(&config, &good, "a.example").unwrap();
        assert_eq!(server.peer_certificates().unwrap().len(), 1, "{auth:?}");
        assert!(handshake(&config, &bad, "a.example").is_err(), "{auth:?}");
        assert_eq!(handshake(&config, &none, "a.example").is_ok(), without_is_accepted, "{auth:?}");
    }
    // Without an authority, nobody is asked.
    settings.tls_client_ca = None;
    let (server, _) = handshake(&loaded(&settings), &good, "a.example").unwrap();
    assert!(server.peer_certificates().is_none());
}

/// A client whose sessions are resumed, over TLS 1.3 or 1.2.
fn resuming_clients(authority: &Authority) -> [Arc<ClientConfig>; 2] {
    [&rustls::version::TLS13, &rustls::version::TLS12].map(|version| {
        let mut client = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
        Arc::new(client)
    })
}

#[test]
fn sessions_are_resumed_by_every_shard_and_after_a_restart() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let mut settings = settings(&[files.pair("a", &["a.example"], &authority)]);
    settings.tls_ticket_key_file = Some(files.path("tickets.key"));
    for client in resuming_clients(&authority) {
        let mut resumed = 0;
        handshake(&loaded(&settings), &client, "a.example").unwrap();
        for _ in 0..100 {
            // Each handshake is with a server that has just started: only the file is common to them.
            let config = Arc::new(load(&settings, TicketSecret::OfProcess(&[9; 32])).unwrap().config);
            let (server, _) = handshake(&config, &client, "a.example").unwrap();
            resumed += usize::from(server.handshake_kind() == Some(HandshakeKind::Resumed));
        }
        assert_eq!(resumed, 100);
    }
}

#[test]
fn a_server_with_another_secret_resumes_no_session() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let settings = settings(&[files.pair("a", &["a.example"], &authority)]);
    let with = |secret: u8| Arc::new(load(&settings, TicketSecret::OfProcess(&[secret; 32])).unwrap().config);
    for client in resuming_clients(&authority) {
        for (secret, expected) in
            [(1, HandshakeKind::Full), (1, HandshakeKind::Resumed), (2, HandshakeKind::Full)]
        {
            let (server, _) = handshake(&with(secret), &client, "a.example").unwrap();
            assert_eq!(server.handshake_kind(), Some(expected));
        }
    }
}

/// A session that is resumed does not verify the client's certificate again. It must not survive a change of those that
/// are accepted.
#[test]
fn a_session_ends_with_the_authority_that_it_was_verified_by() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let (of_clients, of_others) = (Authority::new("clients"), Authority::new("others"));
    let mut settings = settings(&[files.pair("a", &["a.example"], &authority)]);
    settings.tls_client_ca = Some(files.write("ca.pem", of_clients.0.pem()));
    settings.tls_client_auth = TlsClientAuth::Optional;
    let mut client = client_with_certificate(&authority, &of_clients);
    client.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    let client = Arc::new(client);
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let (server, _) = handshake(&loaded(&settings), &client, "a.example").unwrap();
        assert_eq!(server.handshake_kind(), Some(expected));
        assert!(server.peer_certificates().is_some());
    }
    settings.tls_client_auth = TlsClientAuth::Required;
    let (server, _) = handshake(&loaded(&settings), &client, "a.example").unwrap();
    assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full), "the setting has changed");
    files.write("ca.pem", of_others.0.pem());
    assert!(handshake(&loaded(&settings), &client, "a.example").is_err(), "the authority has changed");
}

#[test]
fn errors_of_files() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let (certificate, key) = authority.issue(&["a.example"]);
    let (_, other_key) = authority.issue(&["a.example"]);
    let der = chain_of("a.example")[0].to_vec();
    let cut = &certificate[..certificate.len() / 2];
    let no_time = certificate.replacen("MII", "MIA", 1);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let legacy =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    let short = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let wrong_order = format!("{}{certificate}", authority.0.pem());
    for (certificate, key, parts) in [
        (
            certificate.as_bytes(),
            other_key.as_bytes(),
            &["c.key does not belong to the certificate in", "tls-key and tls-cert"][..],
        ),
        (wrong_order.as_bytes(), key.as_bytes(), &["are in the wrong order", "belongs to number 2"]),
        (
            key.as_bytes(),
            certificate.as_bytes(),
            &["has no certificate in PEM", "have tls-cert and tls-key been exchanged?"],
        ),
        (b"", key.as_bytes(), &["c.pem (setting tls-cert) has no certificate in PEM, which begins with"]),
        (&der, key.as_bytes(), &["it is in DER: convert it with `openssl x509 -inform der`"]),
        (cut.as_bytes(), key.as_bytes(), &["c.pem (setting tls-cert) is not a valid PEM file"]),
        (no_time.as_bytes(), key.as_bytes(), &["certificate 1 in ", "is malformed"]),
        (certificate.as_bytes(), b"", &["c.key (setting tls-key) has no private key in PEM"]),
        (
            certificate.as_bytes(),
            encrypted.as_bytes(),
            &["has a passphrase, which the server cannot ask for", "openssl pkey -in"],
        ),
        (certificate.as_bytes(), legacy.as_bytes(), &["has a passphrase"]),
        (
            certificate.as_bytes(),
            short.as_bytes(),
            &["c.key (setting tls-key) cannot be used", "use an ECDSA key"],
        ),
        (
            certificate.as_bytes(),
            &vec![b'x'; 2 << 20],
            &["c.key (setting tls-key) has more than 1048576 bytes"],
        ),
    ] {
        let pair = (files.write("c.pem", certificate), files.write("c.key", key));
        let message = error(&settings(&[pair])).to_string();
        for part in parts {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
    let missing = (files.write("c.pem", &certificate), files.path("missing.key"));
    let message = error(&settings(&[missing])).to_string();
    assert!(
        message.starts_with("cannot read ")
            && message.contains("missing.key (setting tls-key): No such file"),
        "{message}"
    );
}

#[test]
fn errors_of_the_authority() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let mut settings = settings(&[files.pair("a", &["a.example"], &authority)]);
    for (content, part) in [
        ("", "ca.pem (setting tls-client-ca) has no certificate in PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "ca.pem (setting tls-client-ca) cannot be used: certificate 1 is malformed",
        ),
    ] {
        settings.tls_client_ca = Some(files.write("ca.pem", content));
        let message = error(&settings).to_string();
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

#[test]
fn the_file_of_the_secret() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let mut settings = settings(&[files.pair("a", &["a.example"], &authority)]);
    let path = files.path("tickets.key");
    settings.tls_ticket_key_file = Some(path.clone());
    check(&settings).unwrap();
    assert!(!path.exists(), "a check creates nothing");
    loaded(&settings);
    let secret = fs::read(&path).unwrap();
    assert_eq!(secret.len(), 32);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(fs::read_dir(&files.0).unwrap().count(), 3, "nothing else is left");
    loaded(&settings);
    assert_eq!(fs::read(&path).unwrap(), secret, "the second start uses the file of the first");
    for (mode, is_accepted) in [(0o640, true), (0o400, true), (0o644, false), (0o602, false), (0o660, false)]
    {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        match (check(&settings), is_accepted) {
            (Ok(_), true) => {}
            (Err(error), false) => {
                let message = error.to_string();
                assert!(message.contains(&format!("has the mode {mode:04o}")), "{message}");
                assert!(message.contains("chmod 0600"), "{message}");
            }
            (result, _) => panic!("{mode:04o}: {result:?}"),
        }
    }
    files.write("tickets.key", [1; 31]);
    assert!(error(&settings).to_string().contains("has 31 bytes, but a secret has at least 32"));
    settings.tls_ticket_key_file = Some(files.path("missing/tickets.key"));
    let message = check(&settings).unwrap_err().to_string();
    assert!(message.contains("Its directory does not exist"), "{message}");
    let message = error(&settings).to_string();
    assert!(
        message.starts_with("cannot create ") && message.contains("Its directory does not exist"),
        "{message}"
    );
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn warnings() {
    let files = Files::new();
    let now = SystemTime::now();
    let key = TestKey::generate().unwrap();
    let mut params = params(&["a.example"]);
    params.not_before = (now - 2 * DAY).into();
    params.not_after = (now - DAY).into();
    let own = params.self_signed(&key).unwrap();
    let pair = (files.write("a.pem", own.pem()), files.write("a.key", key.serialize_pem()));
    fs::set_permissions(&pair.1, Permissions::from_mode(0o644)).unwrap();
    let warnings = check(&settings(&[pair])).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("every user of this host can read the private key in"), "{warnings:?}");
    assert!(warnings[1].contains("expired on"), "{warnings:?}");
}

#[test]
fn certificates_are_reloaded_if_they_have_changed_and_are_good() {
    let (files, authority) = (Files::new(), Authority::new("issuer"));
    let pair = files.pair("a", &["a.example"], &authority);
    let settings = settings(std::slice::from_ref(&pair));
    let mut service = TlsService::load(&settings).unwrap().unwrap();
    // A new client sees the certificate of the server, and one that was there before resumes its session with a shard, but
    // not with the control executor.
    let presented = |config: &Arc<ServerConfig>| {
        leaf(&handshake(config, &Arc::new(client(&authority)), "a.example").unwrap().1)
    };
    let returning = [Arc::new(client(&authority)), Arc::new(client(&authority))];
    let kinds = |service: &TlsService| {
        let configs = [service.context().config().clone(), service.config()];
        [0, 1].map(|nth| handshake(&configs[nth], &returning[nth], "a.example").unwrap().0.handshake_kind())
    };
    assert_eq!(kinds(&service), [Some(HandshakeKind::Full); 2]);
    let first = presented(&service.config());
    assert!(matches!(service.reload(&settings, true), Reloaded::Unchanged));

    let (certificate, key) = authority.issue(&["a.example"]);
    files.write("a.pem", &certificate);
    assert!(matches!(service.reload(&settings, false), Reloaded::Failed(TlsError::OtherKey { .. })));
    assert_eq!(presented(&service.config()), first, "the old one stays");
    files.write("a.key", &key);
    assert!(matches!(service.reload(&settings, false), Reloaded::Changed), "both files are there");
    assert_ne!(presented(&service.config()), first);
    assert_ne!(presented(service.context().config()), first);
    let expected = [Some(HandshakeKind::Resumed), Some(HandshakeKind::Full)];
    assert_eq!(kinds(&service), expected, "the secret of tickets stays");
    assert!(matches!(service.reload(&settings, false), Reloaded::Unchanged));

    let names: Vec<String> = service.certificates().get().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["a.example"]);
    assert!(TlsService::load(&Config::default()).unwrap().is_none());
    let Loaded { directories, .. } = load(&settings, TicketSecret::Checked).unwrap();
    assert_eq!(directories, [files.0.canonicalize().unwrap()]);
}
