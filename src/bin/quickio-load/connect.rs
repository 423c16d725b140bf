//! Opens sockets to the server, from many source addresses to have enough ports.

use crate::plan::{Plan, Protocol, Scenario};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Opens a socket for a connection and starts to connect. The first send waits until it is connected. Without a
/// protocol only churners send first, and the function itself waits for the others.
pub fn start(plan: &Plan, number: usize) -> io::Result<Socket> {
    let socket = bound(plan, number)?;
    if plan.protocol == Protocol::None && plan.scenario != Scenario::Churn {
        socket.connect_timeout(&plan.server.into(), plan.connect_timeout)?;
        return Ok(socket);
    }
    socket.set_nonblocking(true)?;
    match socket.connect(&plan.server.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// Opens a connected, blocking socket whose reads and writes have a time limit.
pub fn blocking(plan: &Plan, number: usize, receive_buffer: Option<usize>) -> io::Result<Socket> {
    let timeout = plan.connect_timeout.min(Duration::from_secs(10));
    let socket = bound(plan, number)?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.connect_timeout(&plan.server.into(), timeout)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket)
}

fn bound(plan: &Plan, number: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(plan.server), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = plan.source(number) {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket)
}
