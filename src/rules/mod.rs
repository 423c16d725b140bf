//! Rules: who may subscribe and send to which paths, and how often. Pure: no I/O, no clock, no settings.
//!
//! | file | contents |
//! | --- | --- |
//! | `pattern` | patterns of paths, of rules and of tokens |
//! | `rate` | rates of events |

mod pattern;
mod rate;

pub use pattern::{Pattern, PatternError, Segment};
pub use rate::{Rate, RateError};

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
    /// The line of the settings file at which the rule begins.
    pub line: u32,
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
