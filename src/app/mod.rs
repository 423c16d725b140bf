//! What runs inside the server: the application API, and the bundled applications.
//!
//! An application is a value of a type that implements [`Application`]. It registers events on every shard;
//! its handlers run where the client that sent the event lives, one at a time for each shard and concurrently
//! on different shards. A handler does not act: it answers, and pushes commands by its [`Context`], which the
//! shard applies when the handler is done. Whatever takes longer answers later, from any thread ([`Later`]).
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
mod command;
mod context;
mod json;
mod later;
mod paths;
mod registrar;

pub mod c;
pub mod clienttest;
pub mod qio;
pub mod relay;
pub mod worker;

pub(crate) use answer::AnswerState;
pub use answer::{Answer, Callback, Decision, SendCallback};
pub use command::{Command, LocalCommand, ReplyTo};
pub use context::{ClientData, Context, Event, Reply, Subscription, Unsubscribed};
pub use json::{Json, NotJson};
pub use later::{Busy, Later, LaterDecision, Post, Server, Unanswered};
pub use registrar::{
    EventBuilder, Handler, OffHook, PeriodicTimer, RegisteredEvent, Registrar, SubscriptionRule,
};

use std::sync::Arc;
use thiserror::Error as ThisError;

/// What runs inside the server. One value serves all shards.
pub trait Application: Send + Sync + 'static {
    /// The name, as logs and errors have it.
    fn name(&self) -> &str;

    /// Registers the application's events. Called once for each shard, on the shard's thread, before the first
    /// connection. State that a handler captures here belongs to that shard alone and needs no lock.
    fn register(&self, registrar: &mut Registrar) -> Result<(), Error>;

    /// Called once, before the server listens. An error stops the server from starting. `server` may be kept,
    /// cloned, and used from any thread.
    fn start(&self, server: &Server) -> Result<(), Error> {
        let _ = server;
        Ok(())
    }

    /// Called once, when the last connection has ended, on shutdown.
    fn stop(&self) {}

    /// Checks that the application is fit to run, without a server. Nothing calls it but
    /// `quickio test-app`, and the application's own tests and tools, by [`self_test`].
    fn self_test(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Why an application cannot run.
#[derive(Debug, ThisError)]
pub enum Error {
    #[error("the path {path:?} cannot be registered: {reason}")]
    Path { path: String, reason: String },
    #[error("{path} is registered already, by {owner}")]
    Duplicate { path: String, owner: String },
    #[error("{0}")]
    Failed(String),
}

/// Checks an application as far as it can be checked without a server: that it registers on a shard without an
/// error, and what its [`Application::self_test`] checks. For its tests.
///
/// ```
/// use quickio::app::{relay::Relay, self_test};
///
/// self_test(&Relay).expect("it is fit to run");
/// ```
///
/// # Errors
///
/// What keeps it from running.
pub fn self_test(app: &dyn Application) -> Result<(), Error> {
    let mut registrar = Registrar::new(0);
    registrar.begin_application(app.name());
    app.register(&mut registrar)?;
    app.self_test()
}

/// An application of those that are built in, by the name that `--app` takes.
pub fn bundled(name: &str) -> Option<Arc<dyn Application>> {
    match name {
        "relay" => Some(Arc::new(relay::Relay)),
        "clienttest" => Some(Arc::new(clienttest::ClientTest)),
        _ => None,
    }
}

/// The names that [`bundled`] knows.
pub const BUNDLED: &[&str] = &["relay", "clienttest"];
