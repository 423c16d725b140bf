//! The program `quickio`: reads the settings from the command line, the environment and a file, and runs a server.

use quickio::config::{self, Action, ClientTestConfig, ConfigError, clienttest};
use quickio::log;
use quickio::mangler;
use quickio::server::{self, ControlService, ServerError};
use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

/// The allocator. glibc keeps the memory of a burst, and trimming its heaps stops the shards for
/// hundreds of milliseconds (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The settings of the allocator, which it reads before `main`. Each thread keeps freed memory for its next allocations, up to
/// a number of pieces of each size, and gives none of it back while it does not allocate. Shards seldom allocate more than
/// 4 KiB at once: 53 of them kept 14 MB in larger pieces after 300,000 clients had connected. With at most 64 smaller pieces
/// of each size instead of 200, they kept 6 MB less.
// SAFETY: the allocator declares the symbol for this purpose: a pointer to a text that ends with a zero byte.
#[allow(unsafe_code)]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_SETTINGS: &[u8; 43] = b"tcache_max:4096,tcache_nslots_small_max:64\0";

fn main() -> ExitCode {
    // In a container without an init process.
    if let Some(code) = server::run_as_init() {
        return ExitCode::from(code);
    }
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    // Errors in the settings are reported in this format too.
    log::set_report_format(config::log_format_of(&args, env::vars_os()));
    let mut args = args.into_iter().peekable();
    if args.next_if(|word| word == clienttest::COMMAND).is_some() {
        act(config::client_test_from_args(args, env::vars_os()), run_client_test)
    } else if args.next_if(|word| word == config::TEST_APP).is_some() {
        act(config::test_app_from_args(args, env::vars_os()), server::test_apps)
    } else if args.next_if(|word| word == config::CHECK).is_some() {
        act(config::from_args(args, env::vars_os()), server::check)
    } else {
        let args: Vec<OsString> = args.collect();
        let read = args.clone();
        act(config::from_args(args, env::vars_os()), |config| {
            server::run_reloadable(config, Box::new(move || config::read_again(read.clone(), env::vars_os())))
        })
    }
}

/// Runs a server with a proxy in front of it that mangles upgrades.
fn run_client_test(tests: ClientTestConfig) -> Result<(), ServerError> {
    let ClientTestConfig { server, proxy, mangle } = tests;
    let proxy = ControlService::new("proxy", move |control, server| {
        Ok(mangler::serve(control, proxy, server, mangle)?)
    });
    server::run_with_services(server, vec![proxy])
}

fn act<Settings>(
    asked: Result<Action<Settings>, ConfigError>,
    run: impl FnOnce(Settings) -> Result<(), ServerError>,
) -> ExitCode {
    match asked {
        Ok(Action::Print(text)) => print(&text),
        Ok(Action::Run(settings)) => match run(settings) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, error.exit_code()),
        },
        Err(error) => fail(&error, config::EXIT_CODE),
    }
}

fn print(text: &str) -> ExitCode {
    match log::write_stdout(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::report(&format_args!("cannot write to standard output: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    log::report(&error);
    ExitCode::from(code)
}
