//! The server that is attacked, and what the attack has cost.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// How long connecting and a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// The server, the end of the attack, and the counters of the attack.
pub struct Target {
    server: SocketAddr,
    source: IpAddr,
    deadline: Instant,
    /// Connections opened.
    pub opened: u64,
    /// Connections that could not be opened, or whose handshake failed.
    pub refused: u64,
    /// Connections that the server ended.
    pub ended: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Target {
    /// Returns a target that has cost nothing.
    pub fn new(server: SocketAddr, source: IpAddr, deadline: Instant) -> Target {
        Target { server, source, deadline, opened: 0, refused: 0, ended: 0, bytes_sent: 0, bytes_received: 0 }
    }

    /// Returns whether the attack is over.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Opens a connection from the attacker's address, with a receive buffer of the given size.
    pub fn connect(&mut self, receive_buffer: Option<usize>) -> Option<TcpStream> {
        let socket = self.try_connect(receive_buffer);
        match &socket {
            Ok(_) => self.opened += 1,
            Err(_) => self.refused += 1,
        }
        socket.ok()
    }

    fn try_connect(&self, receive_buffer: Option<usize>) -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(self.server), Type::STREAM, None)?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(&SocketAddr::new(self.source, 0).into())?;
        socket.connect_timeout(&self.server.into(), HANDSHAKE_TIMEOUT)?;
        socket.set_tcp_nodelay(true)?;
        socket.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
        socket.set_write_timeout(Some(HANDSHAKE_TIMEOUT))?;
        Ok(socket.into())
    }

    /// The cost of the attack as a line of JSON. CPU time is in seconds.
    pub fn to_json(&self, attack: &str, connections: usize) -> String {
        let Target { opened, refused, ended, bytes_sent, bytes_received, .. } = self;
        let cpu = cpu_seconds();
        format!(
            r#"{{"attack":"{attack}","connections":{connections},"opened":{opened},"refused":{refused},"ended":{ended},"bytes_sent":{bytes_sent},"bytes_received":{bytes_received},"cpu_seconds":{cpu:.3}}}"#
        )
    }
}

/// The CPU time of this process, by the scheduler.
fn cpu_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux has /proc");
    let stats = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    stats.filter_map(|stat| stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok())).sum::<f64>() / 1e9
}
