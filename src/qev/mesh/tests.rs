//! Tests of the mesh.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Ports whose overflow queues of Data hold `overflow_messages_max` messages that refer to no memory.
fn ports<M: Send>(shards: usize, ring_messages: usize, overflow_messages_max: usize) -> Vec<Port<M>> {
    let overflow_bytes_max = overflow_messages_max * Outgoing::<M>::entry_bytes();
    mesh(shards, MeshSettings { ring_messages, overflow_bytes_max })
}

fn pair(ring_messages: usize, overflow_messages_max: usize) -> (Port<u32>, Port<u32>) {
    let mut ports = ports(2, ring_messages, overflow_messages_max).into_iter();
    (ports.next().expect("shard 0"), ports.next().expect("shard 1"))
}

fn received<M>(port: &mut Port<M>, max: usize) -> Vec<M> {
    let mut messages = Vec::new();
    let count = port.receive(max, |_, message| messages.push(message));
    assert_eq!(count, messages.len());
    messages
}

fn doorbells<M>(port: &mut Port<M>) -> Vec<usize> {
    let mut rung = Vec::new();
    port.doorbells(|peer| rung.push(peer));
    rung
}

#[test]
fn a_port_moves_to_its_thread_and_a_waker_is_shared() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync + Clone>() {}
    is_send::<Port<u64>>();
    is_send::<Inbox<u64>>();
    is_shared::<Waker>();
    is_shared::<Mailbox<u64>>();
}

#[test]
fn an_eighth_of_the_ring_is_reserved_for_control() {
    for (ring_messages, for_data) in [(1, 1), (2, 1), (3, 2), (8, 7), (9, 8), (16, 14), (64, 56)] {
        let (mut zero, _one) = pair(ring_messages, 1);
        for _ in 0..for_data {
            assert_eq!(zero.send(1, 0, Class::Data), SendOutcome::Queued, "ring of {ring_messages}");
        }
        assert_eq!(zero.send(1, 0, Class::Data), SendOutcome::Overflowed, "ring of {ring_messages}");
        for _ in for_data..ring_messages {
            assert_eq!(zero.send(1, 0, Class::Control), SendOutcome::Queued, "ring of {ring_messages}");
        }
        assert_eq!(zero.send(1, 0, Class::Control), SendOutcome::Overflowed, "ring of {ring_messages}");
    }
}

#[test]
fn data_is_refused_when_its_overflow_queue_is_full_and_control_never() {
    let (mut zero, mut one) = pair(1, 2);
    assert_eq!(zero.send(1, 1, Class::Data), SendOutcome::Queued);
    assert_eq!(zero.send(1, 2, Class::Data), SendOutcome::Overflowed);
    assert_eq!(zero.send(1, 3, Class::Data), SendOutcome::Overflowed);
    assert_eq!(zero.send(1, 4, Class::Data), SendOutcome::Refused(4));
    for number in 5..100 {
        assert_eq!(zero.send(1, number, Class::Control), SendOutcome::Overflowed);
    }
    assert_eq!(zero.overflow_len(), 2 + 95);
    let expected = MeshCounters { sent: 98, overflowed: 97, refused: 1, ..MeshCounters::default() };
    assert_eq!(zero.counters(), expected);
    let mut all = Vec::new();
    while zero.has_overflow() {
        all.extend(received(&mut one, 10));
        zero.flush();
    }
    all.extend(received(&mut one, 10));
    let order: Vec<u32> = [1].into_iter().chain(5..100).chain([2, 3]).collect();
    assert_eq!(all, order, "Control overtakes Data that overflowed");
    assert_eq!(one.counters(), MeshCounters { received: 98, ..MeshCounters::default() });
}

#[test]
fn data_does_not_overtake_control_that_waits() {
    let (mut zero, mut one) = pair(2, 9);
    for number in 0..3 {
        let _ = zero.send(1, number, Class::Control);
    }
    assert_eq!(received(&mut one, 9), [0, 1]);
    assert_eq!(zero.send(1, 3, Class::Data), SendOutcome::Overflowed, "there is room, but 2 waits for it");
    zero.flush();
    assert_eq!(received(&mut one, 9), [2]);
    zero.flush();
    assert_eq!(received(&mut one, 9), [3]);
}

#[test]
fn empty_overflow_queues_have_no_memory() {
    let (mut zero, mut one) = pair(1, 1000);
    for number in 0..1000 {
        let _ = zero.send(1, number, if number % 2 == 0 { Class::Data } else { Class::Control });
    }
    while zero.has_overflow() {
        assert_eq!(received(&mut one, 9).len(), 1);
        zero.flush();
    }
    assert_eq!(zero.outgoing[1].overflow_capacity(), 0);
}

#[test]
fn a_busy_sender_does_not_keep_the_others_waiting() {
    let mut ports = ports::<usize>(4, 64, 0);
    let mut receiver = ports.remove(0);
    for (port, messages) in ports.iter_mut().zip([50, 1, 2]) {
        for _ in 0..messages {
            let _ = port.send(0, port.shard(), Class::Data);
        }
    }
    let rounds: Vec<Vec<usize>> = (0..4).map(|_| received(&mut receiver, 5)).collect();
    assert_eq!(rounds[0], [1; 5]);
    assert_eq!(rounds[1], [2, 3, 3, 1, 1]);
    assert_eq!(rounds[2], [1; 5]);
}

/// Sends messages with these numbers, which the ring must have room for.
fn queue(port: &mut Port<u32>, numbers: std::ops::Range<u32>) {
    for number in numbers {
        assert_eq!(port.send(1, number, Class::Data), SendOutcome::Queued, "{number}");
    }
}

/// Takes as many turns as it takes to find the rings that are to be given back.
fn take_many_turns(port: &mut Port<u32>) {
    for _ in 0..GIVE_BACK_INTERVAL {
        port.flush();
    }
    port.check();
}

#[test]
fn rings_grow_by_doubling_up_to_their_maximum() {
    let (mut zero, mut one) = pair(100, 1);
    assert_eq!(zero.outgoing[1].ring_capacity(), 0, "there is no ring before the first message");
    for (sent, capacity) in [(1, 8), (8, 8), (9, 24), (24, 24), (25, 56), (56, 56), (57, 120), (88, 120)] {
        let before = zero.counters.sent as u32;
        queue(&mut zero, before..sent);
        assert_eq!(zero.outgoing[1].ring_capacity(), capacity, "{sent} messages");
        zero.check();
    }
    assert_eq!(zero.send(1, 88, Class::Data), SendOutcome::Overflowed, "an eighth is for Control");
    // The sender drops the rings that were emptied.
    assert_eq!(received(&mut one, 25), (0..25).collect::<Vec<_>>());
    zero.flush();
    assert_eq!(zero.outgoing[1].ring_capacity(), 32 + 64);
    assert_eq!(received(&mut one, 999), (25..89).collect::<Vec<_>>());
    zero.flush();
    assert_eq!((zero.outgoing[1].ring_capacity(), one.incoming[0].capacity()), (64, 64));
    // The next ring is the largest that there may be.
    queue(&mut zero, 0..65);
    zero.flush();
    received(&mut one, 999);
    zero.flush();
    assert_eq!((zero.outgoing[1].ring_capacity(), one.incoming[0].capacity()), (100, 100));
    queue(&mut zero, 0..88);
    assert_eq!(zero.outgoing[1].ring_capacity(), 100);
}

#[test]
fn rings_that_are_hardly_used_are_given_back() {
    let (mut zero, mut one) = pair(4096, 1);
    queue(&mut zero, 0..1000);
    received(&mut one, 999);
    let large = zero.outgoing[1].ring_capacity();
    take_many_turns(&mut zero);
    assert!(large > 512 && zero.outgoing[1].ring_capacity() == 512, "a message is left in the last ring");
    received(&mut one, 1);
    doorbells(&mut one);
    doorbells(&mut zero);
    assert!(one.try_sleep());
    take_many_turns(&mut zero);
    take_many_turns(&mut zero);
    assert_eq!(zero.outgoing[1].ring_capacity(), 0);
    assert_eq!(doorbells(&mut zero), [0; 0], "the receiver is not woken for it");
    one.end_sleep();
    assert_eq!(received(&mut one, 9), [0; 0]);
    assert_eq!(one.incoming[0].capacity(), 0, "the receiver frees its end");
    assert!(one.try_sleep());
    // The pair goes on as before its first message.
    queue(&mut zero, 0..9);
    assert_eq!((doorbells(&mut zero), zero.outgoing[1].ring_capacity()), (vec![1], 24));
    one.end_sleep();
    assert_eq!(received(&mut one, 99), (0..9).collect::<Vec<_>>());
}

#[test]
fn rings_that_are_used_stay() {
    let (mut zero, mut one) = pair(4096, 1);
    let mut round = |messages| {
        queue(&mut zero, 0..messages);
        doorbells(&mut zero);
        received(&mut one, 9999);
        take_many_turns(&mut zero);
        zero.outgoing[1].ring_capacity()
    };
    round(100);
    // The rings of the first round held 8, 16, 32 and 44 messages; the last one has 64 places.
    for _ in 0..4 {
        assert_eq!(round(17), 64, "more than a quarter");
    }
    assert_eq!(round(16), 0, "a quarter");
    assert_eq!(round(8), 8);
    assert_eq!(round(0), 8, "a small ring stays");
}

#[test]
fn a_ring_that_is_given_back_and_used_again_loses_nothing() {
    let (mut zero, mut one) = pair(64, 1);
    queue(&mut zero, 0..20);
    received(&mut one, 99);
    take_many_turns(&mut zero);
    queue(&mut zero, 20..40);
    assert_eq!(received(&mut one, 99), (20..40).collect::<Vec<_>>());
    zero.flush();
    let left = zero.outgoing[1].ring_capacity();
    assert_eq!(one.incoming[0].capacity(), left, "the ring that was given back is freed");
}

#[test]
fn a_shard_may_send_to_itself() {
    let mut port = ports::<u32>(1, 4, 4).remove(0);
    assert_eq!(port.send(0, 7, Class::Data), SendOutcome::Queued);
    assert_eq!(doorbells(&mut port), [0; 0], "the shard is awake");
    assert!(!port.try_sleep());
    assert_eq!(received(&mut port, 9), [7]);
    assert_eq!(doorbells(&mut port), [0; 0]);
    assert!(port.try_sleep());
}

#[test]
fn a_sleeping_peer_is_rung_once() {
    let mut ports = ports::<u32>(3, 4, 4);
    assert!(ports[1].try_sleep());
    for to in [1, 1, 2] {
        let _ = ports[0].send(to, 7, Class::Data);
    }
    assert_eq!(doorbells(&mut ports[0]), [1], "2 is awake");
    assert_eq!(doorbells(&mut ports[0]), [0; 0]);
    let _ = ports[0].send(1, 8, Class::Data);
    let _ = ports[2].send(1, 9, Class::Data);
    assert_eq!(doorbells(&mut ports[0]), [0; 0], "already rung");
    assert_eq!(doorbells(&mut ports[2]), [0; 0], "another shard has rung");
    assert_eq!(ports[0].counters().doorbells, 1);
    ports[1].end_sleep();
    assert_eq!(received(&mut ports[1], 9), [7, 7, 8, 9]);
}

#[test]
fn a_shard_with_work_does_not_sleep() {
    let (mut zero, mut one) = pair(4, 4);
    let (mailbox, mut inbox) = one.inbox(4);
    assert!(one.try_sleep());
    one.end_sleep();
    let _ = zero.send(1, 7, Class::Data);
    assert!(!zero.try_sleep(), "`doorbells` was not called after sending");
    assert_eq!(doorbells(&mut zero), [0; 0]);
    assert!(!one.try_sleep(), "a message waits");
    assert_eq!(received(&mut one, 9), [7]);
    assert!(!one.try_sleep(), "`doorbells` was not called after receiving");
    assert_eq!(doorbells(&mut one), [0; 0]);
    assert_eq!(mailbox.post("posted"), Ok(false));
    assert!(!one.try_sleep() && !one.try_sleep(), "a message waits in the inbox");
    assert_eq!(inbox.receive(9, |_| ()), 1);
    assert!(!one.waker().needs_wake());
    assert!(!one.try_sleep(), "a note was left");
    assert!(one.try_sleep());
    assert!(one.waker().needs_wake() && !one.waker().needs_wake());
}

#[test]
fn a_shard_that_waits_for_room_sleeps_until_there_is_some() {
    let (mut zero, mut one) = pair(2, 4);
    for number in 0..3 {
        let _ = zero.send(1, number, Class::Control);
    }
    assert_eq!(doorbells(&mut zero), [0; 0]);
    assert!(zero.try_sleep(), "the ring is full, and there is no other work");
    assert_eq!(received(&mut one, 1), [0]);
    assert_eq!(doorbells(&mut one), [0]);
    zero.end_sleep();
    assert!(!zero.try_sleep(), "there is room");
    zero.flush();
    assert_eq!(doorbells(&mut zero), [0; 0]);
    assert!(zero.try_sleep(), "the overflow queues are empty");
    assert_eq!(received(&mut one, 1), [1]);
    assert_eq!(doorbells(&mut one), [0; 0], "the shard does not wait for room");
}

#[test]
fn messages_to_a_shard_that_has_ended_are_refused_or_dropped() {
    let (mut zero, one) = pair(2, 2);
    for number in 0..4 {
        let _ = zero.send(1, number, Class::Control);
    }
    drop(one);
    assert_eq!(zero.send(1, 4, Class::Control), SendOutcome::Refused(4));
    zero.flush();
    assert!(!zero.has_overflow());
    let counters = zero.counters();
    assert_eq!((counters.sent, counters.dropped, counters.refused), (4, 2, 1));
    assert_eq!(doorbells(&mut zero), [0; 0]);
    assert!(zero.try_sleep());
}

#[test]
fn undelivered_messages_are_freed_with_their_ports() {
    let message = Arc::new(());
    let mut ports = ports::<Arc<()>>(2, 2, 2);
    for class in [Class::Data, Class::Data, Class::Control, Class::Control] {
        let _ = ports[0].send(1, Arc::clone(&message), class);
    }
    assert_eq!(Arc::strong_count(&message), 5);
    drop(ports);
    assert_eq!(Arc::strong_count(&message), 1);
}

#[test]
fn the_largest_mesh_connects_all_its_shards() {
    let mut ports = ports::<usize>(SHARDS_MAX, 1, 0);
    let last = SHARDS_MAX - 1;
    for (from, port) in ports.iter_mut().enumerate() {
        assert_eq!(port.send(last, from, Class::Data), SendOutcome::Queued);
    }
    assert_eq!(received(&mut ports[last], usize::MAX), (0..SHARDS_MAX).collect::<Vec<_>>());
}

#[test]
#[should_panic(expected = "1 to 128 shards")]
fn a_mesh_that_is_too_large_is_a_panic() {
    let _ = ports::<u32>(SHARDS_MAX + 1, 1, 1);
}

/// A port to shard 1 with one message of each class in its overflow queues.
fn overflowing() -> Port<u32> {
    let (mut zero, _one) = pair(1, 1);
    for class in [Class::Data, Class::Data, Class::Control] {
        let _ = zero.send(1, 7, class);
    }
    zero.check();
    zero
}

#[test]
#[should_panic(expected = "overflow to shard 1 must be marked")]
fn the_check_finds_overflow_that_is_not_marked() {
    let mut port = overflowing();
    port.overflowing.remove(1);
    port.check();
}

#[test]
#[should_panic(expected = "messages in overflow queues must be charged to their sources")]
fn the_check_finds_overflow_that_is_not_charged() {
    let mut port = overflowing();
    port.outgoing[1].push_overflow(7, Class::Data, Load { source: LoadSource(3), bytes: 1 });
    port.check();
}

#[test]
fn messages_that_wait_are_charged_to_their_sources() {
    let (mut zero, mut one) = pair(1, 1 << 20);
    let load = |source, bytes| move |_: &u32| Load { source: LoadSource(source), bytes };
    let entry = Outgoing::<u32>::entry_bytes();
    assert_eq!(zero.send_weighed(1, 0, Class::Data, load(1, 100)), SendOutcome::Queued);
    assert_eq!(zero.charge(LoadSource(1)), 0, "a message in the ring costs nothing");
    for (number, source) in [(1, 1), (2, 2), (3, 1)] {
        let _ = zero.send_weighed(1, number, Class::Data, load(source, 100));
        zero.check();
    }
    assert_eq!(zero.charge(LoadSource(1)), 2 * (entry + 100));
    assert_eq!(zero.charge(LoadSource(2)), entry + 100);
    assert_eq!(zero.overflow_bytes(1), 3 * (entry + 100));
    assert_eq!(received(&mut one, 1), [0]);
    zero.flush();
    zero.check();
    assert_eq!(zero.charge(LoadSource(1)), entry + 100);
    drop(one);
    zero.flush();
    zero.check();
    assert_eq!((zero.charge(LoadSource(1)), zero.charge(LoadSource(2))), (0, 0));
}

#[test]
fn the_share_of_a_source_shrinks_with_their_number() {
    let (mut zero, _one) = pair(1, 0);
    zero.overflow_bytes_max = 16 << 20;
    assert_eq!(zero.share(), 256 << 10);
    let _ = zero.send(1, 0, Class::Data);
    for source in 0..1024 {
        let _ = zero.send_weighed(1, 0, Class::Data, |_| Load { source: LoadSource(source), bytes: 0 });
        let expected = ((1 << 20) / (source as usize + 1)).clamp(4 << 10, 256 << 10);
        assert_eq!(zero.share(), expected);
    }
    zero.check();
}

#[test]
fn data_is_refused_by_its_bytes() {
    let (mut zero, _one) = pair(1, 0);
    zero.overflow_bytes_max = 3 * (Outgoing::<u32>::entry_bytes() + 1000);
    let mut send = || zero.send_weighed(1, 0, Class::Data, |_| Load { source: LoadSource(1), bytes: 1000 });
    assert_eq!(send(), SendOutcome::Queued);
    for _ in 0..3 {
        assert_eq!(send(), SendOutcome::Overflowed);
    }
    assert_eq!(send(), SendOutcome::Refused(0));
    assert!(zero.is_full(1));
    zero.check();
}

#[test]
#[should_panic(expected = "dropped ones must be counted as overflowed")]
fn the_check_finds_overflow_that_is_not_counted() {
    let mut port = overflowing();
    port.counters.overflowed -= 1;
    port.check();
}

#[test]
#[should_panic(expected = "must be counted as sent")]
fn the_check_finds_messages_that_are_not_counted() {
    let mut port = overflowing();
    port.counters.sent = 0;
    port.check();
}

#[test]
#[should_panic(expected = "sets of shards must be within the mesh")]
fn the_check_finds_a_shard_that_does_not_exist() {
    let mut port = overflowing();
    port.sent_to.insert(2);
    port.check();
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(Class),
    Flush,
    ManyTurns,
    Receive(usize),
}

fn some_step(max_received: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send(Class::Data)),
        2 => Just(Step::Send(Class::Control)),
        1 => Just(Step::Flush),
        1 => prop::bool::weighted(0.2).prop_map(|many| if many { Step::ManyTurns } else { Step::Flush }),
        2 => (0..max_received).prop_map(Step::Receive),
    ]
}

/// The oracle: one direction of the mesh as three lists.
struct Model {
    ring_messages: usize,
    overflow_messages_max: usize,
    ring: VecDeque<u32>,
    control: VecDeque<u32>,
    data: VecDeque<u32>,
}

impl Model {
    fn room(&self, class: Class) -> bool {
        let kept = match class {
            Class::Data if self.ring_messages > 1 => (self.ring_messages / 8).max(1),
            _ => 0,
        };
        self.ring.len() < self.ring_messages - kept
    }

    fn send(&mut self, message: u32, class: Class) -> SendOutcome<u32> {
        let first = self.control.is_empty() && (class == Class::Control || self.data.is_empty());
        if first && self.room(class) {
            self.ring.push_back(message);
            return SendOutcome::Queued;
        }
        if class == Class::Control {
            self.control.push_back(message);
        } else if self.data.len() == self.overflow_messages_max {
            return SendOutcome::Refused(message);
        } else {
            self.data.push_back(message);
        }
        SendOutcome::Overflowed
    }

    fn flush(&mut self) {
        while self.room(Class::Control) {
            let Some(message) = self.control.pop_front() else { break };
            self.ring.push_back(message);
        }
        while self.control.is_empty() && self.room(Class::Data) {
            let Some(message) = self.data.pop_front() else { break };
            self.ring.push_back(message);
        }
    }

    fn receive(&mut self, max: usize) -> Vec<u32> {
        self.ring.drain(..max.min(self.ring.len())).collect()
    }
}

proptest! {
    #[test]
    fn one_direction_behaves_like_three_lists(
        (ring_messages, steps) in prop_oneof![
            (1..20_usize, prop::collection::vec(some_step(5), 1..200)),
            (20..100_usize, prop::collection::vec(some_step(40), 1..400)),
        ],
        overflow_messages_max in 0..6_usize,
    ) {
        let (mut zero, mut one) = pair(ring_messages, overflow_messages_max);
        let (ring, control, data) = Default::default();
        let mut model = Model { ring_messages, overflow_messages_max, ring, control, data };
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Send(class) => {
                    prop_assert_eq!(zero.send(1, number, class), model.send(number, class));
                }
                Step::Flush => {
                    zero.flush();
                    model.flush();
                }
                Step::ManyTurns => {
                    take_many_turns(&mut zero);
                    model.flush();
                }
                Step::Receive(max) => prop_assert_eq!(received(&mut one, max), model.receive(max)),
            }
            prop_assert_eq!(zero.overflow_len(), model.control.len() + model.data.len());
            prop_assert_eq!(zero.has_overflow(), zero.overflow_len() > 0);
            zero.check();
            one.check();
        }
    }
}
