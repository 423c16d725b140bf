//! The answers of all shards and supervisors to the questions of operators, for the admin endpoint.
//!
//! An answer about all clients, paths or workers is given again for a moment: many open pages cost as much as one.

use super::mailboxes::{ANSWER_WAIT, Mailboxes};
use crate::app::worker_app::WorkerApplication;
use crate::inspect::{
    BusiestPaths, BusyPath, ClientDetails, ClientId, Inspection, SlowestClients, WorkerStatus,
};
use crate::limits::INSPECTION_REUSED_FOR;
use crate::qev::control::timeout;
use crate::shard::ControlMessage;
use futures_channel::{mpsc, oneshot};
use futures_lite::StreamExt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// A question, and where its answer goes. An answer is `None` if a shard did not answer in time.
pub(super) enum InspectionRequest {
    Slowest(oneshot::Sender<Option<Rc<SlowestClients>>>),
    Client(ClientId, oneshot::Sender<Option<Option<Box<ClientDetails>>>>),
    Busiest(oneshot::Sender<Option<Rc<BusiestPaths>>>),
    Workers(oneshot::Sender<Option<Rc<[WorkerStatus]>>>),
}

/// The last answers.
#[derive(Default)]
pub(super) struct Inspections {
    slowest: Recent<SlowestClients>,
    busiest: Recent<BusiestPaths>,
    workers: Recent<[WorkerStatus]>,
}

impl Inspections {
    /// Answers a question. The receiver of the answer may have given up.
    pub async fn answer(
        &mut self,
        mailboxes: &Mailboxes,
        apps: &[Arc<WorkerApplication>],
        request: InspectionRequest,
    ) {
        match request {
            InspectionRequest::Slowest(reply) => {
                if self.slowest.get().is_none() {
                    let slowest = timeout(ANSWER_WAIT, slowest(mailboxes)).await.flatten();
                    self.slowest.set(slowest.map(Rc::new));
                }
                drop(reply.send(self.slowest.get()));
            }
            InspectionRequest::Client(id, reply) => {
                drop(reply.send(timeout(ANSWER_WAIT, client(mailboxes, id)).await.flatten()));
            }
            InspectionRequest::Busiest(reply) => {
                if self.busiest.get().is_none() {
                    let busiest = timeout(ANSWER_WAIT, busiest(mailboxes)).await.flatten();
                    self.busiest.set(busiest.map(Rc::new));
                }
                drop(reply.send(self.busiest.get()));
            }
            InspectionRequest::Workers(reply) => {
                if self.workers.get().is_none() {
                    let workers = timeout(ANSWER_WAIT, workers(apps)).await.flatten();
                    self.workers.set(workers.map(Rc::from));
                }
                drop(reply.send(self.workers.get()));
            }
        }
    }
}

/// An answer, with the time at which it was given.
struct Recent<T: ?Sized>(Option<(Instant, Rc<T>)>);

impl<T: ?Sized> Default for Recent<T> {
    fn default() -> Recent<T> {
        Recent(None)
    }
}

impl<T: ?Sized> Recent<T> {
    /// Returns the answer, unless it is too old.
    fn get(&self) -> Option<Rc<T>> {
        let recent = self.0.as_ref().filter(|(at, _)| at.elapsed() < INSPECTION_REUSED_FOR);
        recent.map(|(_, answer)| Rc::clone(answer))
    }

    fn set(&mut self, answer: Option<Rc<T>>) {
        self.0 = answer.map(|answer| (Instant::now(), answer));
    }
}

/// Returns the clients that have most output waiting. Each shard is asked for one piece of its clients at a time.
async fn slowest(mailboxes: &Mailboxes) -> Option<SlowestClients> {
    let mut slowest = SlowestClients::default();
    let mut from: Vec<(u16, u32)> = (0..mailboxes.len()).map(|shard| (shard as u16, 0)).collect();
    while !from.is_empty() {
        let (reply, mut replies) = mpsc::channel(0);
        for (shard, from) in &from {
            let question = Inspection::Slowest { from: *from, reply: reply.clone() };
            mailboxes.send_to(usize::from(*shard), ControlMessage::Inspect(question)).ok()?;
        }
        drop(reply);
        let asked = from.len();
        let mut answered = 0;
        from.clear();
        while let Some((shard, piece)) = replies.next().await {
            answered += 1;
            from.extend(piece.next.map(|next| (shard, next)));
            slowest.merge(piece);
        }
        if answered < asked {
            return None;
        }
    }
    Some(slowest)
}

/// Returns what is known of a client, or `None` if there is no such client. The outer `None` means no answer.
async fn client(mailboxes: &Mailboxes, id: ClientId) -> Option<Option<Box<ClientDetails>>> {
    if usize::from(id.shard) >= mailboxes.len() {
        return Some(None);
    }
    let (reply, mut replies) = mpsc::channel(0);
    let question = Inspection::Client { id, reply };
    mailboxes.send_to(usize::from(id.shard), ControlMessage::Inspect(question)).ok()?;
    replies.next().await
}

/// Returns the busiest paths, with their numbers of subscribers.
async fn busiest(mailboxes: &Mailboxes) -> Option<BusiestPaths> {
    let busy: Vec<Vec<BusyPath>> = ask_all(mailboxes, |reply| Inspection::Busiest { reply }).await?;
    let mut busiest = BusiestPaths::merge(busy);
    let paths = busiest.paths().cloned().collect();
    let question = |reply| Inspection::Subscribers { paths: Arc::clone(&paths), reply };
    for of_shard in ask_all(mailboxes, question).await? {
        busiest.add_subscribers(&of_shard);
    }
    Some(busiest)
}

/// Asks every shard, and returns the answers in no particular order.
async fn ask_all<T>(
    mailboxes: &Mailboxes,
    question: impl Fn(mpsc::Sender<T>) -> Inspection,
) -> Option<Vec<T>> {
    let (reply, replies) = mpsc::channel(0);
    mailboxes.send_to_all(|| ControlMessage::Inspect(question(reply.clone())));
    drop(reply);
    let answers: Vec<T> = replies.collect().await;
    (answers.len() == mailboxes.len()).then_some(answers)
}

/// Returns the workers of all applications.
async fn workers(apps: &[Arc<WorkerApplication>]) -> Option<Vec<WorkerStatus>> {
    let mut workers = Vec::new();
    let pending: Vec<_> = apps.iter().map(|app| app.status()).collect();
    for of_app in pending {
        workers.extend(of_app.await.ok()?);
    }
    Some(workers)
}
