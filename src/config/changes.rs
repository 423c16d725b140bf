//! The differences between two configurations, by the names of the settings: for a reload.

use super::Config;
use super::arrays::ENTRY_SETTINGS;
use super::table::{SETTINGS, ValueKind};

/// Returns the names of the settings whose values differ, in the order of the table; arrays of tables are the
/// last. Settings of applications are not
/// among them.
#[must_use]
pub fn changed(one: &Config, other: &Config) -> Vec<&'static str> {
    let entries = ENTRY_SETTINGS.iter().filter(|setting| (setting.differs)(one, other));
    let entries: Vec<&str> = entries.map(|setting| setting.name).collect();
    let (mut one, mut other) = (one.clone(), other.clone());
    let differing = SETTINGS.iter().filter(|setting| differs(setting.kind, &mut one, &mut other));
    differing.map(|setting| setting.name).chain(entries).collect()
}

fn differs(kind: ValueKind, one: &mut Config, other: &mut Config) -> bool {
    match kind {
        ValueKind::Count { field, .. } => field(one) != field(other),
        ValueKind::AutoCount { field, .. } => field(one) != field(other),
        ValueKind::FileMode(field) => field(one) != field(other),
        ValueKind::Percent(field) => field(one) != field(other),
        ValueKind::Duration { field, .. } => field(one) != field(other),
        ValueKind::Shards(field) => field(one) != field(other),
        ValueKind::Addresses(field) => field(one) != field(other),
        ValueKind::AddressOrOff { addresses, tls } => {
            addresses(one) != addresses(other) || tls(one) != tls(other)
        }
        ValueKind::Apps(field) => field(one) != field(other),
        ValueKind::Hosts(field) | ValueKind::Origins(field) => field(one) != field(other),
        ValueKind::Texts(field) | ValueKind::Headers(field) => field(one) != field(other),
        ValueKind::Proxies(field) => field(one) != field(other),
        ValueKind::Text(field) => field(one) != field(other),
        ValueKind::Switch(field) => field(one) != field(other),
        ValueKind::Program(field) => field(one) != field(other),
        ValueKind::Files(field) => field(one) != field(other),
        ValueKind::File(field) | ValueKind::Directory(field) => field(one) != field(other),
        ValueKind::Choice { choices, set } => chosen(choices, set, one) != chosen(choices, set, other),
    }
}

/// Returns the index of the choice in effect: setting it again changes nothing.
fn chosen(choices: &[&str], set: fn(&mut Config, usize), config: &Config) -> Option<usize> {
    (0..choices.len()).find(|index| {
        let mut trial = config.clone();
        set(&mut trial, *index);
        trial == *config
    })
}
