//! The bodies of requests to the back end, and what its answers mean.

use crate::app::{Answer, ClientInfo, Context, Json, SendCallback};
use crate::client::ClientId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
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
