//! The questions of back ends: what is done to clients, lists of paths and clients, and events that are kept.

use super::api_queue::ActionInProgress;
use super::connection::Connection;
use super::state::State;
use crate::api::{ApiAction, ApiQuestion, ApiReply, ApiTarget, ApiTotals, ApiWork, ClientEntry, PathCount};
use crate::app::{Json, ReplyTo};
use crate::client::ClientId;
use crate::event::path::Path;
use crate::limits::API_PLACES_PER_QUESTION_MAX;
use crate::protocol::Framing;

impl State {
    /// Answers a question of a back end, or begins to do what it asks. Returns the number of events that it has read.
    pub fn answer_api(&mut self, question: ApiQuestion) -> usize {
        let ApiQuestion { work, mut reply } = question;
        let mut events = 0;
        let answer = match work {
            ApiWork::Act { target, action } => {
                let clients = self.targeted(&target).into_iter();
                let action = ActionInProgress { clients, action, done: 0, refused: 0, reply };
                self.api.put_action(action, false);
                return 0;
            }
            ApiWork::Paths { prefix, from, max } => self.list_paths(&prefix, from, max),
            ApiWork::Counts(paths) => ApiReply::Counts(self.count_subscribers(&paths)),
            ApiWork::Clients { user, from, max } => self.list_clients(user.as_deref(), from, max),
            ApiWork::Totals => ApiReply::Totals(ApiTotals {
                clients: self.connections.clients(),
                identified: self.identities.len(),
                subscriptions: self.pubsub.subscriptions(),
            }),
            ApiWork::Events { path, before, limit } => {
                let page = self.page_of_events(&path, before, limit);
                events = page.as_ref().map_or(0, |page| page.events.len());
                ApiReply::Events(page)
            }
        };
        // The API may have given up.
        drop(reply.try_send((self.mesh.shard(), answer)));
        events
    }

    fn targeted(&self, target: &ApiTarget) -> Vec<ClientId> {
        match target {
            ApiTarget::Client(client) => vec![*client],
            ApiTarget::User(user) => {
                let slots = self.identities.connections_of(user);
                slots.filter_map(|slot| self.connections.client_of(slot)).collect()
            }
        }
    }

    /// Does something to a client of this shard. Returns `false` if it is not permitted to subscribe.
    pub fn act(&mut self, client: ClientId, action: &ApiAction) -> bool {
        match action {
            ApiAction::Send { path, data } => self.send(0, client, path, data.clone(), None),
            ApiAction::Close { reason } => self.close_client_with(client, reason.as_ref()),
            ApiAction::On { path } => return self.subscribe_for(client, path),
            ApiAction::Off { path } => self.unsubscribe(silently(client), path),
        }
        true
    }

    /// Returns whether a client is connected to this shard.
    pub fn is_here(&self, client: ClientId) -> bool {
        client.shard == self.mesh.shard() && self.connections.connection_of(client).is_some()
    }

    /// Subscribes a client on its behalf. Returns `false` if an application or a limit does not permit it.
    fn subscribe_for(&mut self, client: ClientId, path: &Path) -> bool {
        self.subscribe(silently(client), path, &Json::NULL, None);
        self.pubsub.is_wanted(client.slot, path.as_ref())
    }

    /// Lists paths that have subscribers here and on no shard with a lower number.
    fn list_paths(&self, prefix: &str, from: u32, max: usize) -> ApiReply {
        let (from, shard) = (from as usize, self.mesh.shard());
        let mut next = from.saturating_add(API_PLACES_PER_QUESTION_MAX);
        let mut paths = Vec::new();
        for id in self.pubsub.ids_from(from, API_PLACES_PER_QUESTION_MAX) {
            let (path, subscribers) = (self.pubsub.path(id), self.pubsub.subscribers(id));
            let is_listed = subscribers > 0
                && path.as_str().starts_with(prefix)
                && !self.pubsub.remote(id).any(|other| other < shard);
            if !is_listed {
                continue;
            }
            if paths.len() == max {
                next = id.index();
                break;
            }
            paths.push(PathCount { path: path.clone(), subscribers });
        }
        ApiReply::Paths { paths, next: (next < self.pubsub.places()).then_some(next as u32) }
    }

    fn count_subscribers(&self, paths: &[Path]) -> Vec<usize> {
        let count = |path: &Path| self.pubsub.find(path.as_ref()).map_or(0, |id| self.pubsub.subscribers(id));
        paths.iter().map(count).collect()
    }

    /// Lists clients by the slots of their connections.
    fn list_clients(&self, user: Option<&str>, from: u32, max: usize) -> ApiReply {
        let slots = self.connections.slots() as u32;
        let to = from.saturating_add(API_PLACES_PER_QUESTION_MAX as u32).min(slots);
        let listed: Vec<u32> = match user {
            Some(user) => {
                let is_listed = |slot: &u32| *slot >= from && self.connections.client_of(*slot).is_some();
                let mut listed: Vec<u32> = self.identities.connections_of(user).filter(is_listed).collect();
                // Of a user with very many connections, only those of this page are put in order.
                if listed.len() > max + 1 {
                    listed.select_nth_unstable(max);
                    listed.truncate(max + 1);
                }
                listed.sort_unstable();
                listed
            }
            None => (from..to).filter(|slot| self.connections.get(*slot).is_some()).collect(),
        };
        let mut next = user.is_none().then_some(to).filter(|to| *to < slots);
        let mut clients = Vec::new();
        for slot in listed {
            let Some(client) = self.connections.client_of(slot) else { continue };
            if clients.len() == max {
                next = Some(slot);
                break;
            }
            clients.push(self.client_entry(client, slot, self.connections.live(slot)));
        }
        ApiReply::Clients { clients, next }
    }

    fn client_entry(&self, client: ClientId, slot: u32, connection: &Connection) -> ClientEntry {
        ClientEntry {
            client,
            user: self.identities.get(slot).map(|identity| identity.user.clone()),
            address: connection.peer.to_string(),
            transport: transport_name(connection.framing),
            subscriptions: self.pubsub.held(client.slot),
        }
    }
}

/// Returns a destination for answers that nobody waits for.
fn silently(client: ClientId) -> ReplyTo {
    ReplyTo { client, callback: 0 }
}

fn transport_name(framing: Framing) -> &'static str {
    match framing {
        Framing::Raw => "raw",
        Framing::WebSocket | Framing::Deflate(_) => "websocket",
        Framing::LongPolling => "polling",
        Framing::EventStream => "stream",
    }
}
