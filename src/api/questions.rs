//! Questions to the shards, and the answers that are made of their replies.

use super::commands;
use super::messages::{
    ApiAction, ApiMessage, ApiQuestion, ApiReply, ApiTarget, ApiTotals, ApiWork, ShardsBusy,
};
use super::query::{HistoryQuery, Page};
use super::refusal::ApiRefusal;
use super::reply::ApiAnswer;
use super::{ApiEndpoint, Shards};
use crate::event::path::Path;
use crate::limits::{API_LIST_WAIT, API_REPLY_WAIT};
use crate::qev::control::timeout;
use futures_channel::mpsc;
use futures_lite::StreamExt;
use hyper::StatusCode;
use serde::Serialize;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The answer to a command.
#[derive(Serialize)]
struct DoneAnswer {
    clients: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<usize>,
}

/// The answer to `GET /paths`.
#[derive(Serialize)]
struct PathsAnswer {
    paths: Vec<PathRow>,
    next: Option<String>,
}

#[derive(Serialize)]
struct PathRow {
    path: String,
    subscribers: usize,
}

/// The answer to `GET /clients`.
#[derive(Serialize)]
struct ClientsAnswer {
    clients: Vec<ClientRow>,
    next: Option<String>,
}

#[derive(Serialize)]
struct ClientRow {
    client: String,
    user: Option<Box<str>>,
    address: String,
    transport: &'static str,
    subscriptions: usize,
}

/// The answer to `GET /info`.
#[derive(Serialize)]
struct InfoAnswer {
    version: &'static str,
    uptime: u64,
    shards: usize,
    clients: usize,
    identified: usize,
    subscriptions: usize,
}

impl<S: Shards> ApiEndpoint<S> {
    /// Does something to the connections of a target.
    pub(super) async fn act(&self, target: ApiTarget, action: ApiAction) -> Result<ApiAnswer, ApiRefusal> {
        let count = self.shards.count();
        let shards = match &target {
            // A client of a shard that does not exist is not connected.
            ApiTarget::Client(client) if usize::from(client.shard) >= count => 0..0,
            ApiTarget::Client(client) => usize::from(client.shard)..usize::from(client.shard) + 1,
            ApiTarget::User(_) => 0..count,
        };
        let subscribes = matches!(action, ApiAction::On { .. });
        let (mut all, mut all_refused) = (0, 0);
        for reply in self.ask(shards, &ApiWork::Act { target, action }).await? {
            if let ApiReply::Done { clients, refused } = reply {
                all += clients;
                all_refused += refused;
            }
        }
        Ok(ApiAnswer::ok(&DoneAnswer { clients: all, refused: subscribes.then_some(all_refused) }))
    }

    /// Lists paths with their subscribers.
    pub(super) async fn list_paths(&self, prefix: &str, page: Page) -> Result<ApiAnswer, ApiRefusal> {
        let prefix: Arc<str> = prefix.into();
        let (began, mut at, mut rows) = (Instant::now(), page.from, Vec::new());
        while at.shard < self.shards.count() && rows.len() < page.limit && began.elapsed() < API_LIST_WAIT {
            let max = page.limit - rows.len();
            let work = ApiWork::Paths { prefix: Arc::clone(&prefix), from: at.place, max };
            let reply = self.ask(at.shard..at.shard + 1, &work).await?.pop();
            let Some(ApiReply::Paths { paths, next }) = reply else { break };
            let counts =
                self.count_elsewhere(at.shard, paths.iter().map(|row| row.path.clone()).collect()).await?;
            rows.extend(paths.into_iter().zip(counts).map(|(row, elsewhere)| PathRow {
                path: row.path.to_string(),
                subscribers: row.subscribers + elsewhere,
            }));
            at = at.behind(next);
        }
        Ok(ApiAnswer::ok(&PathsAnswer { paths: rows, next: at.text(self.shards.count()) }))
    }

    /// Returns the numbers of subscribers of paths on the shards behind this one. Shards before it have none.
    async fn count_elsewhere(&self, shard: usize, paths: Vec<Path>) -> Result<Vec<usize>, ApiRefusal> {
        let mut counts = vec![0; paths.len()];
        let others = shard + 1..self.shards.count();
        if paths.is_empty() || others.is_empty() {
            return Ok(counts);
        }
        for reply in self.ask(others, &ApiWork::Counts(paths.into())).await? {
            let ApiReply::Counts(theirs) = reply else { continue };
            counts.iter_mut().zip(theirs).for_each(|(count, more)| *count += more);
        }
        Ok(counts)
    }

    /// Lists clients, all of them or those of a user.
    pub(super) async fn list_clients(&self, user: Option<&str>, page: Page) -> Result<ApiAnswer, ApiRefusal> {
        let user: Option<Arc<str>> = user.map(Into::into);
        let (began, mut at, mut rows) = (Instant::now(), page.from, Vec::new());
        while at.shard < self.shards.count() && rows.len() < page.limit && began.elapsed() < API_LIST_WAIT {
            let max = page.limit - rows.len();
            let work = ApiWork::Clients { user: user.clone(), from: at.place, max };
            let reply = self.ask(at.shard..at.shard + 1, &work).await?.pop();
            let Some(ApiReply::Clients { clients, next }) = reply else { break };
            rows.extend(clients.into_iter().map(|entry| ClientRow {
                client: entry.client.to_string(),
                user: entry.user,
                address: entry.address,
                transport: entry.transport,
                subscriptions: entry.subscriptions,
            }));
            at = at.behind(next);
        }
        Ok(ApiAnswer::ok(&ClientsAnswer { clients: rows, next: at.text(self.shards.count()) }))
    }

    /// Reads events that are kept of a path.
    pub(super) async fn history(&self, query: HistoryQuery<'_>) -> Result<ApiAnswer, ApiRefusal> {
        let HistoryQuery { path, before, limit } = query;
        let path = commands::exact_path(&path)?;
        let shard = self.shards.of_path(path.as_str());
        let work = ApiWork::Events { path, before, limit };
        match self.ask(shard..shard + 1, &work).await?.pop() {
            Some(ApiReply::Events(Some(page))) => Ok(ApiAnswer::ok_json(page.to_json())),
            _ => {
                let error =
                    "no events of this path are kept: the first of [[rules]] that matches it has no history";
                Err(ApiRefusal::new(StatusCode::NOT_FOUND, error))
            }
        }
    }

    /// Describes the server.
    pub(super) async fn info(&self) -> Result<ApiAnswer, ApiRefusal> {
        let mut all = ApiTotals::default();
        for reply in self.ask(0..self.shards.count(), &ApiWork::Totals).await? {
            if let ApiReply::Totals(totals) = reply {
                all.clients += totals.clients;
                all.identified += totals.identified;
                all.subscriptions += totals.subscriptions;
            }
        }
        Ok(ApiAnswer::ok(&InfoAnswer {
            version: env!("CARGO_PKG_VERSION"),
            uptime: self.now().as_secs(),
            shards: self.shards.count(),
            clients: all.clients,
            identified: all.identified,
            subscriptions: all.subscriptions,
        }))
    }

    /// Asks shards, and returns their replies.
    async fn ask(&self, shards: Range<usize>, work: &ApiWork) -> Result<Vec<ApiReply>, ApiRefusal> {
        let expected = shards.len();
        // Each clone of the sender has a slot of its own in the channel.
        let (reply, mut replies) = mpsc::channel(0);
        let message = |shard| {
            let question = ApiQuestion { work: work.clone(), reply: reply.clone() };
            (shard, ApiMessage::Ask(Box::new(question)))
        };
        let posted = self.shards.post_all(shards.map(message).collect());
        posted.map_err(|ShardsBusy| {
            ApiRefusal::busy("a shard has no room for the request now; nothing was done; try again")
        })?;
        drop(reply);
        let mut received: Vec<(u16, ApiReply)> = Vec::new();
        let receive = async {
            while let Some(reply) = replies.next().await {
                received.push(reply);
            }
        };
        timeout(API_REPLY_WAIT, receive).await;
        if received.len() < expected {
            let error = "a shard did not reply in time; it may still carry out the request";
            return Err(ApiRefusal::new(StatusCode::GATEWAY_TIMEOUT, error));
        }
        received.sort_by_key(|(shard, _)| *shard);
        Ok(received.into_iter().map(|(_, reply)| reply).collect())
    }
}
