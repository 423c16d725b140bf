//! The members of paths: clients that join, leave and ask, on their own shards and on the shard that keeps the members.
//!
//! ```text
//!   the client's shard                                   the shard that keeps the members of the path
//!   a subscription begins
//!   Interest, Member  --------------------------------->  changes are gathered
//!   news for those who watch  <-------------------------  Broadcast
//!   the list for those who have asked  <----------------  MembersList
//! ```
//!
//! `MembersList` is a message of the class Data, as broadcasts are, and cannot overtake them. It has the members as they are when
//! the changes before it have been broadcast. The client watches from then on: there is no gap and no duplicate.

use super::access::Enforcement;
use super::messages::ShardMessage;
use super::presence::{MemberNews, MembersAnswer, MembersList, MembersOfShard, MembersQuestion};
use super::pubsub::BroadcastKind;
use super::refusal_texts::{BUSY, NO_MEMBERS};
use super::state::State;
use super::time::DueTimer;
use crate::app::{Answer, Json, ReplyTo};
use crate::client::ClientId;
use crate::client::subscriptions::{Membership, PathId};
use crate::event::path::Path;
use crate::identity::Identity;
use crate::limits::{MEMBERS_BYTES_PER_TURN_MAX, MEMBERS_PER_TURN_MAX};
use crate::members::Present;
use crate::metrics::Counter;
use crate::qev::mesh::Class;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The number of subscriptions that are looked at in one turn after rules have changed.
const LOOKED_AT_PER_TURN: usize = 8192;

/// The cost of a question, in bytes of its answer.
const QUESTION_COST: usize = 512;

// On the shard of the client.

impl State {
    /// Makes a client a member of a path that it has just subscribed to, if the path has members.
    #[inline]
    pub fn begin_membership(&mut self, client: ClientId, id: PathId) {
        if self.access.has_members() {
            self.join_members(client, id);
        }
    }

    #[cold]
    fn join_members(&mut self, client: ClientId, id: PathId) {
        if !self.access.tells_members(self.pubsub.path(id).as_str()) {
            return;
        }
        let asks = match self.pubsub.membership(client.slot, id) {
            Some(Membership::None) => {
                self.fan_out();
                self.pubsub.set_membership(client.slot, id, Membership::Member);
                false
            }
            asked => asked.is_some_and(Membership::has_asked),
        };
        let identity = self.identity_of(client);
        let path = self.pubsub.path(id).clone();
        self.tell_member(path, client, MemberNews::Joined { identity, asks });
    }

    fn identity_of(&self, client: ClientId) -> Option<Arc<Identity>> {
        self.connections.connection_of(client).and_then(|slot| self.identities.get(slot).cloned())
    }

    /// Asks for the members of a path for a client that is subscribed to it already.
    pub fn watch_members(&mut self, client: ClientId, id: PathId) {
        let membership = self.pubsub.membership(client.slot, id).expect("the client is subscribed");
        self.fan_out();
        let path = self.pubsub.path(id).clone();
        match membership {
            Membership::None => {
                self.pubsub.set_membership(client.slot, id, Membership::Asking);
                let identity = self.identity_of(client);
                self.tell_member(path, client, MemberNews::Joined { identity, asks: true });
            }
            Membership::Member => {
                self.pubsub.set_membership(client.slot, id, Membership::Asking);
                self.tell_member(path, client, MemberNews::Asks { is_first: true });
            }
            // The list is on its way.
            Membership::Asking => {}
            Membership::Watching => self.tell_member(path, client, MemberNews::Asks { is_first: false }),
        }
    }

    /// Tells that a client's subscription has ended. Nobody is told if the server shuts down.
    #[inline]
    pub fn end_membership(&mut self, client: ClientId, path: &Path, membership: Membership, is_gone: bool) {
        if membership != Membership::None && !self.is_shutting_down() {
            let has_asked = membership.has_asked();
            self.tell_member(path.clone(), client, MemberNews::Left { is_gone, has_asked });
        }
    }

    /// Tells that a member has sent a token.
    pub fn identify_member(&mut self, slot: u32, id: PathId) {
        let Some(client) = self.connections.client_of(slot) else { return };
        if self.pubsub.membership(client.slot, id).is_some_and(|membership| membership != Membership::None) {
            let path = self.pubsub.path(id).clone();
            self.tell_member(path, client, MemberNews::Identified(self.identity_of(client)));
        }
    }

    fn tell_member(&mut self, path: Path, client: ClientId, news: MemberNews) {
        let keeper = self.shard_of_path(path.as_str());
        if keeper == self.mesh.shard() {
            self.member_told(&path, client, news);
        } else {
            self.send_to_shard(keeper, ShardMessage::Member { path, client, news }, Class::Control);
        }
    }

    /// Sends the members of a path to clients of this shard that have asked for them and are still subscribed.
    pub fn list_came(&mut self, list: MembersList) {
        let MembersList { path, data, clients } = list;
        self.fan_out();
        let Some(id) = self.pubsub.find(path.as_ref()) else { return };
        let mut slots = Vec::new();
        for client in clients {
            let is_connected = self.connections.is_connected(client);
            let membership = self.pubsub.membership(client.slot, id).filter(|_| is_connected);
            if membership.is_some_and(Membership::has_asked) {
                self.pubsub.set_membership(client.slot, id, Membership::Watching);
                slots.push(client.slot);
            }
        }
        let (compression, now_ns) = (&self.protocol.compression, self.time.now_ns());
        let sent = self.pubsub.send_list((id, data), &slots, &mut self.connections, compression, now_ns);
        self.count(Counter::MembersListsSent, sent);
        self.count(Counter::MessagesSent, sent);
    }

    /// Handles `/qio/members`: tells a client the members of a path once. It may ask if it may subscribe. If an application
    /// decides about that, it must be subscribed.
    pub fn read_members(&mut self, reply_to: ReplyTo, path: Path) {
        let problem = (!self.access.tells_members(path.as_str())).then_some(NO_MEMBERS);
        if let Some(refusal) = self.refuse_reading(reply_to.client, &path, problem) {
            return self.answer(0, reply_to, refusal);
        }
        if self.mesh.is_stuck() {
            return self.answer(0, reply_to, Answer::error(420, BUSY));
        }
        let keeper = self.shard_of_path(path.as_str());
        let question = Box::new(MembersQuestion { reply_to, path });
        if keeper == self.mesh.shard() {
            self.asked_for_members(keeper, question);
        } else {
            self.send_to_shard(keeper, ShardMessage::AskMembers(question), Class::Control);
        }
    }

    /// Handles the members that a client has asked for once.
    pub fn members_found(&mut self, answer: MembersAnswer) {
        let MembersAnswer { reply_to, data } = answer;
        self.count(Counter::MembersListsSent, u64::from(data.is_some()));
        let answer = data.map_or_else(|| Answer::error(420, BUSY), Answer::data);
        self.answer(0, reply_to, answer);
    }

    /// Tells the shard that keeps the members of a path those of this shard.
    pub fn list_members(&mut self, to: u16, path: Path, round: u64) {
        let id = self.pubsub.find(path.as_ref());
        let subscribers = id.and_then(|id| self.pubsub.subscribers_at(id.index()));
        let members = subscribers.map_or(&[][..], |(_, subscribers)| subscribers).iter();
        let members = members.filter(|subscriber| subscriber.membership() != Membership::None);
        let mut listed: Vec<Present> = Vec::new();
        for client in members.map(|subscriber| self.connections.client_at(subscriber.client())) {
            listed.push((client, self.identity_of(client)));
            if listed.len() > self.config.members_max {
                break;
            }
        }
        let members = Some(listed).filter(|listed| listed.len() <= self.config.members_max);
        let answer = MembersOfShard { path, round, members };
        if to == self.mesh.shard() {
            self.shard_listed(to, answer);
        } else {
            self.send_to_shard(to, ShardMessage::MembersOfShard(Box::new(answer)), Class::Control);
        }
    }

    // Rules that have changed.

    /// Makes the subscribers of paths members after rules have changed, or ends their membership, as many as a turn permits.
    #[inline]
    pub fn renew_memberships(&mut self) {
        if self.can_renew_memberships() {
            self.renew_some_memberships();
        }
    }

    /// Returns whether memberships have to be looked at, and other shards keep up.
    #[inline]
    pub fn can_renew_memberships(&self) -> bool {
        self.access.renewing().is_some() && !self.mesh.is_stuck()
    }

    fn renew_some_memberships(&mut self) {
        let mut place = self.access.renewing().unwrap_or_default();
        self.fan_out();
        for _ in 0..LOOKED_AT_PER_TURN {
            if place.path >= self.pubsub.path_ids() {
                return self.access.set_renewing(None);
            }
            self.renew_membership(&mut place);
        }
        self.access.set_renewing(Some(place));
    }

    /// Looks at the subscription at a place, and moves the place on.
    fn renew_membership(&mut self, place: &mut Enforcement) {
        let Some((path, subscriber)) = self.next_subscription(place) else { return };
        let path = path.clone();
        let (is_member, has_members) =
            (subscriber.membership() != Membership::None, self.access.tells_members(path.as_str()));
        let client = self.connections.client_at(subscriber.client());
        if is_member != has_members {
            let id = self.pubsub.find(path.as_ref()).expect("the path has subscribers");
            if has_members {
                self.join_members(client, id);
            } else {
                self.pubsub.set_membership(client.slot, id, Membership::None);
                self.end_membership(client, &path, subscriber.membership(), false);
            }
        }
    }
}

// On the shard that keeps the members.

impl State {
    /// Handles news of a member.
    pub fn member_told(&mut self, path: &Path, client: ClientId, news: MemberNews) {
        let (rosters, now_ms) = (&mut self.presence.rosters, self.time.now_ms());
        match news {
            MemberNews::Joined { identity, asks } => rosters.join(path, (client, identity), asks, now_ms),
            MemberNews::Identified(identity) => rosters.identify(path, (client, identity), now_ms),
            MemberNews::Asks { is_first } => rosters.ask(path, client, is_first, now_ms),
            MemberNews::Left { is_gone, has_asked } => {
                rosters.leave(path, client, is_gone, has_asked, now_ms)
            }
        }
    }

    /// Handles the members of a shard, for a list that is made anew.
    pub fn shard_listed(&mut self, from: u16, members: MembersOfShard) {
        let MembersOfShard { path, round, members } = members;
        self.presence.rosters.add_shard(&path, round, from, members, self.time.now_ms());
    }

    /// Removes members that have been absent for long.
    pub fn members_due(&mut self) {
        let now_ms = self.time.now_ms();
        self.presence.timer_fired(now_ms);
        self.presence.rosters.expire(now_ms, MEMBERS_PER_TURN_MAX);
    }

    /// Tells those who watch what has changed, and those who have asked the members, as far as a turn permits.
    #[inline]
    pub fn tell_members(&mut self) {
        if self.presence.has_work(self.time.now_ms()) {
            self.answer_members_questions();
            self.publish_members();
        }
    }

    /// Sets a timer for what is due next.
    #[inline]
    pub fn set_members_timer(&mut self) {
        if let Some(at_ms) = self.presence.set_timer() {
            self.time.set(at_ms, DueTimer::Members);
        }
    }

    fn publish_members(&mut self) {
        let mut bytes = 0;
        for _ in 0..MEMBERS_PER_TURN_MAX {
            let due = self.presence.rosters.first_due(self.time.now_ms()).cloned();
            let Some(path) = due.filter(|_| bytes < MEMBERS_BYTES_PER_TURN_MAX) else { return };
            bytes += self.publish_members_of(&path);
        }
    }

    /// Tells what has changed at a path. Returns the bytes that this has taken.
    fn publish_members_of(&mut self, path: &Path) -> usize {
        let now_ms = self.time.now_ms();
        if self.full_shard(path.as_ref()).is_some() {
            self.presence.rosters.postpone(path, now_ms);
            return 0;
        }
        let publication = self.presence.rosters.publish(path, now_ms);
        let mut bytes = 0;
        if let Some(changes) = publication.changes {
            bytes += changes.len();
            self.broadcast_members(path, event_data(path, &changes));
        }
        if !publication.askers.is_empty() {
            let data = event_data(path, self.presence.text(path).as_str());
            bytes += data.as_str().len();
            self.send_lists(path, &data, publication.askers);
        }
        if let Some(round) = publication.round {
            for shard in self.mesh.others() {
                let message = ShardMessage::ListMembers { path: path.clone(), round };
                self.send_to_shard(shard, message, Class::Control);
            }
            self.list_members(self.mesh.shard(), path.clone(), round);
        }
        bytes
    }

    fn broadcast_members(&mut self, path: &Path, data: Json) {
        self.count(Counter::MembersPublished, 1);
        let Some(id) = self.pubsub.find(path.as_ref()) else { return };
        self.distribute(id, data, self.time.now_ns(), BroadcastKind::Members);
    }

    /// Sends the members of a path to the shards of clients that have asked for them.
    fn send_lists(&mut self, path: &Path, data: &Json, askers: impl IntoIterator<Item = ClientId>) {
        let mut by_shard: BTreeMap<u16, Vec<ClientId>> = BTreeMap::new();
        for client in askers {
            by_shard.entry(client.shard).or_default().push(client);
        }
        for (shard, clients) in by_shard {
            if shard == self.mesh.shard() {
                self.list_came(MembersList { path: path.clone(), data: data.clone(), clients });
            } else if self.mesh.is_full(shard) {
                let (rosters, now_ms) = (&mut self.presence.rosters, self.time.now_ms());
                clients.into_iter().for_each(|client| rosters.ask(path, client, false, now_ms));
            } else {
                let list = MembersList { path: path.clone(), data: data.clone(), clients };
                self.send_to_shard(shard, ShardMessage::MembersList(Box::new(list)), Class::Data);
            }
        }
    }

    /// Handles a question of a client of another shard, or of this one.
    pub fn asked_for_members(&mut self, from: u16, question: Box<MembersQuestion>) {
        if let Err(question) = self.presence.questions.push(from, question) {
            self.answer_members(from, MembersAnswer { reply_to: question.reply_to, data: None });
        }
    }

    fn answer_members_questions(&mut self) {
        let mut bytes = 0;
        while bytes < MEMBERS_BYTES_PER_TURN_MAX {
            let Some((to, question)) = self.presence.questions.pop() else { return };
            let data = self.presence.text(&question.path);
            bytes += QUESTION_COST + data.as_str().len();
            self.answer_members(to, MembersAnswer { reply_to: question.reply_to, data: Some(data) });
        }
    }

    fn answer_members(&mut self, to: u16, mut answer: MembersAnswer) {
        if to == self.mesh.shard() {
            return self.members_found(answer);
        }
        if self.mesh.is_full(to) {
            answer.data = None;
        }
        let class = if answer.data.is_some() { Class::Data } else { Class::Control };
        self.send_to_shard(to, ShardMessage::Members(Box::new(answer)), class);
    }
}

/// Returns the data of an event about the members of a path.
fn event_data(path: &Path, text: &str) -> Json {
    Json::trusted(&format!("[\"{}\",{text}]", path.as_str()))
}
