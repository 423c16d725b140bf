//! The application API, the bundled applications, applications in C, and workers.
//!
//! An application is a value of a type that implements [`Application`]. It registers events on every shard. Its
//! handlers run on the shard of the client that sent the event, one at a time on each shard and concurrently on
//! different shards. A handler does not act on the server directly: it returns an answer and queues commands through
//! its [`Context`], and the shard applies them after the handler has returned. Work that takes longer answers later,
//! from any thread ([`Later`]).
//!
//! ```
//! use quickio::app::{Answer, Application, Error, Registrar};
//!
//! struct Greeter;
//!
//! impl Application for Greeter {
//!     fn name(&self) -> &str {
//!         "greeter"
//!     }
//!
//!     fn register(&self, registrar: &mut Registrar) -> Result<(), Error> {
//!         registrar.event("/greet").handler(|_cx, event| Answer::data(event.data)).register()
//!     }
//! }
//! ```

mod answer;
mod authenticate;
mod client_info;
mod context;
mod event;
mod json;
mod later;
mod paths;
mod registrar;
mod server;
mod shares;
mod types;

pub mod c;
pub mod clienttest;
pub mod qio;
pub mod relay;
pub mod threads;
pub mod webhook;
pub mod worker;
pub mod worker_app;

pub(crate) use authenticate::AttemptEnd;
pub use authenticate::{AuthAttempt, Authenticate, UnknownClient};
pub(crate) use client_info::ClientDirectory;
pub use client_info::ClientInfo;
pub use event::{Event, Reply, ReplyTo, Subscription, Unsubscribed};
pub(crate) use json::is_json;
pub use json::{Json, NotJson};
pub use later::{Later, LaterDecision, Unanswered};
pub use registrar::{
    EventBuilder, EventRegistration, Handler, OffHook, PeriodicTimer, Registrar, SubscriptionRule,
};
pub use server::Busy;
pub(crate) use types::AnswerState;
pub use types::{
    Answer, Callback, ClientData, Command, Context, Decision, GivenOptions, LocalCommand, Post, SendCallback,
    Server,
};

use std::sync::Arc;
use thiserror::Error as ThisError;

/// An application that runs inside the server. One value serves all shards.
pub trait Application: Send + Sync + 'static {
    /// Returns the name of the application, which appears in logs and errors.
    fn name(&self) -> &str;

    /// Registers the application's events on one shard. Called once for each shard, on the shard's thread, before the
    /// first connection. State that a handler captures here belongs to that shard alone and needs no lock.
    ///
    /// # Errors
    ///
    /// The application cannot run. The server does not start.
    fn register(&self, registrar: &mut Registrar) -> Result<(), Error>;

    /// Starts the application. Called once, before the server listens. `server` may be kept, cloned, and used from any
    /// thread.
    ///
    /// # Errors
    ///
    /// The application cannot run. The server does not start.
    fn start(&self, server: &Server) -> Result<(), Error> {
        let _ = server;
        Ok(())
    }

    /// Returns what authenticates clients, if the application does. At most one application of a server may. Called once,
    /// before [`register`](Application::register).
    fn authenticator(&self) -> Option<Arc<dyn Authenticate>> {
        None
    }

    /// Stops the application. Called once, on shutdown, after the last connection has ended.
    fn stop(&self) {}

    /// Checks without a server that the application is able to run. Only `quickio test-app` calls it, and the
    /// application's own tests and tools through [`self_test`].
    ///
    /// # Errors
    ///
    /// The application cannot run.
    fn self_test(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// The reason why an application cannot run.
#[derive(Debug, ThisError)]
pub enum Error {
    #[error("the path {path:?} cannot be registered: {reason}")]
    Path { path: String, reason: String },
    #[error("the path {path} is already registered by {owner}")]
    Duplicate { path: String, owner: String },
    #[error("{0}")]
    Failed(String),
}

/// Checks an application as far as it can be checked without a server: registers it on a shard, and runs its
/// [`Application::self_test`]. For the tests of applications.
///
/// ```
/// use quickio::app::{relay::Relay, self_test};
///
/// self_test(&Relay).expect("the application can run");
/// ```
///
/// # Errors
///
/// The registration or the self-test failed.
pub fn self_test(app: &dyn Application) -> Result<(), Error> {
    let mut registrar = Registrar::new(0);
    registrar.begin_application(app.name());
    app.register(&mut registrar)?;
    app.self_test()
}

/// Returns the bundled application with this name, which is the name that `--app` takes, or `None` if there is none or it
/// needs settings: [`webhook::Webhook`].
pub fn bundled(name: &str) -> Option<Arc<dyn Application>> {
    match name {
        "relay" => Some(Arc::new(relay::Relay)),
        "clienttest" => Some(Arc::new(clienttest::ClientTest::default())),
        _ => None,
    }
}

/// The names of the bundled applications.
pub const BUNDLED: &[&str] = &["relay", "clienttest", "webhook"];
