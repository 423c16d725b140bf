//! `quickio-load`: generates load against a QuickIO server and reports throughput, latency and cost.
//!
//! | module | contents |
//! | --- | --- |
//! | [`args`] | the command line |
//! | [`plan`] | the scenarios, the numbers of clients and their rates, and the division among workers |
//! | [`clock`] | the clock that all processes of a run share |
//! | [`run`] | the steps of a run: connect, settle, warm up, measure, drain, report |
//! | [`pool`] | the workers, in threads of this process or in child processes |
//! | [`worker`] | one thread with one ring: its connections and their actions |
//! | [`encoder`] | encodes messages to the server |
//! | [`request`] | builds HTTP requests |
//! | [`decoder`] | decodes messages from the server |
//! | [`response_head`] | parses the heads of HTTP responses |
//! | [`error`] | the ways in which a server can violate the protocol |
//! | [`blocking`] | a single client with a blocking socket |
//! | [`tls`] | the TLS of clients |
//! | [`pings`] | the schedule of pings |
//! | [`million`] | the scenario `million`: very many clients in one thread, in steps |
//! | [`progress`] | the progress line |
//! | [`slow`] | clients that do not read |
//! | [`results`] | counters and latencies |
//! | [`process`] | CPU time and memory of the server's process |
//! | [`mod@report`] | the report as a table and as JSON |

mod args;
mod blocking;
mod clock;
mod connect;
mod decoder;
mod encoder;
mod error;
mod million;
mod pings;
mod plan;
mod pool;
mod process;
mod progress;
mod report;
mod request;
mod response_head;
mod results;
mod run;
mod slow;
#[cfg(test)]
mod test_server;
mod tls;
mod worker;

use args::Command;
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help(text)) => exit_code(print(&text).map(|()| true)),
        Ok(Command::Sizes(plan)) => {
            exit_code(print(&format!("{}\n", encoder::FrameSizes::of(&plan).to_json())).map(|()| true))
        }
        Ok(Command::Run(args)) => exit_code(run::run(&args)),
        Ok(Command::Million(args)) => exit_code(million::run(&args.plan, &args.million, args.quiet)),
        Ok(Command::Part(args, share)) => exit_code(pool::run_child(&args, share).map(|()| true)),
        Err(error) => {
            report(&error);
            ExitCode::from(2)
        }
    }
}

/// Returns 0 for a run without errors, and 1 if connections failed, messages were lost, or nothing could be measured.
fn exit_code(result: Result<bool, String>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Writes a text to standard output.
fn print(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|error| format!("cannot write to standard output: {error}"))
}

/// Writes an error to standard error, if it is open.
fn report(error: &dyn Display) {
    let _ = writeln!(io::stderr(), "quickio-load: {error}");
}
