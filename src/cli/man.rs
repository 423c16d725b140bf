//! `quickio man`: the manual page, made from the tables of commands and settings.

use super::command::{Example, Flag, Invocation, Subcommand, no_details};
use super::connect;
use super::{help, outcome, serve};
use crate::config::table::{Group, SETTINGS, Setting};
use std::fmt::Write;

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "man",
    summary: "Prints the manual page",
    usage: "",
    about: "Prints the manual page of quickio in roff, with all commands and settings. Packages install it as quickio.1.",
    flags: &[],
    takes_settings: false,
    examples: &[
        Example { line: "quickio man | man -l -", does: "Shows the page." },
        Example {
            line: "quickio man > /usr/local/share/man/man1/quickio.1",
            does: "Installs the page, for man quickio.",
        },
    ],
    details: no_details,
    run: |invocation: Invocation| {
        let commands = invocation.commands;
        connect::act(invocation, |_| Ok(outcome::print(&page(commands))))
    },
};

/// The date of the last change of the texts below.
const DATE: &str = "2026-11-29";

const DESCRIPTION: &str = "\
QuickIO is a server for real-time events. Clients connect by WebSocket, raw TCP or HTTP, with or without TLS, send events, \
subscribe to paths, and receive the events that are broadcast to those paths. Applications, which are part of the server or \
run in processes beside it, handle the events.

The server needs Linux 6.1 or newer with io_uring.";

const CONFIGURATION: &str = "\
Every setting is a flag (--clients-max 1000), an environment variable (QUICKIO_CLIENTS_MAX=1000) and a key of the settings \
file (clients-max = 1000). A flag overrides the environment, the environment overrides the file, and the file overrides the \
default.

Counts are whole numbers, optionally followed by k, M (thousands, millions), Ki, Mi or Gi (powers of 1024). Durations are \
whole numbers with a unit: ms, s, m or h. The entries of a list are separated by commas, or its flag is repeated.";

/// The sections behind the settings: headings, and tagged paragraphs.
const SECTIONS: &[(&str, &[(&str, &str)])] = &[
    (
        "ENVIRONMENT",
        &[
            ("QUICKIO_CONFIG", "The settings file, as --config."),
            ("QUICKIO_SERVER", "The server of quickio pub and quickio sub, as --server."),
            ("QUICKIO_TOKEN", "The token of quickio pub and quickio sub, if there is no --token-file."),
            ("QUICKIO_...", "Each setting of the server: its name in capitals, with _ in place of -."),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/quickio/quickio.toml", "The settings file of the systemd unit."),
            ("/etc/default/quickio", "Variables for the systemd unit."),
        ],
    ),
    (
        "SIGNALS",
        &[
            ("SIGTERM, SIGINT", "The server tells its clients, sends what waits for them, and ends."),
            ("SIGHUP", "The server reads its settings again and replaces the workers of scripts."),
            ("SIGUSR1", "The server logs a summary of its statistics."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "The server was stopped by a signal, or the command has succeeded."),
            ("1", "The server or the command has failed."),
            ("2", "A setting or an argument is wrong."),
        ],
    ),
];

/// Returns the page.
fn page(commands: &[&Subcommand]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = format!(".TH QUICKIO 1 {DATE} \"quickio {version}\" \"User Commands\"\n");
    out.push_str(".SH NAME\nquickio \\- a real\\-time event server\n.SH SYNOPSIS\n");
    let _ = writeln!(
        out,
        ".B quickio\n{}\n.br\n.B quickio\nCOMMAND [ARGUMENT]...",
        escaped(serve::COMMAND.usage)
    );
    out.push_str(".SH DESCRIPTION\n");
    paragraphs(&mut out, DESCRIPTION);
    out.push_str(".PP\n");
    paragraphs(&mut out, serve::COMMAND.about);
    out.push_str(".SH COMMANDS\n");
    commands.iter().for_each(|command| write_command(&mut out, command));
    out.push_str(".SH OPTIONS\n");
    flags(&mut out, serve::COMMAND.flags);
    out.push_str(".SH SETTINGS\n");
    paragraphs(&mut out, CONFIGURATION);
    for group in Group::ALL {
        let _ = writeln!(out, ".SS {}", escaped(group.heading()));
        SETTINGS
            .iter()
            .filter(|setting| setting.group == *group)
            .for_each(|setting| write_setting(&mut out, setting));
    }
    for (heading, entries) in SECTIONS {
        let _ = writeln!(out, ".SH {heading}");
        entries.iter().for_each(|(name, text)| tagged(&mut out, &bold(name), text));
    }
    out.push_str(".SH EXAMPLES\n");
    examples(&mut out, serve::COMMAND.examples);
    out
}

fn write_command(out: &mut String, command: &Subcommand) {
    let _ = writeln!(out, ".SS {}", escaped(help::usage(command).trim_start_matches("quickio ")));
    paragraphs(out, command.about);
    flags(out, command.flags);
    if command.takes_settings {
        out.push_str(".PP\nAll settings of the server are accepted too.\n");
    }
    if !command.examples.is_empty() {
        out.push_str(".PP\nExamples:\n");
        examples(out, command.examples);
    }
}

fn flags(out: &mut String, flags: &[Flag]) {
    for flag in flags {
        let value =
            if flag.value.is_empty() { String::new() } else { format!(" \\fI{}\\fR", escaped(flag.value)) };
        tagged(out, &format!("{}{value}", bold(&format!("--{}", flag.name))), flag.doc);
    }
}

fn write_setting(out: &mut String, setting: &Setting) {
    let tag =
        format!("{} \\fI{}\\fR", bold(&format!("--{}", setting.name)), escaped(&setting.kind.placeholder()));
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    tagged(out, &tag, &format!("{} [{}; default: {default}]", setting.doc, setting.kind.allowed()));
}

fn examples(out: &mut String, examples: &[Example]) {
    examples.iter().for_each(|example| tagged(out, &bold(example.line), example.does));
}

/// Writes a paragraph below a tag, which is roff already.
fn tagged(out: &mut String, tag: &str, text: &str) {
    let _ = writeln!(out, ".TP\n{tag}");
    paragraphs(out, text);
}

fn paragraphs(out: &mut String, text: &str) {
    for (at, paragraph) in text.split("\n\n").enumerate() {
        if at > 0 {
            out.push_str(".PP\n");
        }
        // A line for each sentence, as roff wants it.
        for sentence in sentences(paragraph) {
            let _ = writeln!(out, "{}", escaped(sentence));
        }
    }
}

/// Splits a paragraph behind the ends of its sentences.
fn sentences(paragraph: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut rest = paragraph;
    while let Some(at) = rest.find(". ") {
        sentences.push(&rest[..=at]);
        rest = &rest[at + 2..];
    }
    sentences.push(rest);
    sentences
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", escaped(text))
}

/// Returns a text that roff shows as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga");
    // A line that begins with a dot would be a request.
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::COMMANDS;
    use super::*;

    #[test]
    fn the_page_has_every_command_flag_and_setting() {
        let page = page(COMMANDS);
        for command in COMMANDS {
            assert!(page.contains(&format!("\n.SS {}", escaped(command.name))), "{}", command.name);
            for flag in command.flags {
                assert!(
                    page.contains(&bold(&format!("--{}", flag.name))),
                    "{} --{}",
                    command.name,
                    flag.name
                );
            }
        }
        for setting in SETTINGS {
            assert!(page.contains(&bold(&format!("--{}", setting.name))), "{}", setting.name);
        }
        // No line is a request by mistake.
        let requests = [".TH ", ".SH ", ".SS ", ".TP", ".PP", ".B ", ".br"];
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            assert!(requests.iter().any(|request| line.starts_with(request)), "{line}");
        }
    }

    #[test]
    fn texts_are_shown_as_they_are() {
        assert_eq!(escaped(".so a\\b 'c'"), "\\&.so a\\eb \\(aqc\\(aq");
        assert_eq!(sentences("One. Two 1.5 s. Three."), ["One.", "Two 1.5 s.", "Three."]);
    }
}
