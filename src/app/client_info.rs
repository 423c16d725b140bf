//! What the server knows of a client: who it is, and what the request says that has opened its connection.

use crate::client::ClientId;
use crate::identity::Identity;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;
use std::net::IpAddr;

/// What the server knows of a client of this shard. [`Context::client`](super::Context::client) returns it.
///
/// ```
/// use quickio::app::{Answer, Context, Event};
///
/// fn whoami(cx: &mut Context<'_>, event: Event<'_>) -> Answer {
///     match cx.client(event.client).and_then(|client| client.user()) {
///         Some(user) => Answer::data(quickio::app::Json::string(user)),
///         None => Answer::error(401, "authenticate first"),
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo<'a> {
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) address: Option<IpAddr>,
    /// The values of headers, each with the place of its name in `names`.
    pub(crate) headers: &'a [(u8, Box<str>)],
    /// The setting `app-headers`.
    pub(crate) names: &'a [Box<str>],
    pub(crate) certificate: Option<&'a str>,
}

/// The clients of a shard, for the functions of applications.
pub(crate) trait ClientDirectory {
    /// Returns what is known of a client, or `None` if it is not connected to this shard.
    fn find(&self, client: ClientId) -> Option<ClientInfo<'_>>;
}

impl<'a> ClientInfo<'a> {
    /// Returns the user that the client has authenticated as (the claim `sub` of its token), or `None` if it has not.
    #[must_use]
    pub fn user(&self) -> Option<&'a str> {
        self.identity.map(|identity| &*identity.user)
    }

    /// Returns the claims of the client's token, as a JSON object.
    #[must_use]
    pub fn claims(&self) -> Option<&'a str> {
        self.identity.map(|identity| &*identity.claims)
    }

    /// Returns the IP address of the client. Behind a proxy of `trusted-proxies` or `proxy-protocol`, it is the one that the
    /// proxy has told. `None` for a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns a header of the request that has opened the WebSocket or the HTTP session, if the setting `app-headers` names
    /// it. Several lines are joined. The name is compared without regard to case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let place = self.names.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        let (_, value) = self.headers.iter().find(|(of, _)| usize::from(*of) == place)?;
        Some(value)
    }

    /// Returns the origin of the page that has connected, as the browser has written it, if the setting `app-headers` names
    /// `origin`.
    #[must_use]
    pub fn origin(&self) -> Option<&'a str> {
        self.header("origin")
    }

    /// Returns all headers that were kept, with their names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let names = self.names;
        self.headers.iter().map(move |(place, value)| (&*names[usize::from(*place)], &**value))
    }

    /// Returns the subject of the client's TLS certificate, such as `CN=device-7,O=Example`, if the setting `tls-client-ca`
    /// asks for certificates and the client has one.
    #[must_use]
    pub fn certificate(&self) -> Option<&'a str> {
        self.certificate
    }

    /// Returns all of this as JSON: an object with the members `user`, `claims`, `address`, `headers` and `certificate`.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and a JSON object can be serialized")
    }
}

impl Serialize for ClientInfo<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct KeptHeaders<'a>(ClientInfo<'a>);

        impl Serialize for KeptHeaders<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.headers())
            }
        }

        let claims: Option<&RawValue> = self.claims().and_then(|claims| serde_json::from_str(claims).ok());
        let mut map = serializer.serialize_map(Some(5))?;
        map.serialize_entry("user", &self.user())?;
        map.serialize_entry("claims", &claims)?;
        map.serialize_entry("address", &self.address)?;
        map.serialize_entry("headers", &KeptHeaders(*self))?;
        map.serialize_entry("certificate", &self.certificate)?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_described_as_json() {
        let claims = r#"{"sub":"7", "role":["x"]}"#.into();
        let identity =
            Identity { user: "7".into(), expires: None, claims, on: [].into(), send: [].into(), info: None };
        let names: [Box<str>; 2] = ["cookie".into(), "origin".into()];
        let headers: [(u8, Box<str>); 1] = [(1, "https://a.example".into())];
        let known = ClientInfo {
            identity: Some(&identity),
            address: Some([127, 0, 0, 1].into()),
            headers: &headers,
            names: &names,
            certificate: Some("CN=\"x\""),
        };
        let expected = concat!(
            r#"{"user":"7","claims":{"sub":"7", "role":["x"]},"address":"127.0.0.1","#,
            r#""headers":{"origin":"https://a.example"},"certificate":"CN=\"x\""}"#
        );
        assert_eq!(known.to_json(), expected);
        assert_eq!(
            (known.origin(), known.header("Cookie"), known.header("ORIGIN")),
            (Some("https://a.example"), None, Some("https://a.example"))
        );
        let unknown =
            ClientInfo { identity: None, address: None, headers: &[], names: &names, certificate: None };
        let expected = r#"{"user":null,"claims":null,"address":null,"headers":{},"certificate":null}"#;
        assert_eq!(unknown.to_json(), expected);
    }
}
