//! Rules: who may subscribe and send to which paths, and how often. Pure: no I/O, no clock, no settings.
//!
//! | file | contents |
//! | --- | --- |
//! | `pattern` | patterns of paths, of rules and of tokens |
//! | `trie` | the search for the first rule that matches a path |
//! | `rate` | rates of events |
//! | `buckets` | token buckets, which enforce rates |

mod buckets;
mod pattern;
mod rate;
mod trie;

pub use buckets::{BucketKey, Buckets};
pub use pattern::{Pattern, PatternError, Segment};
pub use rate::{Rate, RateError};

use crate::history::HistoryBounds;
use crate::limits::RULES_MAX;
use trie::Trie;

/// A rule, as the settings have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The paths to which it applies.
    pub pattern: Pattern,
    /// The clients that may subscribe.
    pub on: Access,
    /// The clients that may send events.
    pub send: Access,
    /// How often one client may send.
    pub rate: Option<Rate>,
    /// How often the clients of one address may send.
    pub address_rate: Option<Rate>,
    /// The events of each path that are kept, if any are.
    pub history: Option<HistoryBounds>,
    /// The members of each path are told to those who ask.
    pub members: bool,
    /// The line of the settings file at which the rule begins.
    pub line: u32,
}

impl Rule {
    /// Returns a rule for these paths that allows everything to every client, and keeps nothing. It has no line.
    #[must_use]
    pub fn open(pattern: Pattern) -> Rule {
        Rule {
            pattern,
            on: Access::Anyone,
            send: Access::Anyone,
            rate: None,
            address_rate: None,
            history: None,
            members: false,
            line: 0,
        }
    }
}

/// The clients that a rule allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Every client.
    Anyone,
    /// Clients that are authenticated.
    User,
    /// Clients whose user is the segment `{user}` of the path.
    Owner,
    /// Clients with a token that has a pattern for the path.
    Granted,
    /// No client.
    Nobody,
}

impl Access {
    /// All of them, in the order of [`Access::NAMES`].
    pub const ALL: [Access; 5] =
        [Access::Anyone, Access::User, Access::Owner, Access::Granted, Access::Nobody];

    /// Their names in the settings.
    pub const NAMES: [&'static str; 5] = ["anyone", "user", "owner", "granted", "nobody"];

    /// Returns the name in the settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        Access::NAMES[self as usize]
    }
}

/// An action that rules allow or refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// To subscribe to a path.
    On,
    /// To send an event to a path.
    Send,
}

/// A client as rules see it. [`Subject::default`] is a client that has not authenticated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The authenticated user.
    pub user: Option<&'a str>,
    /// The paths to which the client's token allows it to subscribe.
    pub on: &'a [Pattern],
    /// The paths to which the client's token allows it to send.
    pub send: &'a [Pattern],
}

/// The rules of a server, in a form in which they are decided fast.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    /// For each rule, the number of segments before `{user}`; 0 if it has none, which nothing asks for then.
    user_segments: Vec<u8>,
    trie: Trie,
}

impl RuleSet {
    /// Returns these rules, of which an earlier one comes before a later one.
    ///
    /// # Panics
    ///
    /// Panics if there are more than [`RULES_MAX`].
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> RuleSet {
        assert!(rules.len() <= RULES_MAX, "the settings have at most {RULES_MAX} rules");
        let user_segment = |rule: &Rule| rule.pattern.user_segment().map_or(0, |at| at as u8);
        let user_segments = rules.iter().map(user_segment).collect();
        let trie = Trie::new(rules.iter().map(|rule| &rule.pattern));
        RuleSet { rules, user_segments, trie }
    }

    /// Returns whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the rules in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns the number of the first rule that matches a clean path. Without one, the path is open.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<usize> {
        self.trie.find(path)
    }

    /// Returns whether rule `number`, which matches the path, allows a client to do something there.
    #[must_use]
    pub fn allows(&self, number: usize, action: RuleAction, path: &str, subject: &Subject<'_>) -> bool {
        let rule = &self.rules[number];
        let (access, granted) = match action {
            RuleAction::On => (rule.on, subject.on),
            RuleAction::Send => (rule.send, subject.send),
        };
        match access {
            Access::Anyone => true,
            Access::Nobody => false,
            Access::User => subject.user.is_some(),
            Access::Owner => {
                let owner = pattern::segments(path).nth(usize::from(self.user_segments[number]));
                subject.user.is_some() && subject.user == owner
            }
            Access::Granted => granted.iter().any(|pattern| pattern.matches(path, subject.user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, on: Access, send: Access) -> Rule {
        Rule { on, send, ..Rule::open(pattern.parse().unwrap()) }
    }

    fn allows(rules: &RuleSet, action: RuleAction, path: &str, subject: &Subject<'_>) -> bool {
        rules.find(path).is_none_or(|number| rules.allows(number, action, path, subject))
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = RuleSet::new(vec![
            rule("/user/{user}/**", Access::Owner, Access::Nobody),
            rule("/chat/admin", Access::Granted, Access::Granted),
            rule("/chat/*", Access::User, Access::User),
            rule("/news/**", Access::Anyone, Access::Nobody),
        ]);
        let granted: Vec<Pattern> = vec!["/chat/{user}".parse().unwrap(), "/chat/admin".parse().unwrap()];
        let nobody = Subject::default();
        let seven = Subject { user: Some("7"), ..nobody };
        let admin = Subject { user: Some("admin"), on: &granted, send: &granted[..1] };
        let sender = Subject { user: Some("7"), on: &[], send: &granted };
        for (path, subject, on, send) in [
            ("/user/7", &seven, true, false),
            ("/user/7/inbox", &seven, true, false),
            ("user/7/inbox", &seven, true, false),
            ("/user/8/inbox", &seven, false, false),
            ("/user/7/inbox", &nobody, false, false),
            ("/user", &nobody, true, true),
            ("/chat/rust", &nobody, false, false),
            ("/chat/rust", &seven, true, true),
            ("/chat/admin", &seven, false, false),
            ("/chat/admin", &admin, true, true),
            ("/chat/admin", &sender, false, true),
            ("/news", &nobody, true, false),
            ("/news/a/b", &seven, true, false),
            ("/other", &nobody, true, true),
        ] {
            assert_eq!(allows(&rules, RuleAction::On, path, subject), on, "on {path} {subject:?}");
            assert_eq!(allows(&rules, RuleAction::Send, path, subject), send, "send {path} {subject:?}");
        }
    }

    #[test]
    fn without_rules_every_path_is_open() {
        let rules = RuleSet::new(Vec::new());
        assert!(rules.is_empty() && allows(&rules, RuleAction::Send, "/a", &Subject::default()));
    }

    #[test]
    fn names_of_access() {
        for (index, access) in Access::ALL.into_iter().enumerate() {
            assert_eq!((access as usize, access.name()), (index, Access::NAMES[index]));
        }
    }
}
