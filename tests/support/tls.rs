//! Certificates for tests, in files, and a TLS client: rustls.

use super::DEADLINE;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs::{self, Permissions};
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

/// An authority that issues certificates, and a directory for their files, which is removed when the value is dropped.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

impl Authority {
    /// Creates an authority with a file of its own certificate.
    pub fn new() -> Authority {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("quickio_certificates_{}_{number}", std::process::id());
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Authority { issuer, directory };
        authority.write("ca.pem", authority.issuer.pem());
        authority
    }

    /// Returns the path of a file.
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// Replaces a file in one step, and returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let (path, unfinished) = (self.path(name), self.path(&format!("{name}.new")));
        fs::write(&unfinished, content).unwrap();
        fs::set_permissions(&unfinished, Permissions::from_mode(0o600)).unwrap();
        fs::rename(unfinished, &path).unwrap();
        path
    }

    /// Issues a certificate for names and writes it and its key into files, `NAME.pem` and `NAME.key`. Returns their paths.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> [String; 2] {
        let (certificate, key) = self.certificate(hosts);
        [
            self.write(&format!("{name}.pem"), certificate.pem()),
            self.write(&format!("{name}.key"), key.serialize_pem()),
        ]
    }

    fn certificate(&self, hosts: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(hosts).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Returns a client that trusts the authority. Its sessions are resumed.
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::new(self.builder().with_no_client_auth())
    }

    /// Returns a client with a certificate of another authority, or of this one.
    pub fn client_with_certificate(&self, issuer: &Authority) -> Arc<ClientConfig> {
        let (certificate, key) = issuer.certificate(&["client.example"]);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let chain = vec![certificate.der().clone()];
        Arc::new(self.builder().with_client_auth_cert(chain, key).unwrap())
    }

    fn builder(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        builder(roots)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A connection with TLS.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// Connects to an address such as `tls://127.0.0.1:8443`, and completes the handshake.
pub fn connect(address: &str, client: &Arc<ClientConfig>, name: &str) -> io::Result<TlsStream> {
    let address = address.strip_prefix("tls://").or(address.strip_prefix("either://")).unwrap_or(address);
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    begin(socket, client, name)
}

/// Completes the handshake over a connection.
pub fn begin(socket: TcpStream, client: &Arc<ClientConfig>, name: &str) -> io::Result<TlsStream> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(Arc::clone(client), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The files of a certificate of tests/certificates for localhost and 127.0.0.1, and of its key.
pub const OF_TESTS: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/server.pem"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/server.key"),
];

/// Returns a client that trusts the authority of tests/certificates.
pub fn client_of_tests() -> Arc<ClientConfig> {
    static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/ca.pem");
        roots.add(certificate(authority)).unwrap();
        Arc::new(builder(roots).with_no_client_auth())
    });
    Arc::clone(&CLIENT)
}

fn builder(roots: RootCertStore) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

/// Returns the certificate in a file.
pub fn certificate(path: impl AsRef<Path>) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_file(path).unwrap()
}

/// Returns the certificate that the server has presented.
pub fn presented(stream: &TlsStream) -> &CertificateDer<'static> {
    &stream.conn.peer_certificates().unwrap()[0]
}
