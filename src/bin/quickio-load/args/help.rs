//! The help, which is made from the table of flags.

use super::flags::{FLAGS, Flag};
use crate::plan::Scenario;
use std::fmt::Write;

/// Returns the help, of one scenario or of all.
pub fn help(scenario: Option<Scenario>) -> String {
    let mut out =
        String::from("Generates load against a QuickIO server and reports throughput, latency and cost.\n\n");
    let name = scenario.map_or("SCENARIO", Scenario::name);
    let _ = writeln!(out, "Usage: quickio-load {name} [FLAGS]\n\nScenarios:");
    for (known, name, doc) in Scenario::ALL {
        if scenario.is_none_or(|scenario| scenario == known) {
            let _ = writeln!(out, "  {name:<8}{doc}");
        }
    }
    out.push_str("  sizes   prints the sizes of the frames of fanout and ping, for examples/floor.rs\n");
    out.push_str("\nFlags of the scenario, with their defaults in parentheses:\n");
    let belongs = |flag: &&Flag| scenario.is_none_or(|scenario| flag.belongs_to(scenario));
    let of_scenarios = FLAGS.iter().filter(|flag| !flag.scenarios.is_empty()).filter(belongs);
    of_scenarios.for_each(|flag| flag_help(&mut out, flag, scenario.is_none()));
    out.push_str("\nFlags of all scenarios:\n");
    let of_all = FLAGS.iter().filter(|flag| flag.scenarios.is_empty()).filter(belongs);
    of_all.for_each(|flag| flag_help(&mut out, flag, false));
    if scenario == Some(Scenario::Million) {
        out.push_str(MILLION);
        return out;
    }
    out.push_str(
        "\nLatencies are measured from the time at which a message was intended to be sent. They include the\n\
         time that it waits because the server or the load generator is late.\n\n\
         Exit code: 0 if the run had no errors, 1 if connections failed or messages were lost, 2 if the\n\
         command line is invalid.\n",
    );
    out
}

/// The column at which the descriptions start, and the width of the help.
const HELP_INDENT: usize = 26;
pub const HELP_WIDTH: usize = 100;

fn flag_help(out: &mut String, flag: &Flag, name_scenarios: bool) {
    let mut doc = flag.doc.to_owned();
    if name_scenarios {
        let scenarios: Vec<&str> = flag.scenarios.iter().map(|scenario| scenario.name()).collect();
        let _ = write!(doc, " [{}]", scenarios.join(", "));
    }
    let mut line = format!("  --{} {}", flag.name, flag.value);
    line = format!("{line:<width$}", width = HELP_INDENT);
    for word in doc.split(' ') {
        if line.len() + word.len() > HELP_WIDTH {
            let _ = writeln!(out, "{}", line.trim_end());
            line = " ".repeat(HELP_INDENT);
        }
        let _ = write!(line, "{word} ");
    }
    let _ = writeln!(out, "{}", line.trim_end());
}

/// The steps of `million`, which the help of other scenarios does not have.
const MILLION: &str = "\
\nThe scenario has one thread, which should have a core of its own (taskset -c 1 quickio-load million ...). It
reads one step from each line of standard input. When a step is over, it writes one line of JSON to standard
output. Between the steps it goes on to answer heartbeats. At the end of the input it closes all clients.
The server needs --app relay, --connections-per-address-max 0, and enough shards for the sockets.

Steps:
  connect               opens all clients; each subscribes to one of the rooms and to one path that all share
  hold S                answers heartbeats for S seconds
  broadcast             publishes one event to all clients, while some of them ping
  rooms S RATE [CHURN]  publishes to each room RATE times a second for S seconds; CHURN clients a second leave
                        and come back meanwhile
  return                writes {\"ready\":\"return\"}, waits until the server has ended, and connects every client
                        again, each after the pauses that docs/client.md describes
  stop                  writes {\"ready\":\"stop\"} and waits until every client has been told to leave

Exit code: 0 if all steps ran, 1 if one could not run, 2 if the command line is invalid. The lines of JSON
contain what failed: for each reason the number of clients, the times, and how long the clients had waited.
";
