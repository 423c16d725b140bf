//! All settings that are arrays of tables. Each is a row in a file of its own.

use super::api_keys::API_KEYS;
use super::auth::AUTH_KEYS;
use super::entries::EntrySetting;
use super::rules::RULES;

/// All arrays of tables, in the order in which they are shown.
pub static ENTRY_SETTINGS: &[&EntrySetting] = &[&AUTH_KEYS, &RULES, &API_KEYS];

/// Returns the array with this name.
pub(super) fn find(name: &str) -> Option<&'static EntrySetting> {
    ENTRY_SETTINGS.iter().copied().find(|setting| setting.name == name)
}
