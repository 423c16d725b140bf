//! Attacks on a QuickIO server from one address, to measure who suffers. `scripts/attack.sh` runs each of them beside
//! honest clients.
//!
//! ```text
//! cargo run --release --example attack -- pings --server 127.0.0.1:8080 --source 127.0.0.99 --seconds 10
//! cargo run --release --example attack -- --help
//! ```
//!
//! | module | contents |
//! | --- | --- |
//! | [`attacks`] | the attacks: one row for each |
//! | [`flood`] | peers that stay connected, and send and read at rates of their own |
//! | [`churn`] | peers that connect, send and disconnect again and again |
//! | [`burn`] | threads that only use CPU time, which attacks are compared with |
//! | [`wire`] | handshakes and frames |
//! | [`target`] | the server that is attacked, and what the attack has cost |
//!
//! Only servers on loopback addresses are attacked.

mod attacks;
mod burn;
mod churn;
mod flood;
mod target;
mod wire;

use attacks::ATTACKS;
use lexopt::prelude::*;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use target::Target;

/// The command line.
struct Args {
    attack: String,
    server: SocketAddr,
    source: IpAddr,
    connections: Option<usize>,
    seconds: f64,
    cpu_seconds: f64,
}

fn main() -> ExitCode {
    match parse().and_then(|args| args.map_or_else(|| Ok(help()), |args| run(&args))) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("attack: {error} (see --help)");
            ExitCode::from(2)
        }
    }
}

/// Reads the command line. Returns `None` if help was requested.
fn parse() -> Result<Option<Args>, lexopt::Error> {
    let mut args = Args {
        attack: String::new(),
        server: SocketAddr::from(([127, 0, 0, 1], 8080)),
        source: IpAddr::from([127, 0, 0, 99]),
        connections: None,
        seconds: 10.0,
        cpu_seconds: 0.0,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Value(name) if args.attack.is_empty() => args.attack = name.string()?,
            Long("server") => args.server = parser.value()?.parse()?,
            Long("source") => args.source = parser.value()?.parse()?,
            Long("connections") => args.connections = Some(parser.value()?.parse()?),
            Long("seconds") => args.seconds = parser.value()?.parse()?,
            Long("cpu-seconds") => args.cpu_seconds = parser.value()?.parse()?,
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    if !args.server.ip().is_loopback() || !args.source.is_loopback() {
        return Err("the server and the source must be loopback addresses".into());
    }
    if !(0.0..=600.0).contains(&args.seconds) || !(0.0..=6000.0).contains(&args.cpu_seconds) {
        return Err("an attack lasts at most 600 s".into());
    }
    Ok(Some(args))
}

/// Runs an attack; returns its cost as a line of JSON.
fn run(args: &Args) -> Result<String, lexopt::Error> {
    let deadline = Instant::now() + Duration::from_secs_f64(args.seconds);
    if args.attack == burn::NAME {
        burn::run(args.cpu_seconds, args.seconds, deadline);
        return Ok(format!(r#"{{"attack":"{}"}}"#, burn::NAME));
    }
    let attack = ATTACKS.iter().find(|attack| attack.name == args.attack);
    let attack = attack.ok_or_else(|| format!("there is no attack `{}`", args.attack))?;
    let connections = args.connections.unwrap_or(attack.connections);
    let mut target = Target::new(args.server, args.source, deadline);
    (attack.run)(&mut target, connections);
    Ok(target.to_json(attack.name, connections))
}

fn help() -> String {
    let mut text = String::from(
        "Attacks a QuickIO server on a loopback address, and prints what that has cost as JSON.\n\n\
         usage: attack NAME [--server 127.0.0.1:8080] [--source 127.0.0.99] [--connections N] [--seconds 10]\n       \
         attack burn --cpu-seconds S [--seconds 10]\n\nattacks, with their numbers of connections:\n",
    );
    for attack in ATTACKS {
        text += &format!("  {:<18} {:>5}  {}\n", attack.name, attack.connections, attack.doc);
    }
    text + "  burn                     no attack: uses S seconds of CPU time, evenly over the time"
}
