//! Free ports for servers that are started again on the same one. They are below the ports that the kernel gives to clients:
//! it could give the port away while no server has it.

use std::net::TcpListener;

/// Returns a port that is free on an address, as is the next one. Different test processes begin their search at different ports.
pub fn free_ports(address: &str) -> u16 {
    let first = 12_000 + (std::process::id() % 8_000) as u16 * 2;
    let is_free =
        |port: &u16| [*port, port + 1].iter().all(|&port| TcpListener::bind((address, port)).is_ok());
    (first..32_000).step_by(2).find(is_free).expect("some ports are free")
}
