//! Loads the server API of a running server with broadcasts, and prints how many events a second it has accepted.
//! `scripts/api.sh` runs it.
//!
//! ```text
//! api_load ADDRESS SECRET lines|json EVENTS_PER_REQUEST CONNECTIONS SECONDS
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// The number of paths to which events are sent. Clients may subscribe to `/relay/0`.
const PATHS: usize = 100;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("api_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Box<dyn Error + Send + Sync>> {
    let [address, secret, form, events, connections, seconds] = arguments else {
        return Err("usage: api_load ADDRESS SECRET lines|json EVENTS CONNECTIONS SECONDS".into());
    };
    let (events, connections, seconds): (usize, usize, u64) =
        (events.parse()?, connections.parse()?, seconds.parse()?);
    let request = Arc::new(request(address, secret, form, events)?);
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let senders: Vec<_> = (0..connections)
        .map(|_| {
            let (address, request) = (address.clone(), Arc::clone(&request));
            thread::spawn(move || send(&address, &request, end))
        })
        .collect();
    let (mut accepted, mut busy) = (0, 0);
    for sender in senders {
        let (of_sender, refused) = sender.join().map_err(|_| "a sender panicked")??;
        accepted += of_sender;
        busy += refused;
    }
    let rate = (accepted * events) as f64 / began.elapsed().as_secs_f64();
    println!(
        "{form}: {rate:.0} events/s, {accepted} requests of {events} events accepted, {busy} answered with 503"
    );
    Ok(())
}

/// Returns a request with this many events.
fn request(address: &str, secret: &str, form: &str, events: usize) -> Result<Vec<u8>, String> {
    let event = |number: usize| (number % PATHS, format!("{{\"id\":{number},\"text\":\"hello world\"}}"));
    let all = (0..events).map(event);
    let (kind, body) = match form {
        "lines" => {
            let lines = all.map(|(path, data)| format!("/relay/{path}:0={data}\n"));
            ("text/plain", lines.collect::<String>())
        }
        "json" => {
            let items = all.map(|(path, data)| format!("{{\"path\":\"/relay/{path}\",\"data\":{data}}}"));
            ("application/json", format!("[{}]", items.collect::<Vec<_>>().join(",")))
        }
        _ => return Err(format!("unknown form: {form}")),
    };
    let head = format!(
        "POST /broadcast HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {secret}\r\nContent-Type: {kind}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    Ok((head + &body).into_bytes())
}

/// Sends requests on one connection until the end. Returns how many were accepted, and how many were refused for now.
fn send(address: &str, request: &[u8], end: Instant) -> Result<(usize, usize), Box<dyn Error + Send + Sync>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut input = BufReader::new(stream.try_clone()?);
    let (mut accepted, mut busy) = (0, 0);
    while Instant::now() < end {
        stream.write_all(request)?;
        match read_response(&mut input)? {
            200 => accepted += 1,
            503 => busy += 1,
            status => return Err(format!("the server answered with {status}").into()),
        }
    }
    Ok((accepted, busy))
}

/// Reads a response and returns its status.
fn read_response(input: &mut impl BufRead) -> Result<u16, Box<dyn Error + Send + Sync>> {
    let (mut line, mut status, mut length) = (String::new(), None, 0);
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Err("the server has closed the connection".into());
        }
        match (status, line.trim_end()) {
            (None, first) => status = first.get(9..12).and_then(|code| code.parse().ok()),
            (Some(status), "") => {
                input.by_ref().take(length).read_to_end(&mut Vec::new())?;
                return Ok(status);
            }
            (Some(_), field) => {
                if let Some((_, value)) =
                    field.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                {
                    length = value.trim().parse()?;
                }
            }
        }
    }
}
