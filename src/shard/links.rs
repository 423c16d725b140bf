//! Links to workers: their sockets, which lie in the shard's ring like those of clients. What crosses them is
//! `app::worker`'s business; here bytes are carried.

use super::flush::{Kernel, Order};
use super::state::State;
use crate::app::worker::{Berth, Link, News, Team};
use crate::qev::buffers::Frame;
use crate::qev::ring::{Descriptor, Errno, Sending, Token};
use std::rc::Rc;

#[cfg(test)]
mod tests;

/// Tokens from here on are those of links; those below are connections'.
const FIRST_TOKEN: Token = 1 << 31;

/// Whether a completion is a link's.
pub(super) fn is_link(token: Token) -> bool {
    token >= FIRST_TOKEN
}

/// The links of a shard.
pub(super) struct Links {
    links: Vec<Option<Docked>>,
    /// Places of the ring's table that no link has.
    free: Vec<u32>,
}

/// A link, and what the kernel is at with its socket.
struct Docked {
    link: Rc<Link>,
    team: Rc<Team>,
    app: u32,
    place: u32,
    receiving: bool,
    sending: bool,
    /// The worker is being told that no more will come, or was.
    shutting_down: bool,
    is_shut_down: bool,
}

impl Links {
    /// So many places are reserved in the ring.
    pub fn new(places: u32) -> Links {
        Links { links: Vec::new(), free: (0..places).rev().collect() }
    }

    fn get(&mut self, token: Token) -> Option<&mut Docked> {
        self.links.get_mut((token - FIRST_TOKEN) as usize)?.as_mut()
    }

    fn insert(&mut self, docked: Docked) -> Token {
        let free = self.links.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        self.links[index] = Some(docked);
        FIRST_TOKEN + index as Token
    }

    /// All clients have gone: nothing more will be sent to any worker.
    pub fn abandon_all(&self) {
        self.links.iter().flatten().for_each(|docked| docked.link.abandon());
    }

    /// Whether all workers have been told that no more will come.
    pub fn are_shut_down(&self) -> bool {
        self.links.iter().flatten().all(|docked| docked.is_shut_down || !docked.receiving)
    }
}

impl State {
    /// The supervisor of an application's workers has news.
    pub fn take_news(&mut self, news: News) {
        match news {
            News::Events { app, manifest } => {
                if let Err(error) = self.apps.register_again(app, &manifest) {
                    tracing::error!(shard = self.id, %error, "events of a new worker are left out: the old ones stay");
                }
            }
            News::Joined(berth) => self.dock(berth),
        }
    }

    fn dock(&mut self, berth: Berth) {
        let Berth { app, instance, worker, manifest, socket } = berth;
        let (Some(team), Some(place)) = (self.apps.team(app), self.links.free.pop()) else {
            // The worker sees its link end, and so do those who look after it.
            return tracing::error!(shard = self.id, worker, "there is no place for a worker's link");
        };
        let joined = self.apps.runner().run(app, |cx| team.join(cx, instance, worker, &manifest));
        self.apply_commands(app);
        let Ok(Some(link)) = joined else { return self.links.free.push(place) };
        let token = self.links.insert(Docked {
            link,
            team,
            app,
            place,
            receiving: true,
            sending: false,
            shutting_down: false,
            is_shut_down: false,
        });
        self.orders.push(Order::Adopt(place, socket));
        self.orders.push(Order::Receive(Descriptor::at(place), token));
    }

    /// A worker says something. `ended`: the kernel has ended the receive, which must be begun again.
    pub fn link_received(&mut self, token: Token, data: &[u8], ended: bool) {
        let Some(docked) = self.links.get(token) else { return };
        let (link, app) = (Rc::clone(&docked.link), docked.app);
        if ended {
            self.orders.push(Order::Receive(Descriptor::at(docked.place), token));
        }
        // Where it panics the log says so, and the worker goes on.
        let _ = self.apps.runner().run(app, |cx| link.received(cx, data));
        self.apply_commands(app);
    }

    /// A worker has ended, or its end of the link.
    pub fn link_receive_ended(&mut self, token: Token, result: Result<(), Errno>) {
        let Some(docked) = self.links.get(token) else { return };
        if result.is_err_and(Errno::is_no_buffers) {
            let again = Order::Receive(Descriptor::at(docked.place), token);
            return self.orders.push(again);
        }
        docked.receiving = false;
        let cancel = docked.sending.then_some(Order::Cancel { token, sending: true });
        let (link, team, app) = (Rc::clone(&docked.link), Rc::clone(&docked.team), docked.app);
        self.orders.extend(cancel);
        team.left(&link);
        let _ = self.apps.runner().run(app, |cx| link.ended(cx));
        self.apply_commands(app);
        self.undock_if_done(token);
    }

    /// The kernel has taken what was sent to a worker; or the worker has gone, which the end of the receive tells, too.
    pub fn link_sent(&mut self, token: Token, frames: &Sending) {
        let Some(docked) = self.links.get(token) else { return };
        docked.sending = false;
        docked.link.sent(frames.len());
        self.undock_if_done(token);
    }

    /// A worker has been told that no more will come.
    pub fn link_shut_down(&mut self, token: Token) {
        let Some(docked) = self.links.get(token) else { return };
        docked.shutting_down = false;
        docked.is_shut_down = true;
        self.undock_if_done(token);
    }

    fn undock_if_done(&mut self, token: Token) {
        let Some(docked) = self.links.get(token) else { return };
        if docked.receiving || docked.sending || docked.shutting_down {
            return;
        }
        let place = docked.place;
        self.links.links[(token - FIRST_TOKEN) as usize] = None;
        self.links.free.push(place);
        self.orders.push(Order::Release(place));
    }

    /// One send for each worker that has something to get. Those that will get no more are told so.
    pub fn flush_links(&mut self, kernel: &mut impl Kernel) {
        if self.shutdown.is_some() && self.connections.is_empty() && self.leaving.is_empty() {
            self.links.abandon_all();
        }
        for (docked, token) in self.links.links.iter_mut().zip(FIRST_TOKEN..) {
            let Some(docked) = docked else { continue };
            if docked.sending || !docked.receiving {
                continue;
            }
            let socket = Descriptor::at(docked.place);
            if let Some(output) = docked.link.take_output() {
                docked.sending = true;
                kernel.send(socket, token, Frame::new(output, self.now_ns));
            } else if docked.link.close_if_done() {
                docked.shutting_down = true;
                kernel.order(Order::ShutDown(socket, token));
            }
        }
    }
}
