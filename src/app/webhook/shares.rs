//! The shares of addresses of the requests that are under way: one address cannot use them all.

use crate::app::shares::{ShareRefusal, Shares};
use crate::client::{ClientId, CountedAddress};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The owner of requests: an address, or a client of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Requester {
    Address(CountedAddress),
    Client(ClientId),
}

impl Requester {
    pub fn new(address: Option<IpAddr>, client: ClientId) -> Requester {
        address.map_or(Requester::Client(client), |address| Requester::Address(CountedAddress::of(address)))
    }
}

/// The requests that are under way, and the part of them that each requester has. Shards use it together, for moments.
#[derive(Clone)]
pub(super) struct RequestShares(Arc<Mutex<Shares<Requester>>>);

impl RequestShares {
    pub fn new(max: usize) -> RequestShares {
        RequestShares(Arc::new(Mutex::new(Shares::new(max, 0))))
    }

    /// Returns a place for a request.
    ///
    /// # Errors
    ///
    /// All are taken, or the requester has its share.
    pub fn acquire(&self, of: Requester) -> Result<RequestShare, ShareRefusal> {
        let mut shares = self.lock();
        shares.admit(of)?;
        shares.add(of, 1);
        Ok(RequestShare { of, shares: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Shares<Requester>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a request. Dropping it gives the place back.
pub(super) struct RequestShare {
    of: Requester,
    shares: RequestShares,
}

impl Drop for RequestShare {
    fn drop(&mut self) {
        self.shares.lock().remove(self.of, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_most_places_to_others() {
        let shares = RequestShares::new(256);
        let client = |slot| ClientId { shard: 0, slot, generation: 1 };
        let fill = |of: &dyn Fn(u32) -> Requester| {
            let taken = (0..300).map_while(|slot| shares.acquire(of(slot)).ok());
            taken.collect::<Vec<_>>()
        };
        let network = |slot: u32| {
            let address = format!("2001:db8::{slot:x}").parse().unwrap();
            Requester::new(Some(address), client(slot))
        };
        let first = fill(&network);
        assert_eq!(first.len(), 51, "all clients of a network share, whatever their addresses in it");
        assert_eq!(shares.acquire(network(0)).err(), Some(ShareRefusal::Share));
        let other = Requester::new(Some([127, 0, 0, 1].into()), client(0));
        assert_eq!(fill(&|_| other).len(), 41);
        let alone = fill(&|slot| Requester::new(None, client(slot)));
        assert_eq!(alone.len(), 205, "clients without an address have shares of their own");
        drop(first);
        assert!(shares.acquire(network(0)).is_ok());
    }
}
