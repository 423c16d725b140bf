//! The completions in bash, zsh and fish, and the manual page in mandoc and groff. scripts/test.sh installs these programs.

use crate::support::tls::Authority;
use crate::{quickio, run};
use std::process::{Command, Stdio};

/// Command lines that have a single completion, and the last word after it.
const COMPLETED: &[(&str, &str)] = &[
    ("quickio ch", "check"),
    ("quickio --log-level d", "debug"),
    ("quickio --clients-m", "--clients-max"),
    ("quickio check --tls-mi", "--tls-min-version"),
    ("quickio check --tls-min-version 1.3 --config Cargo.t", "Cargo.toml"),
    ("quickio completions z", "zsh"),
    ("quickio help pu", "pub"),
    ("quickio pub --token-fi", "--token-file"),
    ("quickio pub /a --tls-k", "--tls-key"),
    ("quickio explain --token-f", "--token-file"),
    ("quickio top --admin-p", "--admin-password-file"),
    ("quickio token --algorithm ES2", "ES256"),
    ("quickio --auth r", "required"),
    ("quickio --app web", "webhook"),
    ("quickio --app rel", "relay"),
    ("quickio clienttest --mangle sw", "swallow"),
    ("quickio test-app rel", "relay"),
];

fn printed(arguments: &[&str]) -> String {
    let end = run(quickio(arguments), "");
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    end.stdout
}

/// Runs a program in the folder of the sources, whose files are completed.
fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
    let output = command.output().unwrap_or_else(|error| panic!("install {program}: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Expects the completions of a shell's script, which prints a line for each command line.
#[track_caller]
fn assert_completed(output: &str, last_word: impl Fn(&str) -> String) {
    let completed: Vec<String> = output.lines().map(last_word).collect();
    let expected: Vec<&str> = COMPLETED.iter().map(|(_, word)| *word).collect();
    assert_eq!(completed, expected, "{output}");
}

#[test]
fn bash_completes() {
    let files = Authority::new();
    let mut script = printed(&["completions", "bash"]);
    script += "\ntry() {\n    COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()\n    _quickio\n    \
               echo \"${COMPREPLY[*]}\"\n}\n";
    for (line, _) in COMPLETED {
        script += &format!("try '{line}'\n");
    }
    // A flag with `=`, of which bash makes three words, and the values that only a person knows.
    script += "try 'quickio --log-level = d'\ntry 'quickio pub --timeout 1'\n";
    let file = files.write("completions.bash", &script);
    let output = output("bash", &["--norc", &file]);
    let (completed, rest) = output.split_at(output.find("debug\n\n").expect("the last lines"));
    assert_completed(completed, str::to_owned);
    assert_eq!(rest, "debug\n\n");
}

#[test]
fn fish_completes() {
    let files = Authority::new();
    let mut script = printed(&["completions", "fish"]);
    for (line, word) in COMPLETED {
        // fish completes the middle of words too, if nothing begins so.
        script +=
            &format!("complete -C '{line}' | string split -f1 \\t | string match -- '{word}' | head -n 1\n");
    }
    let file = files.write("completions.fish", &script);
    assert_completed(&output("fish", &["--no-config", &file]), str::to_owned);
}

#[test]
fn zsh_completes() {
    let files = Authority::new();
    files.write("_quickio", printed(&["completions", "zsh"]));
    let folder = files.path("");
    let lines = COMPLETED.iter().map(|(line, _)| *line);
    let arguments: Vec<&str> = ["-f", "tests/cli/complete.zsh", &folder].into_iter().chain(lines).collect();
    let last_word = |line: &str| line.trim_end().rsplit(' ').next().unwrap().trim_end_matches('=').to_owned();
    assert_completed(&output("zsh", &arguments), last_word);
}

#[test]
fn the_manual_page_has_no_warnings() {
    let files = Authority::new();
    let page = files.write("quickio.1", printed(&["man"]));
    assert_eq!(output("mandoc", &["-T", "lint", "-W", "warning", &page]), "");
    let shown =
        Command::new("groff").args(["-man", "-Tutf8", "-ww", "-z", &page]).output().expect("install groff");
    assert_eq!(String::from_utf8_lossy(&shown.stderr), "");
    let text = output("mandoc", &["-T", "ascii", &page]);
    // Bold letters are printed twice, with a backspace between them.
    let mut plain = String::new();
    for character in text.chars() {
        if character == '\u{8}' {
            plain.pop();
        } else {
            plain.push(character);
        }
    }
    for words in ["a real-time event server", "pub [FLAG VALUE]... [PATH [DATA]]", "--clients-max COUNT"] {
        assert!(plain.contains(words), "{words}: {plain}");
    }
}
