//! The server's command: settings from the command line, the environment and a file; then it serves.

use quickio::config::{self, Action};
use quickio::server;
use std::process::ExitCode;

fn main() -> ExitCode {
    match config::from_args(std::env::args_os().skip(1), std::env::vars_os()) {
        Ok(Action::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Action::Run(config)) => match server::run(config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        Err(error) => fail(&error, config::EXIT_CODE),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("quickio: {error}");
    ExitCode::from(code)
}
