//! Suggests the name that was probably meant by one that does not exist.

/// The maximum length of a name that is compared. No setting's name is longer, and the limit bounds the work.
const COMPARED_CHARS_MAX: usize = 64;

/// Returns the nearest of `names` to `typed`, if it is near enough to be a typing error.
#[must_use]
pub fn nearest<'a>(typed: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed: Vec<char> = typed.to_lowercase().replace('_', "-").chars().collect();
    if typed.len() > COMPARED_CHARS_MAX {
        return None;
    }
    let measured = names.map(|name| (distance(&typed, &name.chars().collect::<Vec<char>>()), name));
    let (distance, name) = measured.min()?;
    (distance <= 1 + name.len() / 5).then_some(name)
}

/// Returns the edit distance of `a` and `b`. An edit inserts, removes or changes a character, or swaps two neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let changed = last[j] + usize::from(a[i] != b[j]);
            let mut least = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                let swapped: &Vec<usize> = &before_last;
                least = least.min(swapped[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["listen", "clients-max", "clients-subs-max", "log-level", "app"];

    #[test]
    fn suggests_the_nearest_name() {
        for (typed, expected) in [
            ("listn", Some("listen")),
            ("lsiten", Some("listen")),
            ("clients_max", Some("clients-max")),
            ("CLIENTS-MAX", Some("clients-max")),
            ("client-max", Some("clients-max")),
            ("loglevel", Some("log-level")),
            ("apps", Some("app")),
            ("", None),
            ("verbose", None),
            ("port", None),
        ] {
            assert_eq!(nearest(typed, NAMES.into_iter()), expected, "{typed:?}");
        }
        assert_eq!(nearest(&"x".repeat(1000), NAMES.into_iter()), None);
    }

    #[test]
    fn counts_edits() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "", 2),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
        ] {
            let a: Vec<char> = a.chars().collect();
            let b: Vec<char> = b.chars().collect();
            assert_eq!(distance(&a, &b), expected, "{a:?} {b:?}");
        }
    }
}
