//! HTTP connections from their first byte to their last, at every split.

use super::super::http::{Asks, Named};
use super::*;

/// [`Asks`], owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Poll(Name, String),
    Stream(Name),
    Document(String, Option<String>),
}

/// [`Named`], owned: sid, whether it may be created, place, host.
pub type Name = (u128, bool, Option<u64>, String);

impl Asked {
    pub fn of(asks: &Asks<'_>) -> Asked {
        let name = |it: &Named<'_>| (u128::from_ne_bytes(it.sid.0), it.connect, it.seq, it.host.to_owned());
        match asks {
            Asks::Poll { session, body } => Asked::Poll(name(session), (*body).to_owned()),
            Asks::Stream { session } => Asked::Stream(name(session)),
            Asks::Document { path, if_none_match } => {
                Asked::Document((*path).to_owned(), if_none_match.map(str::to_owned))
            }
        }
    }
}

const SID: &str = "0123456789abcdef0123456789ABCDEF";

fn poll(number: u32, body: &str) -> Seen {
    let sid = u128::from_str_radix(SID, 16).expect("hex digits");
    Seen::Request(number, Asked::Poll((sid, false, None, "a".into()), body.into()))
}

fn post(body: &str) -> String {
    format!("POST /?sid={SID} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn polls_in_a_row() {
    let input = [post("/a:0=1\n"), post(""), post("€😀")].concat();
    assert_eq!(see(Options::default(), input.as_bytes()), [poll(0, "/a:0=1\n"), poll(1, ""), poll(2, "€😀")]);
}

#[test]
fn responses_go_in_the_order_of_requests() {
    let mut session = Session::new(Options::default());
    let mut seen = Vec::new();
    feed(&mut session, [post("1"), post("2"), post("3")].concat().as_bytes(), &mut seen);
    let whole = |body| Response::Whole { status: 200, headers: "", body };
    assert_eq!(session.respond(1, whole(b"b")), Due::default());
    assert_eq!(session.unanswered().map(|(number, _)| number).collect::<Vec<_>>(), [0, 2]);
    let due = session.respond(0, whole(b"a"));
    let text = String::from_utf8(due.bytes).expect("these are texts");
    let bodies: Vec<_> = text.split("HTTP/1.1 200 OK\r\n").skip(1).map(|it| &it[it.len() - 1..]).collect();
    assert_eq!(bodies, ["a", "b"]);
    assert_eq!(due.then, Then::GoesOn);
    assert!(!session.respond(2, whole(b"c")).bytes.is_empty());
    assert!(session.is_idle());
}
