//! Renders the table of settings as `--help`, as a complete settings file, and as the table in the docs.

use std::fmt::{self, Write};

use super::arrays::ENTRY_SETTINGS;
use super::entries::{EntryKey, EntrySetting, KeyDefault};
use super::table::{Group, SETTINGS, Setting, ValueKind};
use crate::metrics;

/// A text that the program prints instead of serving. Its `Display` is the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeneratedText {
    /// The flags and settings: `--help`.
    Help,
    /// The name and the version: `--version`.
    Version,
    /// A settings file with every setting and its default: `--generate-config`.
    SettingsFile,
    /// The tables of settings and statistics for the docs: `--generate-docs`.
    Docs,
}

impl fmt::Display for GeneratedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GeneratedText::Help => f.write_str(&help()),
            GeneratedText::Version => f.write_str(&version()),
            GeneratedText::SettingsFile => f.write_str(&settings_file()),
            GeneratedText::Docs => {
                write!(f, "## Settings\n\n{}\n## Statistics\n\n{}", docs(), metrics::docs())
            }
        }
    }
}

/// The width of the narrowest common terminal.
const COLUMNS: usize = 80;

const FLAGS_HELP: &str = "\
Flags:

  --config FILE
      Reads settings from this TOML file. The variable QUICKIO_CONFIG does the
      same.
  --generate-config
      Prints a settings file with every setting and its default.
  --generate-docs
      Prints the tables of settings and statistics for the docs.
  -h, --help
      Prints this help.
  -V, --version
      Prints the version.

Every setting is a flag (--clients-max 1000), an environment variable
(QUICKIO_CLIENTS_MAX=1000) and a key of the settings file (clients-max = 1000).
A flag overrides the environment, the environment overrides the file, and the
file overrides the default.

Counts are whole numbers, optionally followed by k, M (thousands, millions),
Ki, Mi or Gi (powers of 1024). Durations are whole numbers with a unit: ms, s, m
or h. The entries of a list are separated by commas, or its flag is repeated.
";

const FILE_HEAD: &str = r#"# The settings of QuickIO, each with its default.
# Flags (--clients-max 1000) and environment variables (QUICKIO_CLIENTS_MAX=1000)
# override this file.
# Counts are whole numbers, or strings such as "64Ki" and "2M". Durations are
# strings such as "500ms", "10s", "15m" and "1h".
# Sections such as [[rules]], and [app-settings.NAME] with the settings of an
# application, go to the end of this file.
"#;

/// Returns the output of `--version`.
#[must_use]
pub fn version() -> String {
    format!("quickio {}\n", env!("CARGO_PKG_VERSION"))
}

/// Returns the part of `--help` that all programs with these settings share: every flag, and every setting by group, at
/// most 80 columns wide.
#[must_use]
pub fn help() -> String {
    let mut out = FLAGS_HELP.to_owned();
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
    out.push_str("\nSections of the settings file, which have no flags:\n\n");
    for setting in ENTRY_SETTINGS {
        let _ = writeln!(out, "  [[{}]]", setting.name);
        wrap(out, "      ", setting.doc);
        let keys: Vec<&str> = setting.keys.iter().map(|key| key.name).collect();
        wrap(out, "      ", &format!("[keys: {}]", keys.join(", ")));
    }
}

/// Returns the allowed values and the default. The choices are already shown next to the flag.
fn bounds(setting: &Setting) -> String {
    let default = if setting.default.is_empty() { "none" } else { setting.default };
    match setting.kind {
        ValueKind::Choice { .. } => format!("[default: {default}]"),
        kind => format!("[{}; default: {default}]", kind.allowed()),
    }
}

/// Returns the output of `--generate-config`: a TOML file in which every setting is commented out. Without the `#`
/// before the keys it sets the defaults.
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
    // Below them, every line would belong to the last section.
    out.push_str("\n\n## Sections, which stand below all other settings\n");
    ENTRY_SETTINGS.iter().for_each(|setting| entries_example(&mut out, setting));
    out
}

/// Writes the keys of an array and an example of it. All lines are comments, also without the first `#` of the others.
fn entries_example(out: &mut String, setting: &EntrySetting) {
    out.push('\n');
    wrap(out, "# ", setting.doc);
    for key in setting.keys {
        wrap(out, "#   ", &format!("{}: {} {}", key.name, key.doc, key_bounds(key)));
    }
    let _ = writeln!(out, "# [[{}]]", setting.name);
    setting.example.lines().for_each(|line| _ = writeln!(out, "# {line}"));
}

/// Returns the allowed values and the default of a key.
fn key_bounds(key: &EntryKey) -> String {
    let default = match key.default {
        KeyDefault::Required => "required".to_owned(),
        KeyDefault::None => "default: none".to_owned(),
        KeyDefault::Text(default) => format!("default: {default}"),
    };
    format!("[{}; {default}]", key.kind.allowed())
}

fn toml_default(setting: &Setting) -> String {
    let is_number = !setting.default.is_empty() && setting.default.bytes().all(|b| b.is_ascii_digit());
    match setting.kind {
        kind if kind.is_list() && setting.default.is_empty() => "[]".to_owned(),
        kind if kind.is_list() => {
            format!("[\"{}\"]", setting.default.replace(',', "\", \""))
        }
        ValueKind::Switch(_) => (setting.default == "on").to_string(),
        kind if kind.takes_numbers() && is_number => setting.default.to_owned(),
        _ => format!("\"{}\"", setting.default),
    }
}

/// Returns the first part of the output of `--generate-docs`: a Markdown table of the settings of each group.
#[must_use]
pub fn docs() -> String {
    let mut out = String::new();
    by_groups(|group, settings| {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = write!(out, "{gap}### {}\n\n", group.heading());
        out.push_str("| setting | default | allowed | description |\n| --- | --- | --- | --- |\n");
        for setting in settings {
            let default = match setting.default {
                "" => "none".to_owned(),
                default => format!("`{default}`"),
            };
            let allowed = setting.kind.allowed();
            let _ = writeln!(out, "| `{}` | {default} | {allowed} | {} |", setting.name, setting.doc);
        }
    });
    ENTRY_SETTINGS.iter().for_each(|setting| entries_docs(&mut out, setting));
    out
}

fn entries_docs(out: &mut String, setting: &EntrySetting) {
    let _ = write!(out, "\n### `[[{}]]`\n\n{}\n\n", setting.name, setting.doc);
    let _ = write!(out, "```toml\n[[{}]]\n{}```\n\n", setting.name, setting.example);
    out.push_str("| key | default | allowed | description |\n| --- | --- | --- | --- |\n");
    for key in setting.keys {
        let default = match key.default {
            KeyDefault::Required => "required".to_owned(),
            KeyDefault::None => "none".to_owned(),
            KeyDefault::Text(default) => format!("`{default}`"),
        };
        let _ = writeln!(out, "| `{}` | {default} | {} | {} |", key.name, key.kind.allowed(), key.doc);
    }
}

fn by_groups(mut each: impl FnMut(Group, &[&Setting])) {
    for &group in Group::ALL {
        let settings: Vec<&Setting> = SETTINGS.iter().filter(|setting| setting.group == group).collect();
        each(group, &settings);
    }
}

/// Writes `text` in lines of at most `COLUMNS` columns, each starting with `indent`.
pub fn wrap(out: &mut String, indent: &str, text: &str) {
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
