//! The table of settings as text: `--help`, a complete settings file, and the table in the docs.

use std::fmt::Write;

use super::clienttest::Mode;
use super::table::{Group, Kind, SETTINGS, Setting};

/// Columns of a terminal that everybody has.
const COLUMNS: usize = 80;

const USAGE: &str = "\
QuickIO: a real-time event server for Linux.

Usage: quickio [FLAG VALUE]...
       quickio clienttest [FLAG VALUE]...
       quickio test-app [FLAG VALUE]... APP...

The second is for authors of client libraries: a server and, before it, a proxy
that mangles WebSocket upgrades. quickio clienttest --help says how.
The third runs the self-tests of applications, as --app takes them, without a
server; its exit code is 0 where all are fit to run.

  --config FILE
      Reads settings from this TOML file (also: the variable QUICKIO_CONFIG).
  --generate-config
      Prints a settings file with every setting and its default.
  --generate-docs
      Prints the tables of settings and statistics for the docs.
  -h, --help
      Prints this.
  -V, --version
      Prints the version.

Every setting is a flag (--clients-max 1000), a variable of the environment
(QUICKIO_CLIENTS_MAX=1000), and a key of the file (clients-max = 1000). A flag
goes before the environment, the environment before the file, the file before
the default.

Counts are whole numbers, which k, M (thousands), Ki, Mi or Gi (powers of 1024)
may follow; durations are whole numbers with ms, s, m or h. Lists are separated
by commas, or their flag is repeated.
";

const CLIENT_TEST_USAGE: &str = "\
QuickIO: client tests, for authors of client libraries.

Usage: quickio clienttest [FLAG VALUE]...

A server with the applications relay and clienttest and, on a port of its own, a
proxy before it that mangles WebSocket upgrades. Anything else passes the proxy
unharmed. docs/client-tests.md says what a client has to make of it.

  --proxy ADDRESS
      Where the proxy listens.
      [ip:port or [ip6]:port; default: 127.0.0.1:8082]
  --mangle MODE|rotate
      What the proxy does to an upgrade whose target does not say mangle=MODE in
      its query. rotate goes through all modes but none, upgrade by upgrade, in
      the order below.
      [default: rotate]
  --generate-docs
      Prints the table of modes for the docs.

Modes:

";

const FILE_HEAD: &str = r#"# The settings of QuickIO, each with its default.
# Flags (--clients-max 1000) and the environment (QUICKIO_CLIENTS_MAX=1000) go
# before this file.
# Counts are whole numbers, or texts such as "64Ki" and "2M"; durations are
# texts such as "500ms", "10s", "15m", "1h".
# Settings of an application of its own stand at the end, below the line
# [app-settings.NAME].
"#;

/// What `--version` prints.
#[must_use]
pub fn version() -> String {
    format!("quickio {}\n", env!("CARGO_PKG_VERSION"))
}

/// What `--help` prints: every setting, by groups, at most 80 columns wide.
#[must_use]
pub fn help() -> String {
    let mut out = USAGE.to_owned();
    settings_help(&mut out);
    out
}

/// What `quickio clienttest --help` prints: its own flags, the modes, and every setting.
#[must_use]
pub fn client_test_help() -> String {
    let mut out = CLIENT_TEST_USAGE.to_owned();
    for mode in Mode::ALL {
        let _ = writeln!(out, "  {}", mode.name());
        wrap(&mut out, "      ", &format!("{}: the client gets {}.", mode.does(), mode.seen()));
    }
    out.push_str("\nAll that the server takes is taken too:\n");
    settings_help(&mut out);
    out
}

fn settings_help(out: &mut String) {
    by_groups(|group, settings| {
        let _ = write!(out, "\n{}:\n\n", group.heading());
        for setting in settings {
            let _ = writeln!(out, "  --{} {}", setting.name, setting.kind.placeholder());
            wrap(out, "      ", setting.doc);
            wrap(out, "      ", &bounds(setting));
        }
    });
}

/// What is allowed and the default; a choice stands beside its flag already.
fn bounds(setting: &Setting) -> String {
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    match setting.kind {
        Kind::Choice { .. } => format!("[default: {default}]"),
        kind => format!("[{}; default: {default}]", kind.allowed()),
    }
}

/// What `--generate-config` prints: a TOML file in which every setting is commented out. With the `#` before the
/// keys removed, it says the defaults.
#[must_use]
pub fn settings_file() -> String {
    let mut out = FILE_HEAD.to_owned();
    by_groups(|group, settings| {
        let _ = write!(out, "\n\n## {}\n", group.heading());
        for setting in settings {
            out.push('\n');
            wrap(&mut out, "# ", setting.doc);
            wrap(&mut out, "# ", &format!("Allowed: {}.", setting.kind.allowed()));
            let _ = writeln!(out, "#{} = {}", setting.name, toml_default(setting));
        }
    });
    out
}

fn toml_default(setting: &Setting) -> String {
    let is_number = !setting.default.is_empty() && setting.default.bytes().all(|b| b.is_ascii_digit());
    match setting.kind {
        Kind::Apps(_) | Kind::Addresses(_) if setting.default.is_empty() => "[]".to_owned(),
        Kind::Apps(_) | Kind::Addresses(_) | Kind::Origins(_) => {
            format!("[\"{}\"]", setting.default.replace(',', "\", \""))
        }
        Kind::Switch(_) => (setting.default == "on").to_string(),
        kind if kind.takes_numbers() && is_number => setting.default.to_owned(),
        _ => format!("\"{}\"", setting.default),
    }
}

/// The first part of what `--generate-docs` prints: a table of the settings for each group, in Markdown.
#[must_use]
pub fn docs() -> String {
    let mut out = String::new();
    by_groups(|group, settings| {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = write!(out, "{gap}### {}\n\n", group.heading());
        out.push_str("| setting | default | allowed | what it does |\n| --- | --- | --- | --- |\n");
        for setting in settings {
            let default = match setting.default {
                "" => "none".to_owned(),
                default => format!("`{default}`"),
            };
            let allowed = setting.kind.allowed();
            let _ = writeln!(out, "| `{}` | {default} | {allowed} | {} |", setting.name, setting.doc);
        }
    });
    out
}

fn by_groups(mut each: impl FnMut(Group, &[&Setting])) {
    for &group in Group::ALL {
        let settings: Vec<&Setting> = SETTINGS.iter().filter(|setting| setting.group == group).collect();
        each(group, &settings);
    }
}

/// Writes `text` in lines of at most [`COLUMNS`], each behind `indent`.
fn wrap(out: &mut String, indent: &str, text: &str) {
    let mut used = 0;
    for word in text.split(' ') {
        if used > 0 && used + 1 + word.len() > COLUMNS {
            out.push('\n');
            used = 0;
        }
        let before = if used == 0 { indent } else { " " };
        out.push_str(before);
        out.push_str(word);
        used += before.len() + word.len();
    }
    out.push('\n');
}
