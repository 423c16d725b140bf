//! Sockets to the server: made by the process, from many source addresses, so that ports do not end.

use crate::plan::{Plan, Protocol};
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// A socket for the connection of that number, whose connecting may be still under way: the first send waits
/// for it. Without a protocol nothing is sent first, so it is connected already.
pub fn start(plan: &Plan, number: usize) -> io::Result<Socket> {
    let socket = bound(plan, number)?;
    if plan.protocol == Protocol::None {
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

/// A connected socket whose reads end after `patience`.
pub fn blocking(plan: &Plan, number: usize, receive_buffer: Option<usize>) -> io::Result<Socket> {
    let patience = plan.connect_timeout.min(Duration::from_secs(10));
    let socket = bound(plan, number)?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.connect_timeout(&plan.server.into(), patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
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
