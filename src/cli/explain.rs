//! `quickio explain`.

use super::command::{Example, Flag, Invocation, Subcommand, no_details};
use super::connect::TokenPlace;
use super::outcome;
use crate::config::{self, Action, Config, ExplainConfig};
use crate::event::path::Path;
use crate::identity::{Flaw, Identity, TokenError};
use crate::rules::{Access, Pattern, Rule, RuleAction, RuleSet, Subject};
use crate::server;
use httpdate::fmt_http_date;
use std::env;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) static COMMAND: Subcommand = Subcommand {
    name: "explain",
    summary: "Shows which rule decides about a path, and its answers",
    usage: "[FLAG VALUE]... PATH...",
    about: "Shows which of the [[rules]] of the settings file decides about a path, the line at which it begins, and \
            whether a client may subscribe and send there. It reads the settings as a server would, and asks no server.\
            \n\n\
            An application that handles the path may still refuse.\n\n\
            The exit code is 0 unless the settings are wrong or the server would refuse the token.",
    flags: &[
        Flag {
            name: "user",
            value: "USER",
            doc: "The user of the client. Without it and --token-file, the client has not authenticated.",
        },
        Flag {
            name: "token-file",
            value: "FILE",
            doc: "The file with the token of the client, which is verified with the keys in [[auth-keys]]. It names the user, \
                  and what granted allows. Keys of a jwks-url are not fetched: the signature of their tokens is not verified.",
        },
    ],
    takes_settings: true,
    examples: &[
        Example {
            line: "quickio explain --config /etc/quickio/quickio.toml --user 7 /user/8/inbox",
            does: "Shows whether user 7 may subscribe to the inbox of user 8, and why.",
        },
        Example {
            line: "quickio explain --config /etc/quickio/quickio.toml --token-file jwt /x",
            does: "Shows what a client with this token may do, and why.",
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
        Ok(Action::Run(asked)) => answer_to(asked),
        not_asked => outcome::act(&invocation, not_asked, |_| Ok(())),
    }
}

fn answer_to(asked: ExplainConfig) -> ExitCode {
    let client = match asked.token_file {
        Some(file) => match of_token(&asked.server, file) {
            Ok(client) => client,
            Err(exit_code) => return exit_code,
        },
        None => ExplainedClient::of_user(asked.user),
    };
    outcome::print(&explain(asked.server, &asked.paths, &client))
}

/// The client that is asked about.
#[derive(Default)]
struct ExplainedClient {
    user: Option<String>,
    /// The patterns of its token for subscriptions and for events, if a token was given.
    granted: Option<[Box<[Pattern]>; 2]>,
    /// The first paragraph of the answer, about its token.
    title: String,
}

impl ExplainedClient {
    fn of_user(user: Option<String>) -> ExplainedClient {
        ExplainedClient { user, ..ExplainedClient::default() }
    }

    /// Returns a client with a token. `note` is the end of the sentence about it.
    fn of_identity(identity: Identity, note: &str) -> ExplainedClient {
        let end = match identity.expires.and_then(|at| UNIX_EPOCH.checked_add(Duration::from_secs(at))) {
            // What httpdate can write.
            Some(at) if identity.expires < Some(253_402_300_800) => {
                format!("expires on {}", fmt_http_date(at))
            }
            _ => "does not expire".to_owned(),
        };
        ExplainedClient {
            title: format!("the token of user {} {end}{note}\n\n", identity.user),
            user: Some(identity.user.into()),
            granted: Some([identity.on, identity.send]),
        }
    }

    fn subject(&self) -> Subject<'_> {
        let (on, send) = self.granted.as_ref().map_or((&[][..], &[][..]), |[on, send]| (&**on, &**send));
        Subject { user: self.user.as_deref(), on, send }
    }

    fn name(&self) -> String {
        self.user.as_ref().map_or_else(|| "a client without a user".to_owned(), |user| format!("user {user}"))
    }
}

/// Returns the client of a token, or the exit code if the server would refuse it, which was reported then.
fn of_token(config: &Config, file: PathBuf) -> Result<ExplainedClient, ExitCode> {
    let shown = file.display().to_string();
    let token = TokenPlace::File(file).read().map_err(|error| error.end())?;
    if config.auth == config::AuthMode::Off {
        let error = ExplainError("the server would refuse every token, because auth is off: give the settings with which it runs (--config FILE)".into());
        return Err(outcome::fail(&error, config::EXIT_CODE));
    }
    let keys = server::keys_of_files(config).map_err(|error| outcome::fail(&error, error.exit_code()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let identity = match keys.open(&token) {
        Err(TokenError::Invalid(Flaw::UnknownKey)) if keys.may_grow() => keys
            .read_unverified(&token, now)
            .map(|identity| (identity, ". Its signature was not verified, because no file has its key")),
        opened => opened.and_then(|opened| opened.verify(&keys, now)).map(|identity| (identity, "")),
    };
    match identity {
        Ok((identity, note)) => Ok(ExplainedClient::of_identity(identity, note)),
        Err(error) => {
            let error = ExplainError(format!("the server would refuse the token in {shown}: {error}"));
            Err(outcome::fail(&error, 1))
        }
    }
}

/// A token that decides nothing, as the text says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ExplainError(String);

/// Returns the explanations of all paths.
fn explain(config: Config, paths: &[String], client: &ExplainedClient) -> String {
    let rules = RuleSet::new(config.rules);
    let explained = paths.iter().map(|path| of_path(&rules, path, client));
    client.title.clone() + &Vec::from_iter(explained).join("\n")
}

/// Returns the explanation of a path: the path, the rule, and a line for each answer.
fn of_path(rules: &RuleSet, typed: &str, client: &ExplainedClient) -> String {
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
    let subject = client.subject();
    for (key, action, access) in [("on", RuleAction::On, rule.on), ("send", RuleAction::Send, rule.send)] {
        let may = rules.allows(number, action, path.as_str(), &subject);
        let verb = if key == "on" { "subscribe" } else { "send" };
        let answer = format!("{} {} {verb}", client.name(), if may { "may" } else { "may not" });
        let reason = if access == Access::Granted {
            reason(key, action, path.as_str(), client)
        } else {
            String::new()
        };
        let _ = writeln!(out, "  {key} = {}: {answer}{reason}", access.name());
    }
    rates(&mut out, rule);
    out
}

/// Returns the reason of an answer that depends on the token.
fn reason(key: &str, action: RuleAction, path: &str, client: &ExplainedClient) -> String {
    let Some([on, send]) = &client.granted else {
        return match client.user {
            Some(_) => {
                format!(", unless its token's claim qio.{key} has a pattern that matches (--token-file)")
            }
            None => String::new(),
        };
    };
    let patterns = if action == RuleAction::On { on } else { send };
    match patterns.iter().find(|pattern| pattern.matches(path, client.user.as_deref())) {
        Some(pattern) => format!(", because the token's claim qio.{key} has {}", pattern.as_str()),
        None => format!(", because no pattern of the token's claim qio.{key} matches"),
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
            on,
            send,
            rate: rate(each),
            address_rate: rate(address),
            line: line as u32 * 4 + 3,
            ..Rule::open(path.parse().unwrap())
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
            let client = ExplainedClient::of_user(user.map(str::to_owned));
            assert_eq!(of_path(&rules, path, &client), expected);
        }
        let seven = of_path(&rules, "/chat/x", &ExplainedClient::of_user(Some("7".into())));
        assert!(
            seven.contains("user 7 may not send, unless its token's claim qio.send has a pattern"),
            "{seven}"
        );
        let open = of_path(&RuleSet::new(Vec::new()), "/a", &ExplainedClient::default());
        assert_eq!(open, "/a\n  there are no rules: every client may subscribe and send\n");
    }

    #[test]
    fn tokens_grant() {
        let rules = RuleSet::new(rules());
        let identity = |expires| Identity {
            user: "7".into(),
            expires,
            claims: "{}".into(),
            on: Box::default(),
            send: Box::new(["/x".parse().unwrap(), "/chat/{user}".parse().unwrap()]),
            info: None,
        };
        let client = ExplainedClient::of_identity(identity(Some(0)), "");
        assert_eq!(client.title, "the token of user 7 expires on Thu, 01 Jan 1970 00:00:00 GMT\n\n");
        let text = of_path(&rules, "/chat/7", &client);
        assert!(
            text.contains("user 7 may send, because the token's claim qio.send has /chat/{user}\n"),
            "{text}"
        );
        let text = of_path(&rules, "/chat/8", &client);
        let refused = "user 7 may not send, because no pattern of the token's claim qio.send matches\n";
        assert!(text.contains(refused), "{text}");
        for expires in [None, Some(u64::MAX)] {
            assert!(
                ExplainedClient::of_identity(identity(expires), "").title.ends_with("does not expire\n\n")
            );
        }
    }
}
