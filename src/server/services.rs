//! Services that run beside the server on the control executor, such as a proxy in front of it.

use super::error::ServerError;
use super::resources::Needs;
use crate::qev::control::ControlExecutor;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

/// The name of the control executor's thread.
const CONTROL_THREAD: &str = "quickio-control";

/// A function that starts a service for the server at an address, and returns the address of the service.
type StartService =
    dyn FnOnce(&ControlExecutor, SocketAddr) -> Result<SocketAddr, Box<dyn Error + Send + Sync>>;

/// A service that a program adds to the server. It starts after the server has bound its addresses, and stops with it.
pub struct ControlService {
    name: &'static str,
    start: Box<StartService>,
}

impl ControlService {
    /// Creates a service. The server prints the name and the address of the service after it has started.
    ///
    /// The arguments of `start` are the executor and the first TCP address of the server that is not only for TLS.
    #[must_use]
    pub fn new(
        name: &'static str,
        start: impl FnOnce(&ControlExecutor, SocketAddr) -> Result<SocketAddr, Box<dyn Error + Send + Sync>>
        + 'static,
    ) -> ControlService {
        ControlService { name, start: Box::new(start) }
    }
}

impl fmt::Debug for ControlService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlService").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The control executor and its services, while they run.
#[derive(Default)]
pub(super) struct Services {
    /// Started with the first service. Without a service there is no executor.
    control: Option<ControlExecutor>,
    /// The needs of the server, for advice.
    needs: Option<Needs>,
    /// The names of the services and their addresses, as users would type them.
    addresses: Vec<(&'static str, String)>,
}

impl Services {
    pub fn new(needs: Needs) -> Services {
        Services { needs: Some(needs), ..Services::default() }
    }

    /// Starts a service. `start` returns its addresses.
    pub fn start<E: Into<ServerError>, A: ToString>(
        &mut self,
        name: &'static str,
        start: impl FnOnce(&ControlExecutor) -> Result<Vec<A>, E>,
    ) -> Result<(), ServerError> {
        let addresses = start(self.control()?).map_err(Into::into)?;
        self.addresses.extend(addresses.into_iter().map(|address| (name, address.to_string())));
        Ok(())
    }

    /// Returns the control executor, which is started if no service has needed it yet.
    pub fn control(&mut self) -> Result<&ControlExecutor, ServerError> {
        let control = match self.control.take() {
            Some(control) => control,
            None => ControlExecutor::start(CONTROL_THREAD).map_err(|error| {
                let hint = self.needs.as_ref().map_or_else(String::new, |needs| needs.hint(&error));
                ServerError::Control { error, hint }
            })?,
        };
        Ok(self.control.insert(control))
    }

    /// Starts the services that a program has added, if the server has a TCP address that is not only for TLS.
    pub fn start_added(
        &mut self,
        services: Vec<ControlService>,
        server: Option<SocketAddr>,
    ) -> Result<(), ServerError> {
        let Some(server) = server else { return Ok(()) };
        for service in services {
            let ControlService { name, start } = service;
            self.start(name, |control| {
                start(control, server).map(|address| vec![address]).map_err(ServerError::Service)
            })?;
        }
        Ok(())
    }

    /// Returns the names of the services and their addresses.
    pub fn addresses(&self) -> &[(&'static str, String)] {
        &self.addresses
    }
}
