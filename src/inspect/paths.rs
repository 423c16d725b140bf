//! Answers about paths.

use crate::event::path::Path;
use crate::limits::PATHS_LISTED_MAX;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// A path and the broadcasts to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BusyPath {
    /// The path.
    #[serde(serialize_with = "text")]
    pub path: Path,
    /// The broadcasts a second, at least. Those of the last ten seconds count most.
    pub broadcasts_per_second: f64,
    /// The broadcasts a second that may have been more: broadcasts to the path before it was among the busiest ones.
    pub uncertainty: f64,
    /// The number of subscribers.
    pub subscribers: u64,
}

/// The busiest paths of the server, the first of them the busiest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BusiestPaths(Vec<BusyPath>);

impl BusiestPaths {
    /// Gathers the busiest paths of all shards. The broadcasts to a path may start on several shards.
    pub fn merge(of_shards: impl IntoIterator<Item = Vec<BusyPath>>) -> BusiestPaths {
        let mut merged: BTreeMap<Path, BusyPath> = BTreeMap::new();
        for busy in of_shards.into_iter().flatten() {
            match merged.get_mut(&busy.path) {
                Some(same) => {
                    same.broadcasts_per_second += busy.broadcasts_per_second;
                    same.uncertainty += busy.uncertainty;
                }
                None => drop(merged.insert(busy.path.clone(), busy)),
            }
        }
        let mut paths: Vec<BusyPath> = merged.into_values().collect();
        // The sort is stable: paths that are equally busy stay in the order of their texts.
        paths.sort_by(|one, other| other.broadcasts_per_second.total_cmp(&one.broadcasts_per_second));
        paths.truncate(PATHS_LISTED_MAX);
        BusiestPaths(paths)
    }

    /// Returns the paths.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|busy| &busy.path)
    }

    /// Adds a shard's numbers of subscribers, which are in the order of the paths.
    pub fn add_subscribers(&mut self, of_shard: &[u64]) {
        self.0.iter_mut().zip(of_shard).for_each(|(busy, subscribers)| busy.subscribers += subscribers);
    }

    /// Returns the first of the paths.
    pub fn first(&self, count: usize) -> &[BusyPath] {
        &self.0[..count.min(self.0.len())]
    }
}

fn text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::testing::busy;

    #[test]
    fn broadcasts_of_all_shards_count_for_a_path() {
        let shards = [vec![busy("/a", 3.0), busy("/b", 2.0)], vec![busy("/b", 2.0), busy("/c", 1.0)]];
        let mut busiest = BusiestPaths::merge(shards);
        let order: Vec<&str> = busiest.paths().map(Path::as_str).collect();
        assert_eq!(order, ["/b", "/a", "/c"]);
        busiest.add_subscribers(&[1, 2, 3]);
        busiest.add_subscribers(&[10, 20, 30]);
        let [first] = busiest.first(1) else { panic!("one path was asked for") };
        assert_eq!((first.broadcasts_per_second, first.uncertainty, first.subscribers), (4.0, 1.0, 11));
        assert_eq!(busiest.first(9).len(), 3);
        let many = (0..300).map(|number| busy(&format!("/{number}"), 1.0)).collect();
        assert_eq!(BusiestPaths::merge([many]).paths().count(), PATHS_LISTED_MAX);
    }
}
