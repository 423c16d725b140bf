//! The setting `[[rules]]`: who may subscribe and send to which paths, and how often.

use super::Config;
use super::entries::{ArrayEntry, EntryKey, EntrySetting, KeyDefault, KeyKind};
use super::error::{ConfigError, Location};
use crate::history::HistoryBounds;
use crate::limits::{HISTORY_EVENTS_MAX, RULES_MAX};
use crate::rules::{Access, Pattern, Rate, Rule, Segment};
use std::time::Duration;

/// The row of the rules.
pub(super) static RULES: EntrySetting = EntrySetting {
    name: "rules",
    entry: "a rule",
    plural: "rules",
    doc: "Who may subscribe and send to which paths. The first rule whose path matches decides, and a path that no rule \
          matches is open to everyone. Rules are checked before an application is asked, which may still refuse. A client \
          that may not is answered with 401. They apply to clients, and not to what applications send. SIGHUP applies \
          changes; subscriptions that are no longer allowed end.",
    entries_max: RULES_MAX,
    keys: &[
        EntryKey {
            name: "path",
            kind: KeyKind::Text { allowed: "a path such as /user/{user}/*/**" },
            default: KeyDefault::Required,
            doc: "The paths to which the rule applies. * stands for any one segment, ** at the end for any number of \
                  further segments, also none, and {user} for a segment that owner compares with the user.",
        },
        EntryKey {
            name: "on",
            kind: KeyKind::Choice(&Access::NAMES),
            default: KeyDefault::Text("anyone"),
            doc: "Who may subscribe: anyone; every authenticated user; the owner, whose user is the segment {user}; users \
                  whose token was granted the path (its claim qio.on); or nobody.",
        },
        EntryKey {
            name: "send",
            kind: KeyKind::Choice(&Access::NAMES),
            default: KeyDefault::Text("anyone"),
            doc: "Who may send events. The claim of granted is qio.send.",
        },
        EntryKey {
            name: "rate",
            kind: KeyKind::Text { allowed: RATES },
            default: KeyDefault::None,
            doc: "The number of events that one client may send to the paths of this rule in a second, minute or hour. \
                  Further ones are answered with 420.",
        },
        EntryKey {
            name: "burst",
            kind: KeyKind::Count { min: 1, max: Rate::BURST_MAX as usize, unit: "events" },
            default: KeyDefault::None,
            doc: "The number of events that a client that has paused may send at once. The default is the number of rate.",
        },
        EntryKey {
            name: "address-rate",
            kind: KeyKind::Text { allowed: RATES },
            default: KeyDefault::None,
            doc: "The same for all clients of one address together, so that a client gains nothing by connecting again. Many \
                  people may share an address.",
        },
        EntryKey {
            name: "history",
            kind: KeyKind::Count { min: 1, max: HISTORY_EVENTS_MAX, unit: "events" },
            default: KeyDefault::None,
            doc: "The number of the last events of each path that are kept in memory and numbered, so that clients that come back \
                  get what they have missed. Without it, none are. See history-bytes-max.",
        },
        EntryKey {
            name: "history-ttl",
            kind: KeyKind::Duration { min: Duration::from_secs(1) },
            default: KeyDefault::None,
            doc: "The time for which such an event is kept. Without it, it is kept until there are newer ones or the memory is \
                  needed.",
        },
        EntryKey {
            name: "members",
            kind: KeyKind::Switch,
            default: KeyDefault::Text("off"),
            doc: "The clients that are subscribed to a path of this rule are its members: clients that ask for them get a list, and \
                  are told who joins and leaves. They see each other's users and the information in their tokens (the claim \
                  qio.info). See members-max and members-linger.",
        },
    ],
    example: "path = \"/user/{user}/**\"\non = \"owner\"\nsend = \"nobody\"\n",
    add,
    differs: |one, other| one.rules != other.rules,
};

const RATES: &str = "a number of events and a unit of time, such as 10/s, 600/m or 5/h";

fn add(entry: &ArrayEntry<'_>, config: &mut Config) -> Result<(), ConfigError> {
    let bad = |key: &'static str| move |problem: String| entry.problem(key, problem);
    let pattern: Pattern =
        entry.required("path").parse().map_err(|error| entry.problem("path", format!("{error}")))?;
    if pattern.segments().next() == Some(Segment::Text("qio")) {
        let problem = "the server's own events under /qio are not subject to rules";
        return Err(entry.problem("path", problem.into()));
    }
    let access = |key: &str| Access::ALL[entry.choice(key).expect("it has a default")];
    let rule = Rule {
        on: access("on"),
        send: access("send"),
        rate: rate(entry, "rate", entry.count("burst")).map_err(bad("rate"))?,
        address_rate: rate(entry, "address-rate", None).map_err(bad("address-rate"))?,
        history: history(entry)?,
        members: entry.switch("members"),
        line: line(entry.location()),
        pattern,
    };
    for key in ["on", "send"] {
        if access(key) == Access::Owner && !rule.pattern.has_user() {
            let path = rule.pattern.as_str();
            return Err(
                entry.problem(key, format!("no segment of the path {path} is {{user}}, so it has no owner"))
            );
        }
    }
    if entry.count("burst").is_some() && rule.rate.is_none() {
        return Err(entry.problem("burst", "the entry has no rate, to which it belongs".into()));
    }
    if let Some(other) = config.rules.iter().position(|other| other.pattern == rule.pattern) {
        let number = other + 1;
        return Err(entry.problem("path", format!("rule {number} has the same path and decides")));
    }
    config.rules.push(rule);
    Ok(())
}

fn rate(entry: &ArrayEntry<'_>, key: &str, burst: Option<usize>) -> Result<Option<Rate>, String> {
    let burst = burst.map(|burst| u32::try_from(burst).expect("bursts are bounded"));
    entry.text(key).map(|text| Rate::parse(text, burst).map_err(|error| error.to_string())).transpose()
}

fn history(entry: &ArrayEntry<'_>) -> Result<Option<HistoryBounds>, ConfigError> {
    // Less than a second counts as one.
    let seconds = |ttl: Duration| ttl.as_millis().div_ceil(1000).try_into().expect("durations are bounded");
    let age_s = entry.duration("history-ttl").map(seconds);
    let Some(events) = entry.count("history") else {
        return match age_s {
            Some(_) => {
                Err(entry.problem("history-ttl", "the entry has no history, to which it belongs".into()))
            }
            None => Ok(None),
        };
    };
    Ok(Some(HistoryBounds { events: events.try_into().expect("counts are bounded"), age_s }))
}

fn line(location: &Location) -> u32 {
    match location {
        Location::File { line, .. } => u32::try_from(*line).unwrap_or(u32::MAX),
        _ => 0,
    }
}
