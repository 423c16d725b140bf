//! The HTTP of the application: connections that are kept, and requests over them.

use super::settings::{HookUrl, WebhookSettings};
use crate::limits::{WEBHOOK_ANSWER_BYTES_MAX, WEBHOOK_IDLE_CONNECTIONS_MAX};
use crate::qev::control::{ClientStream, Spawner, timeout};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The header with the event.
const EVENT_HEADER: &str = "quickio-event";

/// The header with the time at which the request was signed, in Unix seconds.
const TIMESTAMP_HEADER: &str = "quickio-timestamp";

/// The header with the signature.
const SIGNATURE_HEADER: &str = "quickio-signature";

type Sender = SendRequest<Full<Bytes>>;

/// A client of the back end.
pub(super) struct HookClient {
    settings: WebhookSettings,
    tls: Option<Arc<ClientConfig>>,
    /// Connections that no request uses, the latest last.
    idle: RefCell<Vec<Sender>>,
    spawner: Spawner,
}

/// The answer of the back end.
pub(super) struct HookAnswer {
    pub status: u16,
    pub body: Bytes,
}

impl HookClient {
    pub fn new(settings: WebhookSettings, spawner: Spawner) -> HookClient {
        let tls = settings.url.is_https.then(|| client_config(&settings));
        HookClient { settings, tls, idle: RefCell::default(), spawner }
    }

    /// Sends a request, and returns the answer.
    ///
    /// # Errors
    ///
    /// The reason why there is none: it did not come in time, or a connection has failed.
    pub async fn post(&self, event: &str, body: Vec<u8>) -> Result<HookAnswer, String> {
        let late = || Err(format!("no answer came in {:?}", self.settings.timeout));
        timeout(self.settings.timeout, self.exchange(event, body.into())).await.unwrap_or_else(late)
    }

    async fn exchange(&self, event: &str, body: Bytes) -> Result<HookAnswer, String> {
        let kept = self.take_idle();
        let is_kept = kept.is_some();
        let sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        match self.send(sender, event, body.clone()).await {
            // The back end has closed a connection that it had kept open, before it saw the request.
            Err(SendError { is_unsent: true, .. }) if is_kept => {
                let sender = self.connect().await?;
                self.send(sender, event, body).await.map_err(|error| error.reason)
            }
            sent => sent.map_err(|error| error.reason),
        }
    }

    /// Returns a connection that was kept open.
    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().rposition(Sender::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    async fn connect(&self) -> Result<Sender, String> {
        let HookUrl { host, port, .. } = &self.settings.url;
        let stream = ClientStream::connect(host, *port, self.tls.clone(), self.settings.timeout).await;
        let stream = stream.map_err(|error| format!("the connection cannot be opened: {error}"))?;
        let (sender, connection) =
            http1::handshake(stream).await.map_err(|error| format!("the connection has failed: {error}"))?;
        // Its errors are those of the requests on it.
        self.spawner.spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn send(&self, mut sender: Sender, event: &str, body: Bytes) -> Result<HookAnswer, SendError> {
        let failed = |is_unsent, error: &dyn std::fmt::Display| SendError {
            is_unsent,
            reason: format!("the request has failed: {error}"),
        };
        let request = self.request(event, body).map_err(|error| failed(false, &error))?;
        let sent = sender.try_send_request(request).await;
        let response = sent.map_err(|mut error| {
            let is_unsent = error.take_message().is_some();
            failed(is_unsent, error.error())
        })?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), WEBHOOK_ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| failed(false, &error))?.to_bytes();
        let mut idle = self.idle.borrow_mut();
        if idle.len() < WEBHOOK_IDLE_CONNECTIONS_MAX {
            idle.push(sender);
        }
        Ok(HookAnswer { status, body })
    }

    fn request(&self, event: &str, body: Bytes) -> hyper::http::Result<Request<Full<Bytes>>> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        Request::post(&self.settings.url.target)
            .header(HOST, &self.settings.url.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("quickio/", env!("CARGO_PKG_VERSION")))
            .header(EVENT_HEADER, event)
            .header(TIMESTAMP_HEADER, time)
            .header(SIGNATURE_HEADER, self.settings.secret.sign(time, &body))
            .body(Full::new(body))
    }
}

/// A request without an answer.
struct SendError {
    /// The request was not sent at all.
    is_unsent: bool,
    reason: String,
}

/// Returns a configuration that trusts the authorities of the settings, or those that the host trusts.
fn client_config(settings: &WebhookSettings) -> Arc<ClientConfig> {
    let certificates = match &settings.ca_file {
        Some(file) => {
            let read = CertificateDer::pem_file_iter(file).map(|all| all.filter_map(Result::ok).collect());
            read.unwrap_or_default()
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        tracing::error!(
            "no certificate authority is known, so that the back end of webhook cannot be reached over https: install \
             ca-certificates, or name a file with certificates (ca-file of [app-settings.webhook])"
        );
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}
