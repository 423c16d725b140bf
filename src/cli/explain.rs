//! `quickio explain`.

use super::command::{Example, Flag, Invocation, Subcommand, no_details};
use super::outcome;
use crate::config::{self, Action, ExplainConfig};
use crate::event::path::Path;
use crate::rules::{Access, Rule, RuleAction, RuleSet, Subject};
use std::env;
use std::fmt::Write;
use std::process::ExitCode;

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "explain",
    summary: "Shows which rule decides about a path, and its answers",
    usage: "[FLAG VALUE]... PATH...",
    about: "Shows which of the [[rules]] of the settings file decides about a path, the line at which it begins, and \
            whether a client may subscribe and send there. It reads the settings as a server would, and asks no server.\
            \n\n\
            An application that handles the path may still refuse.",
    flags: &[Flag {
        name: "user",
        value: "USER",
        doc: "The user of the client. Without it, the client has not authenticated.",
    }],
    takes_settings: true,
    examples: &[
        Example {
            line: "quickio explain --config /etc/quickio/quickio.toml --user 7 /user/8/inbox",
            does: "Shows whether user 7 may subscribe to the inbox of user 8, and why.",
        },
        Example {
            line: "quickio explain --config /etc/quickio/quickio.toml /chat/rust /news",
            does: "Shows what everybody may do who knows the address of the server.",
        },
    ],
    details: no_details,
    run,
};

fn run(invocation: Invocation) -> ExitCode {
    match config::explain_from_args(invocation.args.clone(), env::vars_os()) {
        Ok(Action::Run(asked)) => outcome::print(&explain(asked)),
        not_asked => outcome::act(&invocation, not_asked, |_| Ok(())),
    }
}

/// Returns the explanations of all paths.
fn explain(asked: ExplainConfig) -> String {
    let rules = RuleSet::new(asked.server.rules);
    let explained = asked.paths.iter().map(|path| of_path(&rules, path, asked.user.as_deref()));
    Vec::from_iter(explained).join("\n")
}

/// Returns the explanation of a path: the path, the rule, and a line for each answer.
fn of_path(rules: &RuleSet, typed: &str, user: Option<&str>) -> String {
    let path = match Path::parse(typed) {
        Ok(path) => path,
        Err(error) => return format!("{typed}\n  no event can have this path: {error}\n"),
    };
    let mut out = format!("{path}\n");
    if path.as_str() != typed {
        let _ = writeln!(out, "  the server reads `{typed}` as this path");
    }
    if path.as_str() == "/qio" || path.as_str().starts_with("/qio/") {
        out.push_str("  rules do not apply to the server's own events\n");
        return out;
    }
    let Some(number) = rules.find(path.as_str()) else {
        let reason = if rules.is_empty() { "there are no rules" } else { "no rule matches" };
        let _ = writeln!(out, "  {reason}: every client may subscribe and send");
        return out;
    };
    let rule = &rules.as_slice()[number];
    let (line, count) = (rule.line, rules.as_slice().len());
    let _ = writeln!(out, "  rule {} of {count} decides: {} (line {line})", number + 1, rule.pattern);
    let subject = Subject { user, ..Subject::default() };
    for (key, action, access) in [("on", RuleAction::On, rule.on), ("send", RuleAction::Send, rule.send)] {
        let may = rules.allows(number, action, path.as_str(), &subject);
        let _ = writeln!(out, "  {key} = {}: {}", access.name(), answer(key, access, may, user));
    }
    rates(&mut out, rule);
    out
}

/// Returns the answer of a rule as a phrase.
fn answer(key: &str, access: Access, may: bool, user: Option<&str>) -> String {
    let verb = if key == "on" { "subscribe" } else { "send" };
    let client = user.map_or_else(|| "a client without a user".to_owned(), |user| format!("user {user}"));
    match (access, user) {
        (Access::Granted, Some(_)) => {
            format!("{client} may {verb} if the token's claim qio.{key} has a pattern that matches")
        }
        _ => format!("{client} {} {verb}", if may { "may" } else { "may not" }),
    }
}

fn rates(out: &mut String, rule: &Rule) {
    if let Some(rate) = rule.rate {
        let _ = writeln!(out, "  rate = {rate}: for each client");
    }
    if let Some(rate) = rule.address_rate {
        let _ = writeln!(out, "  address-rate = {rate}: for all clients of an address");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule as the settings file has it: a path, `on`, `send`, a rate for clients and one for addresses.
    type WrittenRule = (&'static str, Access, Access, Option<&'static str>, Option<&'static str>);

    const RULES: [WrittenRule; 3] = [
        ("/user/{user}/**", Access::Owner, Access::Nobody, None, None),
        ("/chat/*", Access::User, Access::Granted, Some("10/s"), Some("600/m")),
        ("/news", Access::Anyone, Access::Nobody, None, None),
    ];

    fn rules() -> Vec<Rule> {
        let rate = |text: Option<&str>| text.map(|text| crate::rules::Rate::parse(text, None).unwrap());
        let rule = |(line, (path, on, send, each, address)): (usize, WrittenRule)| Rule {
            pattern: path.parse().unwrap(),
            on,
            send,
            rate: rate(each),
            address_rate: rate(address),
            line: line as u32 * 4 + 3,
        };
        RULES.into_iter().enumerate().map(rule).collect()
    }

    #[test]
    fn explanations() {
        let rules = RuleSet::new(rules());
        for (path, user, expected) in [
            (
                "/user/7/inbox",
                Some("7"),
                "/user/7/inbox\n  rule 1 of 3 decides: /user/{user}/** (line 3)\n  on = owner: user 7 may subscribe\n  \
                 send = nobody: user 7 may not send\n",
            ),
            (
                "/user/8",
                Some("7"),
                "/user/8\n  rule 1 of 3 decides: /user/{user}/** (line 3)\n  on = owner: user 7 may not subscribe\n  \
                 send = nobody: user 7 may not send\n",
            ),
            (
                "/chat//@x",
                None,
                "/chat/x\n  the server reads `/chat//@x` as this path\n  rule 2 of 3 decides: /chat/* (line 7)\n  \
                 on = user: a client without a user may not subscribe\n  \
                 send = granted: a client without a user may not send\n  rate = 10/s: for each client\n  \
                 address-rate = 600/m: for all clients of an address\n",
            ),
            ("/other", None, "/other\n  no rule matches: every client may subscribe and send\n"),
            ("/qio/ping", None, "/qio/ping\n  rules do not apply to the server's own events\n"),
            ("@", None, "@\n  no event can have this path: the path is empty\n"),
        ] {
            assert_eq!(of_path(&rules, path, user), expected);
        }
        let granted = of_path(&rules, "/chat/x", Some("7"));
        assert!(granted.contains("user 7 may send if the token's claim qio.send has a pattern"), "{granted}");
        let open = of_path(&RuleSet::new(Vec::new()), "/a", None);
        assert_eq!(open, "/a\n  there are no rules: every client may subscribe and send\n");
    }
}
