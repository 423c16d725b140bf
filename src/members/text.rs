//! The texts about members that clients get (protocol.md, "Presence").

use super::MemberId;
use crate::identity::Identity;
use std::fmt::Write;

/// Appends the text of a member's id: its number to the base of 36, as a JSON string.
fn push_id(text: &mut String, id: MemberId) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let (mut digits, mut left) = (Vec::new(), id);
    while digits.is_empty() || left > 0 {
        digits.push(char::from(DIGITS[(left % 36) as usize]));
        left /= 36;
    }
    text.push('"');
    text.extend(digits.iter().rev());
    text.push('"');
}

/// Appends a member: `["k3x9","7",{"name":"Ann"}]`.
fn push_member(text: &mut String, id: MemberId, identity: Option<&Identity>) {
    text.push('[');
    push_id(text, id);
    match identity {
        Some(identity) => {
            let user = serde_json::Value::from(&*identity.user);
            let info = identity.info.as_deref().unwrap_or("null");
            write!(text, ",{user},{info}]").expect("a string can be written to");
        }
        None => text.push_str(",null,null]"),
    }
}

fn push_list<T>(
    text: &mut String,
    name: &str,
    items: impl Iterator<Item = T>,
    push: impl Fn(&mut String, T),
) {
    write!(text, ",\"{name}\":[").expect("a string can be written to");
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        push(text, item);
    }
    text.push(']');
}

/// Returns the text of a number of members that are not listed: `{"count":1200}`.
pub fn counted(count: usize) -> String {
    format!("{{\"count\":{count}}}")
}

/// Returns the text of a list: `{"count":1,"here":[["k3x9","7",null]]}`.
pub fn listed<'a>(count: usize, members: impl Iterator<Item = (MemberId, Option<&'a Identity>)>) -> String {
    let mut text = format!("{{\"count\":{count}");
    push_list(&mut text, "here", members, |text, (id, identity)| push_member(text, id, identity));
    text.push('}');
    text
}

/// Returns the text of changes: `{"count":1,"join":[["k3x9","7",null]],"leave":["k3x8"]}`. Without joins or leaves, the list of
/// them is left out.
pub fn changed<'a>(
    count: usize,
    joins: impl ExactSizeIterator<Item = (MemberId, Option<&'a Identity>)>,
    leaves: &[MemberId],
) -> String {
    let mut text = format!("{{\"count\":{count}");
    if joins.len() > 0 {
        push_list(&mut text, "join", joins, |text, (id, identity)| push_member(text, id, identity));
    }
    if !leaves.is_empty() {
        push_list(&mut text, "leave", leaves.iter(), |text, id| push_id(text, *id));
    }
    text.push('}');
    text
}

/// Returns the length of a member's text, apart from what must be escaped in it.
pub fn member_len(identity: Option<&Identity>) -> usize {
    /// An id, the signs around its parts, and `null` for those that are missing.
    const FRAME: usize = 24;
    FRAME + identity.map_or(0, |identity| identity.user.len() + identity.info.as_deref().map_or(0, str::len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let user = |user: &str, info: Option<&str>| Identity {
            user: user.into(),
            expires: None,
            claims: "{}".into(),
            on: [].into(),
            send: [].into(),
            info: info.map(Into::into),
        };
        let (ann, bob) = (user("a\"n", Some(r#"{"name":"Ann"}"#)), user("7", None));
        let members = || [(0, None), (35, Some(&ann)), (36, Some(&bob))].into_iter();
        assert_eq!(
            listed(3, members()),
            r#"{"count":3,"here":[["0",null,null],["z","a\"n",{"name":"Ann"}],["10","7",null]]}"#
        );
        assert_eq!(listed(0, [].into_iter()), r#"{"count":0,"here":[]}"#);
        assert_eq!(counted(1200), r#"{"count":1200}"#);
        assert_eq!(
            changed(2, [(36, Some(&bob))].into_iter(), &[35, u64::MAX]),
            r#"{"count":2,"join":[["10","7",null]],"leave":["z","3w5e11264sgsf"]}"#
        );
        assert_eq!(changed(1, [].into_iter(), &[1]), r#"{"count":1,"leave":["1"]}"#);
        assert!(member_len(Some(&ann)) >= r#"["k3x9","a\"n",{"name":"Ann"}]"#.len());
    }
}
