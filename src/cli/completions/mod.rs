//! `quickio completions`: scripts with which shells complete commands, flags and their values. They are made from the tables
//! of commands and settings.
//!
//! | file | contents |
//! | --- | --- |
//! | `offered` | the words that can stand at each place of a command line |
//! | `bash`, `zsh`, `fish` | the script for each shell |

mod bash;
mod fish;
mod offered;
mod zsh;

use super::args::ArgumentError;
use super::command::{Example, Invocation, Subcommand, no_details};
use super::connect::{self, ClientError};
use super::outcome;
use offered::OfferedCommand;

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "completions",
    summary: "Prints the completions for a shell",
    usage: "bash|zsh|fish",
    about: "Prints a script for bash, zsh or fish that completes commands, flags, settings and their values. Packages \
            install it; otherwise write it to a file that the shell reads.",
    flags: &[],
    takes_settings: false,
    examples: &[
        Example {
            line: "source <(quickio completions bash)",
            does: "Completes in this bash. In ~/.bashrc, this line does so in all of them.",
        },
        Example {
            line: "quickio completions zsh > /usr/local/share/zsh/site-functions/_quickio",
            does: "Installs the script for zsh, which runs compinit and reads this directory.",
        },
        Example {
            line: "quickio completions fish > ~/.config/fish/completions/quickio.fish",
            does: "Installs the script for fish.",
        },
    ],
    details: no_details,
    run: |invocation: Invocation| {
        let commands = invocation.commands;
        connect::act(invocation, |arguments| {
            let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
            let text = script(&words, commands)?;
            Ok(outcome::print(&text))
        })
    },
};

/// Returns the script for the shell that the arguments name.
fn script(words: &[&str], commands: &'static [&'static Subcommand]) -> Result<String, ClientError> {
    let offered = offered::commands(commands);
    let write: fn(&[OfferedCommand]) -> String = match words {
        ["bash"] => bash::script,
        ["zsh"] => zsh::script,
        ["fish"] => fish::script,
        _ => {
            let problem = "completions needs the name of a shell: bash, zsh or fish".into();
            return Err(ArgumentError::Usage { command: COMMAND.name, problem }.into());
        }
    };
    Ok(write(&offered))
}

#[cfg(test)]
mod tests {
    use super::super::COMMANDS;
    use super::*;
    use crate::config::table::SETTINGS;

    #[test]
    fn every_command_and_flag_is_in_every_script() {
        for shell in ["bash", "zsh", "fish"] {
            let script = script(&[shell], COMMANDS).unwrap();
            for command in COMMANDS {
                assert!(script.contains(command.name), "{shell}: {}", command.name);
                for flag in command.flags {
                    assert!(script.contains(flag.name), "{shell}: {} --{}", command.name, flag.name);
                }
            }
            for setting in SETTINGS {
                assert!(script.contains(setting.name), "{shell}: --{}", setting.name);
            }
        }
        for words in [&[][..], &["tcsh"], &["bash", "zsh"]] {
            assert!(script(words, COMMANDS).unwrap_err().to_string().contains("bash, zsh or fish"));
        }
    }
}
