//! Parts of a client: its identity, its subscriptions and its open server callbacks.

mod address;
pub mod callbacks;
pub mod subscriptions;

pub use address::CountedAddress;

use std::fmt;
use std::str::FromStr;

/// The identity of a client in the server: its shard, its slot on this shard, and the slot's generation.
///
/// A slot is used again when its client has disconnected. The generation distinguishes the two clients: a late answer
/// to the first one is not delivered to the second.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    pub shard: u16,
    pub slot: u32,
    pub generation: u32,
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.shard, self.slot, self.generation)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The error of a text that is not the identity of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not the id of a client, such as 0.17.3")]
pub struct NotClientId;

impl FromStr for ClientId {
    type Err = NotClientId;

    /// Reads the text that `Display` writes.
    fn from_str(text: &str) -> Result<ClientId, NotClientId> {
        let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
        let mut parts = text.split('.').map(|part| Some(part).filter(is_number).ok_or(NotClientId));
        let mut next = || parts.next().unwrap_or(Err(NotClientId));
        let (shard, slot, generation) = (next()?, next()?, next()?);
        let client = ClientId {
            shard: shard.parse().map_err(|_| NotClientId)?,
            slot: slot.parse().map_err(|_| NotClientId)?,
            generation: generation.parse().map_err(|_| NotClientId)?,
        };
        if parts.next().is_some() { Err(NotClientId) } else { Ok(client) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_they_are_written() {
        for client in [
            ClientId { shard: 0, slot: 17, generation: 3 },
            ClientId { shard: u16::MAX, slot: u32::MAX, generation: u32::MAX },
        ] {
            assert_eq!(client.to_string().parse(), Ok(client));
        }
        for text in
            ["", "1", "1.2", "1.2.3.4", "1.2.3.", "a.2.3", "+1.2.3", "-1.2.3", "65536.2.3", "1..3", " 1.2.3"]
        {
            assert_eq!(text.parse::<ClientId>(), Err(NotClientId), "{text:?}");
        }
    }
}
