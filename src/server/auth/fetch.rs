//! Fetching of published key sets: at the start, from time to time, and when a token names an unknown key, but one fetch at
//! a time and not more often than every 30 seconds.

use super::KeyPublisher;
use super::keys::PublishedKeys;
use crate::identity::keys_of_jwks;
use crate::qev::control::{ClientStream, timeout};
use futures_channel::mpsc;
use futures_lite::{FutureExt, StreamExt, future};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The shortest time from the beginning of a fetch to that of the next one.
const FETCH_AGAIN: Duration = Duration::from_secs(30);

/// The time after which the keys are fetched again even if nobody needs others: a key that is no longer published must
/// not be used for long.
const REFRESH: Duration = Duration::from_secs(600);

/// The time that the fetch of one key set may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of a key set, in bytes. Those of large providers have 2 to 20 KiB.
const JWKS_BYTES_MAX: usize = 256 * 1024;

/// The receiver of requests for a fetch.
pub(super) type FetchRequests = mpsc::Receiver<()>;

/// The decision whether keys may be fetched.
pub(super) struct FetchGate {
    state: Mutex<GateState>,
    requests: Mutex<mpsc::Sender<()>>,
}

struct GateState {
    is_fetching: bool,
    /// The beginning of the last fetch.
    began: Option<Instant>,
}

impl FetchGate {
    pub fn new() -> (FetchGate, FetchRequests) {
        let (sender, requests) = mpsc::channel(1);
        let state = Mutex::new(GateState { is_fetching: false, began: None });
        (FetchGate { state, requests: Mutex::new(sender) }, requests)
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a fetch. Returns whether one has begun, or begins now; `false` if the last one was too short a time ago.
    pub fn request(&self) -> bool {
        let mut state = self.state();
        if state.is_fetching {
            return true;
        }
        if state.began.is_some_and(|began| began.elapsed() < FETCH_AGAIN) {
            return false;
        }
        *state = GateState { is_fetching: true, began: Some(Instant::now()) };
        // A request that waits already has the same effect.
        let _ = self.requests.lock().unwrap_or_else(PoisonError::into_inner).try_send(());
        true
    }

    /// Returns whether a fetch is under way.
    pub fn is_fetching(&self) -> bool {
        self.state().is_fetching
    }

    /// Notes that a fetch has ended, or that there was none.
    pub fn ended(&self) {
        self.state().is_fetching = false;
    }
}

/// Fetches key sets until the executor stops.
pub(super) async fn run(publisher: KeyPublisher, mut requests: FetchRequests) {
    let mut tls = None;
    // The first request is that of the start.
    publisher.verifier.request_fetch();
    loop {
        let refresh = async {
            crate::qev::control::sleep(REFRESH).await;
            publisher.verifier.request_fetch();
            Some(())
        };
        if requests.next().or(refresh).await.is_none() {
            return;
        }
        fetch_all(&publisher, &mut tls).await;
        publisher.publish();
    }
}

/// Fetches each address once.
async fn fetch_all(publisher: &KeyPublisher, tls: &mut Option<Arc<ClientConfig>>) {
    let sets = publisher.store.sets();
    let urls: BTreeSet<&str> = sets.iter().map(|set| set.url.as_str()).collect();
    for url in urls {
        let of_url = || sets.iter().filter(|set| set.url == url);
        let id = of_url().map(|set| set.id.as_str()).collect::<Vec<_>>().join(", ");
        if url.starts_with("https://") && tls.is_none() {
            *tls = Some(client_config());
        }
        let fetched = timeout(FETCH_TIMEOUT, fetch(url, tls.clone()));
        let fetched = fetched.await.unwrap_or_else(|| Err("it took more than 10 seconds".into()));
        match fetched.and_then(|text| keys_of(of_url().cloned().collect(), &text)) {
            Ok(keys) => {
                let count: usize = keys.iter().map(|set| set.keys.len()).sum();
                if publisher.store.set_fetched(url, &keys) {
                    tracing::info!(url, key = id, "{count} keys of tokens were fetched");
                }
                if count == 0 {
                    tracing::warn!(
                        url,
                        key = id,
                        "the key set has no key of the algorithm; see [[auth-keys]]"
                    );
                }
            }
            Err(problem) => tracing::error!(
                url,
                key = id,
                "the keys of tokens cannot be fetched; those that were fetched last stay in use: {problem}"
            ),
        }
    }
}

fn keys_of(mut sets: Vec<PublishedKeys>, text: &[u8]) -> Result<Vec<PublishedKeys>, String> {
    for set in &mut sets {
        let (keys, _) = keys_of_jwks(text, set.algorithm).map_err(|error| error.to_string())?;
        set.keys = keys.into_iter().map(Arc::new).collect();
    }
    Ok(sets)
}

async fn fetch(url: &str, tls: Option<Arc<ClientConfig>>) -> Result<Bytes, String> {
    let failed = |error: &dyn std::fmt::Display| error.to_string();
    let uri: Uri = url.parse().map_err(|error| failed(&error))?;
    let is_https = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let connected = ClientStream::connect(host, port, tls.filter(|_| is_https), FETCH_TIMEOUT).await;
    let stream = connected.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        http1::handshake::<_, Empty<Bytes>>(stream).await.map_err(|error| failed(&error))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json, application/jwk-set+json")
        .header(USER_AGENT, concat!("quickio/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if response.status() != StatusCode::OK {
            return Err(format!("the server has answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), JWKS_BYTES_MAX).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    };
    // If the connection ends, the exchange fails, unless the response is complete already.
    let connection = async {
        let _ = connection.await;
        future::pending().await
    };
    exchange.or(connection).await
}

/// Returns a configuration that trusts whom the host trusts (`SSL_CERT_FILE` names another file).
fn client_config() -> Arc<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        tracing::error!(
            "no certificate authority is known on this host, so that no key set can be fetched over TLS: install \
             ca-certificates, or set SSL_CERT_FILE"
        );
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
