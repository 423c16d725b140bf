//! A load of clients that come back: each subscribes with a position, and gets the events that it has missed.
//!
//! ```text
//! quickio --shards 1 --config history.toml &      # its rules keep the events of /relay/room
//! cargo run --release --example recoveries -- 127.0.0.1:8080 PID CLIENTS ROUNDS
//! ```
//!
//! CLIENTS raw TCP clients are connected. In each of ROUNDS rounds all of them send `/qio/on` with the position before the last
//! ten events, read the answer and the events, and unsubscribe. Another client sends a ping each millisecond. The last line
//! has the CPU time of the process PID and the latencies of the pings, beside those of a second without other load.

use std::error::Error;
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

type Failure = Box<dyn Error + Send + Sync>;

/// The events that each client has missed.
const EVENTS: usize = 10;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, pid, clients, rounds] = arguments.as_slice() else {
        return Err("usage: recoveries ADDRESS PID CLIENTS ROUNDS".into());
    };
    let (clients, rounds): (usize, usize) = (clients.parse()?, rounds.parse()?);
    let mut sender = Client::connect(server)?;
    for event in 0..EVENTS {
        sender.request(&format!("/relay/room:1=\"{event}{}\"", "x".repeat(61)))?;
    }
    let page = sender.request("/qio/history:1=[\"/relay/room\",{\"limit\":1}]")?;
    let at = page.split("\"at\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let (epoch, last) = at.and_then(|at| at.split_once('.')).ok_or_else(|| format!("no history: {page}"))?;
    let since = format!("{epoch}.{}", last.parse::<u64>()? - EVENTS as u64);
    let subscribe = message(&format!("/qio/on:1=[\"/relay/room\",null,{{\"since\":\"{since}\"}}]"));
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(Client::connect(server)?);
    }
    let idle = pings_during(server, || {
        thread::sleep(Duration::from_secs(1));
        Ok(())
    })?;
    let (before, begun) = (cpu_seconds(pid)?, Instant::now());
    let mut subscribed = Duration::ZERO;
    let busy = pings_during(server, || {
        for _ in 0..rounds {
            let begun = Instant::now();
            for client in &mut connected {
                client.stream.get_mut().write_all(&subscribe)?;
            }
            for client in &mut connected {
                for _ in 0..=EVENTS {
                    client.read()?;
                }
            }
            subscribed += begun.elapsed();
            for client in &mut connected {
                client.request("/qio/off:2=\"/relay/room\"")?;
            }
        }
        Ok(())
    })?;
    let (cpu, events) = (cpu_seconds(pid)? - before, (clients * rounds * EVENTS) as f64);
    println!(
        "{events} events: {:.2} us of CPU each, unsubscribing included; {:.0} events a second while they were sent; {:.1} s",
        cpu * 1e6 / events,
        events / subscribed.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    println!(
        "pings: p99 {:.2} ms, longest {:.2} ms; without load {:.2} and {:.2} ms",
        busy.0, busy.1, idle.0, idle.1
    );
    Ok(())
}

struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(server: &str) -> Result<Client, Failure> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(b"/qio/ohai")?;
        let mut greeting = [0; 9];
        stream.read_exact(&mut greeting)?;
        Ok(Client { stream: BufReader::with_capacity(2048, stream) })
    }

    fn request(&mut self, event: &str) -> Result<String, Failure> {
        self.stream.get_mut().write_all(&message(event))?;
        loop {
            let text = self.read()?;
            if text.starts_with("/qio/callback/") {
                return Ok(text);
            }
        }
    }

    fn read(&mut self) -> Result<String, Failure> {
        let mut len = [0; 8];
        self.stream.read_exact(&mut len)?;
        let mut text = vec![0; usize::try_from(u64::from_be_bytes(len))?];
        self.stream.read_exact(&mut text)?;
        Ok(String::from_utf8(text)?)
    }
}

/// An event as raw clients send it.
fn message(event: &str) -> Vec<u8> {
    [&(event.len() as u64).to_be_bytes(), event.as_bytes()].concat()
}

/// Sends pings while something runs. Returns the 99th percentile and the longest of their latencies, in milliseconds.
fn pings_during(server: &str, run: impl FnOnce() -> Result<(), Failure>) -> Result<(f64, f64), Failure> {
    let mut client = Client::connect(server)?;
    let is_done = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&is_done);
    let pings = thread::spawn(move || -> Result<Vec<f64>, Failure> {
        let mut latencies = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            client.request("/qio/ping:1=null")?;
            latencies.push(begun.elapsed().as_secs_f64() * 1e3);
            thread::sleep(Duration::from_millis(1));
        }
        Ok(latencies)
    });
    let result = run();
    is_done.store(true, Ordering::Relaxed);
    let mut latencies = pings.join().map_err(|_| "the pings have failed")??;
    result?;
    latencies.sort_by(f64::total_cmp);
    let longest = latencies.last().copied().unwrap_or(0.0);
    Ok((latencies.get(latencies.len() * 99 / 100).copied().unwrap_or(longest), longest))
}

/// The CPU time that a process has used, in seconds.
fn cpu_seconds(pid: &str) -> Result<f64, Failure> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}
