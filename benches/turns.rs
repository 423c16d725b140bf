//! Whole turns of one shard, to be counted in instructions rather than in time: `scripts/instructions.sh` runs this
//! program under `valgrind --tool=callgrind` for two numbers of turns, and takes the difference.
//!
//! Usage: `turns SCENARIO TURNS`. Without arguments each scenario runs for a few turns, as a test.

use quickio::app::relay::Relay;
use quickio::shard::bench::{FanOut, Handling};
use std::process::ExitCode;
use std::sync::Arc;

/// Subscribers of the fan-out scenarios.
const SUBSCRIBERS: u32 = 1000;

/// Turns of each scenario when the program runs as a test.
const TEST_TURNS: usize = 3;

/// A scenario: runs a number of turns and returns the bytes that were sent.
type Scenario = fn(usize) -> usize;

const SCENARIOS: [(&str, Scenario); 10] = [
    ("fanout", |turns| fan_out(turns, 1)),
    ("fanout-burst", |turns| fan_out(turns, 20)),
    ("fanout-history", |turns| fan_out_numbered(turns, 1)),
    ("fanout-history-burst", |turns| fan_out_numbered(turns, 20)),
    ("ping", |turns| handle(turns, "/qio/ping:1=null", 1)),
    ("ping-burst", |turns| handle(turns, "/qio/ping:1=null", 20)),
    ("broadcast", |turns| handle(turns, "/relay/room:1={\"text\":\"hello\"}", 1)),
    ("broadcast-history", recover_nothing),
    ("recovery", recover),
    ("broadcast-burst", |turns| handle(turns, "/relay/room:1={\"text\":\"hello\"}", 20)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    match arguments.as_slice() {
        [] => {
            for (name, scenario) in SCENARIOS {
                assert!(scenario(TEST_TURNS) > 0, "{name} sends nothing");
                println!("Success: {name}");
            }
            ExitCode::SUCCESS
        }
        [name, turns] => match (find(name), turns.parse()) {
            (Some(scenario), Ok(turns)) => {
                println!("{} bytes were sent", scenario(turns));
                ExitCode::SUCCESS
            }
            _ => usage(),
        },
        _ => usage(),
    }
}

fn find(name: &str) -> Option<Scenario> {
    SCENARIOS.iter().find(|(candidate, _)| *candidate == name).map(|(_, scenario)| *scenario)
}

fn usage() -> ExitCode {
    let names: Vec<&str> = SCENARIOS.iter().map(|(name, _)| *name).collect();
    eprintln!("usage: turns SCENARIO TURNS, where SCENARIO is one of {}", names.join(", "));
    ExitCode::FAILURE
}

/// Broadcasts of 64 bytes to [`SUBSCRIBERS`] clients, `burst` in each turn.
fn fan_out(turns: usize, burst: usize) -> usize {
    let data = format!("\"{}\"", "x".repeat(62));
    let mut shard = FanOut::new(SUBSCRIBERS);
    (0..turns).map(|_| shard.turn(burst, &data)).sum()
}

/// The same to clients that get the numbers of the events, which are kept.
fn fan_out_numbered(turns: usize, burst: usize) -> usize {
    let data = format!("\"{}\"", "x".repeat(62));
    let mut shard = FanOut::numbered(SUBSCRIBERS);
    (0..turns).map(|_| shard.turn(burst, &data)).sum()
}

/// An event that one client sends to a path whose events are kept.
fn recover_nothing(turns: usize) -> usize {
    let mut shard = Handling::with_history(Arc::new(Relay), "/relay/room");
    let events = ["/relay/room:1={\"text\":\"hello\"}".to_owned()];
    (0..turns).map(|_| shard.turn(&events, 1)).sum()
}

/// Ten clients' worth of recoveries in each turn, of ten events of 64 bytes each. All have the same connection.
fn recover(turns: usize) -> usize {
    let mut shard = Handling::with_history(Arc::new(Relay), "/relay/other");
    let event = format!("/relay/room:0=\"{}\"", "x".repeat(62));
    shard.turn(&[event], 100);
    let (on, off) = ("/qio/on:1=[\"/relay/room\",null,{\"history\":10}]", "/qio/off:0=\"/relay/room\"");
    // The answers come in the next turn.
    (0..turns * 10).map(|_| shard.turn(&[on.to_owned()], 1) + shard.turn(&[off.to_owned()], 1)).sum()
}

/// An event that one client sends `burst` times in each turn.
fn handle(turns: usize, event: &str, burst: usize) -> usize {
    let mut shard = Handling::new(Arc::new(Relay), "/relay/room");
    let events = [event.to_owned()];
    (0..turns).map(|_| shard.turn(&events, burst)).sum()
}
