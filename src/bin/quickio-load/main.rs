//! `quickio-load`: loads a QuickIO server, and says how it bore it.
//!
//! | part | is |
//! | --- | --- |
//! | [`args`] | the command line |
//! | [`plan`] | what is to be done: the scenarios, and who does which part of it |
//! | [`clock`] | the time that all processes of a run share |
//! | [`run`] | the order of a run: connect, settle, warm up, measure, drain, report |
//! | [`fleet`] | the workers, in threads of this process or in processes of their own |
//! | [`worker`] | one thread with one ring: connections, and what each of them does |
//! | [`wire`] | bytes to the server |
//! | [`request`] | HTTP requests |
//! | [`cut`] | bytes from the server |
//! | [`head`] | heads of HTTP responses |
//! | [`slow`] | clients that do not read |
//! | [`outcome`] | counters and latencies |
//! | [`server`] | the server's CPU time and memory, as the kernel tells them |
//! | [`report`] | the table and the JSON |

mod args;
mod clock;
mod connect;
mod cut;
mod fleet;
mod head;
mod outcome;
#[cfg(test)]
mod peer;
mod plan;
mod report;
mod request;
mod run;
mod server;
mod slow;
mod wire;
mod worker;

use args::Command;
use std::process::ExitCode;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Sizes(plan)) => {
            println!("{}", wire::Sizes::of(&plan).to_json());
            ExitCode::SUCCESS
        }
        Ok(Command::Run(args)) => ended(run::run(&args)),
        Ok(Command::Part(args, part)) => ended(fleet::serve(&args, part).map(|()| true)),
        Err(error) => {
            eprintln!("quickio-load: {error}");
            ExitCode::from(2)
        }
    }
}

/// 0 where all went well; 1 where connections failed or messages were lost, or nothing could be measured.
fn ended(result: Result<bool, String>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("quickio-load: {error}");
            ExitCode::FAILURE
        }
    }
}
