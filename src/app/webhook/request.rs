//! The bodies of requests to the back end, and what its answers mean.

use super::shares::Requester;
use crate::app::{Answer, ClientInfo, Context, Json, SendCallback, UnknownClient};
use crate::client::ClientId;
use crate::identity::Identity;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Returns the data of an event if it is JSON, or `null` if there is none.
pub(super) fn checked(data: &str) -> Option<&str> {
    if data.is_empty() { Some("null") } else { crate::app::is_json(data).then_some(data) }
}

/// What the back end is told about a client.
pub(super) struct About {
    client: ClientId,
    user: Option<String>,
    address: Option<IpAddr>,
}

impl About {
    pub fn of(cx: &Context<'_>, client: ClientId) -> About {
        let info = cx.client(client);
        let user = info.as_ref().and_then(ClientInfo::user).map(str::to_owned);
        About { client, user, address: info.as_ref().and_then(ClientInfo::address) }
    }

    /// Returns the owner of the requests about the client.
    pub fn requester(&self) -> Requester {
        Requester::new(self.address, self.client)
    }
}

/// The body of a request about one client.
#[derive(Serialize)]
struct EventBody<'a> {
    event: &'a str,
    client: String,
    user: Option<&'a str>,
    address: Option<IpAddr>,
    path: String,
    data: &'a RawValue,
}

/// Returns the body that asks about a subscription. `data` is JSON, which the server has checked.
pub(super) fn on(about: &About, path: &str, extra: &str, data: &str) -> Vec<u8> {
    event("on", about, path, extra, data)
}

/// Returns the body for an event. `data` is JSON.
pub(super) fn send(about: &About, path: &str, extra: &str, data: &str) -> Vec<u8> {
    event("send", about, path, extra, data)
}

fn event(event: &str, about: &About, path: &str, extra: &str, data: &str) -> Vec<u8> {
    let body = EventBody {
        event,
        client: about.client.to_string(),
        user: about.user.as_deref(),
        address: about.address,
        path: format!("{path}{extra}"),
        data: serde_json::from_str(data).expect("the data was checked"),
    };
    serde_json::to_vec(&body).expect("a body has only texts and JSON")
}

/// Returns the body for clients that have disconnected.
pub(super) fn gone(clients: &[ClientId]) -> Vec<u8> {
    let clients: Vec<String> = clients.iter().map(|client| format!("\"{client}\"")).collect();
    format!(r#"{{"event":"gone","clients":[{}]}}"#, clients.join(",")).into_bytes()
}

/// The body of a request about a client that wants to be authenticated.
#[derive(Serialize)]
struct ConnectBody<'a> {
    event: &'a str,
    client: String,
    token: Option<&'a str>,
    address: Option<IpAddr>,
    transport: &'a str,
    origin: Option<&'a str>,
    headers: BTreeMap<&'a str, &'a str>,
}

/// Returns the body that asks who a client is.
pub(super) fn connect(client: &UnknownClient) -> Vec<u8> {
    let headers: BTreeMap<&str, &str> =
        client.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let body = ConnectBody {
        event: "connect",
        client: client.client.to_string(),
        token: client.token.as_deref(),
        address: client.address,
        transport: client.transport,
        origin: headers.get("origin").copied(),
        headers,
    };
    serde_json::to_vec(&body).expect("a body has only texts")
}

/// The meaning of an answer to [`connect`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Connected {
    Accepted(Identity),
    /// The client may connect, but is nobody.
    Nobody,
    /// The token has expired.
    Expired,
    /// The client is refused, for this reason.
    Refused(String),
}

/// The answer of a back end that knows a client.
#[derive(Deserialize)]
struct IdentityBody<'a> {
    /// A text, a whole number, or null. It must be there: an answer without it was meant for something else.
    #[serde(borrow)]
    user: &'a RawValue,
    #[serde(default)]
    expires: Option<u64>,
    #[serde(borrow, default)]
    claims: Option<&'a RawValue>,
    #[serde(borrow, default)]
    qio: Option<&'a RawValue>,
}

/// Returns the meaning of an answer to [`connect`].
///
/// # Errors
///
/// The answer has none. The reason is for the log.
pub(super) fn connected(status: u16, body: &[u8]) -> Result<Connected, String> {
    match status {
        204 => Ok(Connected::Nobody),
        200 => {
            if !body.trim_ascii_start().starts_with(b"{") {
                return Err("its body is not a JSON object".to_owned());
            }
            let body: IdentityBody<'_> = serde_json::from_slice(body)
                .map_err(|error| format!("its body is not understood: {error}"))?;
            let user = match serde_json::from_str(body.user.get()) {
                Ok(serde_json::Value::Null) => return Ok(Connected::Nobody),
                Ok(serde_json::Value::String(user)) => user,
                Ok(serde_json::Value::Number(user)) if !user.is_f64() => user.to_string(),
                _ => return Err("its user is not a text".to_owned()),
            };
            let identity = Identity::vouched(
                &user,
                body.expires,
                body.claims.map(RawValue::get),
                body.qio.map(RawValue::get),
            );
            identity.map(Connected::Accepted).map_err(|_| {
                "one of user, expires, claims and qio does not have the form that docs/webhooks.md describes, or is too long"
                    .to_owned()
            })
        }
        401 | 403 => {
            let refusal: Option<RefusalBody> = serde_json::from_slice(body).ok();
            let reason = refusal.and_then(|refusal| refusal.error).unwrap_or_default();
            Ok(if reason == "token expired" { Connected::Expired } else { Connected::Refused(reason) })
        }
        status => Err(format!("its status is {status}; there are 200, 204, 401 and 403")),
    }
}

/// The answer of a back end to an event that it refuses.
#[derive(Deserialize)]
struct RefusalBody {
    error: Option<String>,
}

/// Returns the answer for the client: the body for 200, nothing for other statuses of success, and otherwise an error with
/// the status as its code. `None` if the body is not JSON.
pub(super) fn answer(status: u16, body: &[u8]) -> Option<Answer<SendCallback>> {
    match status {
        200 if body.trim_ascii().is_empty() => Some(Answer::ok()),
        200 => {
            let data: &RawValue = serde_json::from_slice(body).ok()?;
            Some(Answer::data(Json::trusted(data.get())))
        }
        201..=299 => Some(Answer::ok()),
        400..=499 => {
            let refusal: Option<RefusalBody> = serde_json::from_slice(body).ok();
            let message = refusal.and_then(|refusal| refusal.error).unwrap_or_else(|| "refused".to_owned());
            Some(Answer::error(status, message))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::AnswerState;

    #[test]
    fn bodies_are_json() {
        let client = ClientId { shard: 1, slot: 2, generation: 3 };
        let text = |body: Vec<u8>| String::from_utf8(body).unwrap();
        let about = About { client, user: Some("a\"b".into()), address: Some([127, 0, 0, 1].into()) };
        let expected = r#"{"event":"on","client":"1.2.3","user":"a\"b","address":"127.0.0.1","path":"/chat/rust","data":{"x": 1}}"#;
        assert_eq!(text(on(&about, "/chat", "/rust", r#"{"x": 1}"#)), expected);
        let about = About { user: None, address: None, ..about };
        let expected =
            r#"{"event":"send","client":"1.2.3","user":null,"address":null,"path":"/a","data":null}"#;
        assert_eq!(text(send(&about, "/a", "", "null")), expected);
        assert_eq!(text(gone(&[client, client])), r#"{"event":"gone","clients":["1.2.3","1.2.3"]}"#);
        assert_eq!((checked(""), checked("[1]"), checked("1,\"x\":2")), (Some("null"), Some("[1]"), None));
    }

    #[test]
    fn clients_that_connect_are_described() {
        let client = UnknownClient {
            client: ClientId { shard: 1, slot: 2, generation: 3 },
            token: Some("a\"b".into()),
            address: Some([127, 0, 0, 1].into()),
            transport: "websocket",
            headers: vec![("origin".into(), "https://a".into()), ("cookie".into(), "s=1".into())],
        };
        let text = |client: &UnknownClient| String::from_utf8(connect(client)).unwrap();
        let expected = concat!(
            r#"{"event":"connect","client":"1.2.3","token":"a\"b","address":"127.0.0.1","transport":"websocket","#,
            r#""origin":"https://a","headers":{"cookie":"s=1","origin":"https://a"}}"#
        );
        assert_eq!(text(&client), expected);
        let client =
            UnknownClient { token: None, address: None, transport: "raw", headers: vec![], ..client };
        let expected = r#"{"event":"connect","client":"1.2.3","token":null,"address":null,"transport":"raw","origin":null,"headers":{}}"#;
        assert_eq!(text(&client), expected);
        assert!(!format!("{client:?}").contains("a\"b"), "tokens do not get into logs");
    }

    #[test]
    fn answers_say_who_a_client_is() {
        let of = |status, body: &str| connected(status, body.as_bytes());
        let user = |body: &str| match of(200, body) {
            Ok(Connected::Accepted(identity)) => identity,
            other => panic!("{other:?}"),
        };
        assert_eq!(user(r#"{"user":"7"}"#), Identity::vouched("7", None, None, None).unwrap());
        assert_eq!(&*user(r#"{"user":7,"expires":null,"claims":null,"qio":null,"other":1}"#).user, "7");
        let full = user(
            r#"{"user":"7","expires":1795957200,"claims":{"name":"Ada"},"qio":{"on":["/a/*"],"send":["/b"],"info":[1]}}"#,
        );
        assert_eq!((full.expires, &*full.claims), (Some(1_795_957_200), r#"{"name":"Ada"}"#));
        assert_eq!((full.on.len(), full.send.len(), full.info.as_deref()), (1, 1, Some("[1]")));
        let default = user(r#"{"user":"\u00e9","expires":5}"#);
        assert_eq!(
            default.claims.parse::<serde_json::Value>().unwrap(),
            serde_json::json!({"sub": "\u{e9}", "exp": 5})
        );
        assert_eq!(of(200, r#"{"user":null}"#), Ok(Connected::Nobody));
        assert_eq!(of(204, ""), Ok(Connected::Nobody));
        assert_eq!(of(401, r#"{"error":"token expired"}"#), Ok(Connected::Expired));
        assert_eq!(of(403, r#"{"error":"not you"}"#), Ok(Connected::Refused("not you".into())));
        assert_eq!(of(401, "<html>"), Ok(Connected::Refused(String::new())));
        let long = format!(r#"{{"user":"7","claims":{{"a":"{}"}}}}"#, "x".repeat(8192));
        for (status, body) in [
            (200, ""),
            (200, "{}"),
            (200, r#"["7"]"#),
            (200, r#"{"user":""}"#),
            (200, r#"{"user":1.5}"#),
            (200, r#"{"user":true}"#),
            (200, r#"{"user":"7","user":"8"}"#),
            (200, r#"{"user":"7","expires":"soon"}"#),
            (200, r#"{"user":"7","expires":-1}"#),
            (200, r#"{"user":"7","expires":18446744073709551615}"#),
            (200, r#"{"user":"7","claims":[]}"#),
            (200, r#"{"user":"7","qio":{"on":["no slash"]}}"#),
            (200, &long),
            (201, r#"{"user":"7"}"#),
            (302, ""),
            (404, ""),
            (429, ""),
        ] {
            assert!(of(status, body).is_err(), "{status} {body}");
        }
    }

    #[test]
    fn statuses_and_bodies_become_answers() {
        let of = |status, body: &str| match answer(status, body.as_bytes())?.0 {
            AnswerState::Ready { code, data, message, .. } => {
                Some((code, data.as_str().to_owned(), message.map(String::from)))
            }
            AnswerState::Deferred => None,
        };
        assert_eq!(of(200, "{\"a\": 1}"), Some((200, "{\"a\": 1}".into(), None)));
        assert_eq!(of(200, " "), Some((200, "null".into(), None)));
        assert_eq!(of(204, ""), Some((200, "null".into(), None)));
        assert_eq!(of(403, r#"{"error":"not you"}"#), Some((403, "null".into(), Some("not you".into()))));
        assert_eq!(of(404, "<html>"), Some((404, "null".into(), Some("refused".into()))));
        assert_eq!(of(200, "<html>"), None);
        assert_eq!(of(500, "{}"), None);
        assert_eq!(of(302, ""), None);
    }
}
