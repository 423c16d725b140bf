//! The keys in use: those of files, and those that were fetched last.

use super::keys::{LoadedKeys, PublishedKeys};
use crate::identity::{AuthKey, KeySet, TokenPolicy};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The keys in use. No shard takes the lock: shards get each set of keys in a message.
pub(super) struct KeyStore(Mutex<StoredKeys>);

struct StoredKeys {
    files: Vec<Arc<AuthKey>>,
    sets: Vec<PublishedKeys>,
    policy: TokenPolicy,
    keys: Arc<KeySet>,
}

impl KeyStore {
    pub fn new(loaded: LoadedKeys) -> KeyStore {
        let LoadedKeys { files, sets, policy, .. } = loaded;
        let keys = Arc::new(KeySet::new(Vec::<Arc<AuthKey>>::new(), policy.clone()));
        let mut stored = StoredKeys { files, sets, policy, keys };
        stored.rebuild();
        KeyStore(Mutex::new(stored))
    }

    fn lock(&self) -> MutexGuard<'_, StoredKeys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the keys. Each change makes another set.
    pub fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&self.lock().keys)
    }

    /// Returns the key sets that are fetched.
    pub fn sets(&self) -> Vec<PublishedKeys> {
        self.lock().sets.clone()
    }

    /// Replaces what the settings name. What was fetched from an address that is still there stays in use. Returns whether
    /// the keys of files have changed.
    pub fn replace(&self, loaded: LoadedKeys) -> bool {
        let mut stored = self.lock();
        let marks = |keys: &[Arc<AuthKey>]| -> Vec<_> {
            keys.iter().map(|key| (key.id().map(str::to_owned), key.mark())).collect()
        };
        let has_changed = marks(&stored.files) != marks(&loaded.files);
        let mut sets = loaded.sets;
        for set in &mut sets {
            let before =
                stored.sets.iter().find(|before| before.url == set.url && before.algorithm == set.algorithm);
            if let Some(before) = before {
                set.keys.clone_from(&before.keys);
            }
        }
        (stored.files, stored.sets, stored.policy) = (loaded.files, sets, loaded.policy);
        stored.rebuild();
        has_changed
    }

    /// Uses these keys of an address. Returns whether they are others than before.
    pub fn set_fetched(&self, url: &str, keys: &[PublishedKeys]) -> bool {
        let mut stored = self.lock();
        let mut has_changed = false;
        for set in stored.sets.iter_mut().filter(|set| set.url == url) {
            let Some(fetched) = keys.iter().find(|fetched| fetched.algorithm == set.algorithm) else {
                continue;
            };
            let ids = |keys: &[Arc<AuthKey>]| -> Vec<_> {
                keys.iter().map(|key| (key.id().map(str::to_owned), key.mark())).collect()
            };
            has_changed |= ids(&set.keys) != ids(&fetched.keys);
            set.keys.clone_from(&fetched.keys);
        }
        stored.rebuild();
        has_changed
    }
}

impl StoredKeys {
    fn rebuild(&mut self) {
        let fetched = self.sets.iter().flat_map(|set| &set.keys);
        let keys: Vec<Arc<AuthKey>> = self.files.iter().chain(fetched).cloned().collect();
        let keys = KeySet::new(keys, self.policy.clone());
        self.keys = Arc::new(if self.sets.is_empty() { keys } else { keys.growing() });
    }
}
