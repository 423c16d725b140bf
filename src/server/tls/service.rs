//! The configuration in effect, and its reloads.

use super::error::TlsError;
use super::files::Fingerprint;
use super::load::{Loaded, TicketSecret, load};
use super::tickets::{SECRET_BYTES, new_secret};
use crate::admin::CertificateTable;
use crate::config::Config;
use crate::qev::control::{DirectoryWatch, Spawner, sleep};
use crate::tls::TlsContext;
use futures_channel::mpsc;
use futures_lite::{FutureExt, StreamExt};
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// The time from a change of a file until the files are read: a certificate and its key are replaced one after the other.
const SETTLE: Duration = Duration::from_secs(1);

/// The configuration of TLS in effect.
pub(in crate::server) struct TlsService {
    /// The secret of session tickets, unless a file has it. Reloads keep it.
    secret: Zeroizing<[u8; SECRET_BYTES]>,
    /// The configuration for connections that rustls handles alone.
    config: Arc<ServerConfig>,
    /// The configuration for connections whose records a shard protects.
    context: TlsContext,
    fingerprint: Fingerprint,
    certificates: CertificateTable,
    /// The directories in which a change of a file shows.
    directories: Vec<PathBuf>,
    /// The task that watches them, if it runs.
    watched: Option<mpsc::UnboundedSender<Vec<PathBuf>>>,
    /// The error of the last reload, if it has failed: it is logged once.
    failure: Option<String>,
}

/// The outcome of a reload.
pub(in crate::server) enum Reloaded {
    /// The files have not changed.
    Unchanged,
    /// Handshakes that begin from now on must use the new configuration.
    Changed,
    /// The files cannot be used. The configuration stays.
    Failed(TlsError),
}

impl TlsService {
    /// Loads the certificates of the settings. Returns `None` if they name none.
    pub fn load(settings: &Config) -> Result<Option<TlsService>, TlsError> {
        if settings.tls_cert.is_empty() {
            return Ok(None);
        }
        let secret = new_secret();
        let loaded = load(settings, TicketSecret::OfProcess(&*secret))?;
        log_warnings(&loaded);
        let certificates = CertificateTable::default();
        certificates.set(loaded.certificates);
        Ok(Some(TlsService {
            secret,
            context: context(loaded.config, loaded.verifier),
            config: Arc::new(loaded.without_tickets),
            fingerprint: loaded.fingerprint,
            certificates,
            directories: loaded.directories,
            watched: None,
            failure: None,
        }))
    }

    /// Returns the configuration in effect, for connections that rustls handles alone: those of the control executor. Their
    /// sessions are not resumed, because rustls would not verify the client's certificate again. They are few.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Returns the configuration in effect, for connections of shards.
    pub fn context(&self) -> TlsContext {
        self.context.clone()
    }

    /// Returns the table of certificates, which reloads keep up to date.
    pub fn certificates(&self) -> CertificateTable {
        self.certificates.clone()
    }

    /// Starts to watch the files, on the control executor. `on_change` is called a moment after one of them may have
    /// changed.
    pub fn watch<F: Fn() + Send + 'static>(
        &mut self,
        on_change: F,
    ) -> impl FnOnce(Spawner) -> WatchTask + Send + use<F> {
        let (watched, directories) = mpsc::unbounded();
        // The receiver is part of the task below.
        let _ = watched.unbounded_send(self.directories.clone());
        self.watched = Some(watched);
        move |_| Box::pin(watch(directories, on_change))
    }

    /// Logs that a reload is in effect: the caller has passed on the new configuration.
    pub fn log_reloaded(&self) {
        let names: Vec<String> =
            self.certificates.get().into_iter().map(|certificate| certificate.name).collect();
        tracing::info!("the certificates were reloaded: new connections use them ({})", names.join(", "));
    }

    /// Loads the certificates again. `is_requested` tells that somebody waits for the result: otherwise an error that was
    /// logged already is not logged again.
    pub fn reload(&mut self, settings: &Config, is_requested: bool) -> Reloaded {
        let loaded = match load(settings, TicketSecret::OfProcess(&*self.secret)) {
            Ok(loaded) => loaded,
            Err(error) => {
                let text = error.to_string();
                if is_requested || self.failure.as_ref() != Some(&text) {
                    tracing::error!(
                        "the certificates were not reloaded; those that were loaded before stay in use: {text}"
                    );
                }
                self.failure = Some(text);
                return Reloaded::Failed(error);
            }
        };
        self.failure = None;
        if loaded.fingerprint == self.fingerprint {
            return Reloaded::Unchanged;
        }
        log_warnings(&loaded);
        self.fingerprint = loaded.fingerprint;
        self.certificates.set(loaded.certificates);
        if self.directories != loaded.directories {
            self.directories = loaded.directories;
            if let Some(watched) = &self.watched {
                // This fails only if the task has ended, which it does when the server stops.
                let _ = watched.unbounded_send(self.directories.clone());
            }
        }
        self.context = context(loaded.config, loaded.verifier);
        self.config = Arc::new(loaded.without_tickets);
        Reloaded::Changed
    }
}

fn context(config: ServerConfig, verifier: Option<Arc<dyn ClientCertVerifier>>) -> TlsContext {
    let context = TlsContext::new(config);
    match verifier {
        Some(verifier) => context.with_client_certificates(verifier),
        None => context,
    }
}

fn log_warnings(loaded: &Loaded) {
    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

/// A task of the control executor.
type WatchTask = std::pin::Pin<Box<dyn Future<Output = ()>>>;

/// Watches directories, which the channel brings, until it is closed.
async fn watch(mut directories: mpsc::UnboundedReceiver<Vec<PathBuf>>, on_change: impl Fn()) {
    let mut next = directories.next().await;
    while let Some(watched) = next {
        let changes = async {
            let watch = match DirectoryWatch::new(&watched) {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::warn!(
                        %error,
                        "changes of the certificates' files cannot be noticed: send SIGHUP after each change \
                         (systemctl reload quickio)"
                    );
                    return std::future::pending().await;
                }
            };
            // A file may have changed before the watch began.
            on_change();
            loop {
                if let Err(error) = watch.changed().await {
                    tracing::warn!(%error, "changes of the certificates' files are no longer noticed: send SIGHUP after each");
                    return std::future::pending().await;
                }
                sleep(SETTLE).await;
                on_change();
            }
        };
        next = directories.next().or(changes).await;
    }
}
