//! Each invariant of connections and clients is broken once, and the check that finds it is named.

use super::*;
use crate::protocol::Framing;
use crate::qev::clock::Clock;
use crate::qev::ring::{Descriptor, PeerAddress, SendId};
use crate::shard::connection::{Input, Moment};
use crate::shard::time::{DueTimer, Time};

/// The most that the frames of an outbox of these tests cost, in bytes.
const OUTBOX_BYTES: usize = 1000;

/// The cost of a frame of ten bytes.
const COST: u64 = 10 + FRAME_COST_BYTES as u64;

fn frame(bytes: usize) -> Frame {
    Frame::new(vec![0; bytes], 0)
}

fn add(connections: &mut Connections, connection: Connection) -> u32 {
    let mut time = Time::new(Clock::manual().0);
    let slot = connections.insert(connection);
    connections.live_mut(slot).timer = Some(time.set(1, DueTimer::Connection(slot)));
    slot
}

/// A connection with a socket, which is in slot 0, and its client.
fn one() -> Connections {
    let mut connections = Connections::new(0, OUTBOX_BYTES);
    let generation = connections.next_generation();
    let connection =
        Connection::new(Descriptor::made_up(0), PeerAddress::UNIX, generation, Moment::default());
    let slot = add(&mut connections, connection);
    connections.create_client(slot, Framing::WebSocket);
    connections
}

/// The connection of an HTTP session, which is in slot 0.
fn one_session() -> Connections {
    let mut connections = Connections::new(0, OUTBOX_BYTES);
    let generation = connections.next_generation();
    let connection = Connection::of_session(0, PeerAddress::UNIX, generation, Moment::default());
    add(&mut connections, connection);
    connections
}

fn callback() -> ServerCallback {
    ServerCallback { app: 0, run: None }
}

/// Ends the connection in slot 0.
fn kill(connections: &mut Connections) {
    connections.detach_client(0);
    connections.drop_outbox(0);
    let connection = connections.live_mut(0);
    (connection.stage, connection.input) = (Stage::Dead, Input::Ended);
}

// Queues.

/// Takes the next connection to be flushed, unless it was released.
fn pop_ready(connections: &mut Connections) -> Option<u32> {
    let next = connections.pop_ready()?;
    connections.leave_queue(next).map(|_| next.slot)
}

#[test]
fn a_connection_is_queued_once_whatever_it_is_sent() {
    let mut connections = one();
    for _ in 0..3 {
        assert_eq!(connections.queue(0, frame(10)), Queued::InOutbox);
        connections.queue_for_flush(0);
    }
    connections.check();
    assert_eq!((connections.ready(), connections.outbox_bytes()), (1, 3 * COST));
    assert_eq!((pop_ready(&mut connections), pop_ready(&mut connections)), (Some(0), None));
    connections.check();
}

#[test]
fn the_entry_of_a_connection_that_was_released_is_ignored_and_its_slot_may_be_used_again() {
    let mut connections = one();
    connections.queue(0, frame(10));
    let client = connections.client_of(0).unwrap();
    kill(&mut connections);
    connections.remove(0);
    connections.remove_client(client);
    connections.check();
    let generation = connections.next_generation();
    let connection = Connection::of_session(0, PeerAddress::UNIX, generation, Moment::default());
    assert_eq!(add(&mut connections, connection), 0);
    connections.check();
    assert_eq!(pop_ready(&mut connections), None);
    connections.queue(0, frame(10));
    assert_eq!((connections.pop_ready_session(), connections.pop_ready_session()), (Some(0), None));
}

#[test]
fn a_session_that_is_blocked_is_not_queued_until_it_is_unblocked() {
    let mut connections = one_session();
    connections.queue(0, frame(10));
    assert_eq!(connections.pop_ready_session(), Some(0));
    connections.block_session(0);
    connections.queue(0, frame(10));
    connections.queue_session(0);
    connections.check();
    assert_eq!(connections.pop_ready_session(), None);
    connections.unblock_sessions();
    assert_eq!((connections.pop_ready_session(), connections.pop_ready_session()), (Some(0), None));
}

#[test]
#[should_panic(expected = "each connection that is queued is in one queue, once")]
fn the_check_finds_a_connection_that_is_in_no_queue() {
    let mut connections = one();
    connections.live_mut(0).queued = true;
    connections.check();
}

#[test]
#[should_panic(expected = "each connection that is queued is in one queue, once")]
fn the_check_finds_a_connection_that_is_queued_twice() {
    let mut connections = one();
    connections.queue(0, frame(10));
    connections.waiting.ready.extend(connections.waiting.ready.clone());
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 is in a queue, and does not know it")]
fn the_check_finds_a_connection_that_does_not_know_that_it_is_queued() {
    let mut connections = one();
    connections.queue(0, frame(10));
    connections.live_mut(0).queued = false;
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 is in the wrong queue")]
fn the_check_finds_a_socket_in_the_queue_of_sessions() {
    let mut connections = one();
    connections.block_session(0);
    connections.check();
}

#[test]
#[should_panic(expected = "a session with output was left over by its turn")]
fn the_check_finds_a_session_whose_output_was_left_over() {
    let mut connections = one_session();
    connections.queue(0, frame(10));
    connections.check();
}

#[test]
fn a_session_that_is_queued_or_blocked_is_not_queued_again() {
    let mut connections = one_session();
    connections.queue(0, frame(10));
    connections.block_session(0);
    assert!(!connections.has_blocked_sessions());
    assert_eq!(connections.pop_ready_session(), Some(0));
    connections.block_session(0);
    connections.block_session(0);
    connections.check();
    connections.unblock_sessions();
    assert_eq!((connections.pop_ready_session(), connections.pop_ready_session()), (Some(0), None));
}

// Outboxes.

#[test]
fn an_outbox_that_overflows_ends_its_connection() {
    let mut connections = one();
    assert_eq!(connections.queue(0, frame(OUTBOX_BYTES - FRAME_COST_BYTES)), Queued::InOutbox);
    assert!(connections.would_overflow(0, 1));
    assert_eq!(connections.queue(0, frame(1)), Queued::Overflow);
    assert_eq!(connections.queue(0, frame(1)), Queued::Closed);
    assert!(connections.has_overflowed() && !connections.has_endings());
    connections.check();
    assert_eq!((connections.pop_overflowed(), connections.pop_overflowed()), (Some(0), None));
}

#[test]
fn while_all_outboxes_are_full_each_connection_has_little_room() {
    let mut connections = Connections::new(0, 4 * OUTBOX_BYTES_MIN);
    for _ in 0..2 {
        let generation = connections.next_generation();
        let connection =
            Connection::new(Descriptor::made_up(0), PeerAddress::UNIX, generation, Moment::default());
        add(&mut connections, connection);
    }
    connections.set_outboxes_max(2 * OUTBOX_BYTES_MIN as u64);
    let half = frame(OUTBOX_BYTES_MIN / 2);
    (0..4).for_each(|_| assert_eq!(connections.queue(0, half.clone()), Queued::InOutbox));
    // From here on all outboxes together are full. Who has read everything still gets a message of any size.
    assert_eq!(connections.queue(1, frame(2 * OUTBOX_BYTES_MIN)), Queued::InOutbox);
    assert!(connections.would_overflow(1, 1));
    assert_eq!(connections.queue(1, frame(1)), Queued::Overflow);
    assert_eq!(connections.queue(0, frame(1)), Queued::Overflow);
    assert_eq!((connections.take_pressed(), connections.take_pressed()), (2, 0));
}

#[test]
fn the_end_of_a_connection_that_does_not_keep_up_is_carried_out_once() {
    let mut connections = one();
    while connections.queue(0, frame(100)).is_in_outbox() {}
    // It is carried out early, because something was received.
    kill(&mut connections);
    connections.live_mut(0).input = Input::Armed;
    assert_eq!(connections.pop_overflowed(), None);
    connections.check();
}

#[test]
#[should_panic(expected = "each end that is left to be carried out is in the queue, once")]
fn the_check_finds_an_end_that_would_never_be_carried_out() {
    let mut connections = one();
    while connections.queue(0, frame(100)).is_in_outbox() {}
    connections.overflowed.clear();
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 counts bytes in flight, but no send is")]
fn the_check_finds_bytes_in_flight_without_a_send() {
    let mut connections = one();
    connections.queue(0, frame(10));
    let connection = connections.live_mut(0);
    drop(connection.outbox.take_only());
    connection.in_flight_bytes = connection.outbox_bytes;
    connections.check();
}

#[test]
fn tiny_frames_count_with_the_memory_that_they_take() {
    let mut connections = one();
    let shared = frame(2);
    let mut queued = 0;
    while connections.queue(0, shared.clone()).is_in_outbox() {
        queued += 1;
    }
    assert_eq!(queued, OUTBOX_BYTES / (2 + FRAME_COST_BYTES));
    assert!(connections.outbox_bytes() <= OUTBOX_BYTES as u64);
}

/// The bytes in the outbox of the connection in slot 0, and its number of frames.
fn outbox(connections: &Connections) -> (Vec<u8>, usize) {
    let outbox = &connections.live(0).outbox;
    (outbox.iter().flat_map(Frame::as_slice).copied().collect(), outbox.len())
}

#[test]
fn small_replies_share_a_frame_and_are_sent_in_order() {
    let mut connections = one();
    for reply in ["one ", "two ", "three "] {
        assert_eq!(connections.queue_bytes(0, reply.into(), 0), Queued::InOutbox);
        connections.check();
    }
    // A frame that others hold too is not changed.
    let shared = Frame::new(b"four ".to_vec(), 0);
    connections.queue(0, shared.clone());
    connections.queue_bytes(0, b"five ".to_vec(), 0);
    connections.queue_bytes(0, b"six".to_vec(), 0);
    connections.check();
    assert_eq!(outbox(&connections), (b"one two three four five six".to_vec(), 3));
    assert_eq!(shared.as_slice(), b"four ");
}

/// Two bytes are a Pong without a payload.
fn pong(connections: &mut Connections, payload: &[u8]) -> bool {
    let (queued, replaces) = connections.queue_pong(0, [&[0x8a, payload.len() as u8], payload].concat(), 0);
    assert_eq!(queued, Queued::InOutbox);
    connections.check();
    replaces
}

#[test]
fn every_ping_is_answered_while_no_send_takes_long() {
    let mut connections = one();
    assert!(!pong(&mut connections, b"1") && !pong(&mut connections, b"2") && !pong(&mut connections, b""));
    assert_eq!(outbox(&connections), (b"\x8a\x011\x8a\x012\x8a\0".to_vec(), 1));
    // A send that was submitted in the turn before may be about to complete.
    connections.live_mut(0).send = Some(SendId::at(0));
    assert!(!pong(&mut connections, b""));
}

#[test]
fn only_the_newest_ping_is_answered_while_a_send_takes_long() {
    let mut connections = one();
    let connection = connections.live_mut(0);
    (connection.send, connection.lagging) = (Some(SendId::at(0)), true);
    assert!(!pong(&mut connections, b"1"), "no Pong waits");
    assert!(pong(&mut connections, b"22") && pong(&mut connections, b"3"));
    assert_eq!(outbox(&connections), (b"\x8a\x013".to_vec(), 1));
    // Frames behind a Pong keep their places.
    connections.queue_bytes(0, b"answer".to_vec(), 0);
    assert!(!pong(&mut connections, b"4") && pong(&mut connections, b"5"));
    assert_eq!(outbox(&connections), (b"\x8a\x013answer\x8a\x015".to_vec(), 1));
    let shared = frame(1);
    connections.queue(0, shared.clone());
    assert!(!pong(&mut connections, b"6") && pong(&mut connections, b"7"));
    assert_eq!(outbox(&connections).1, 3, "the shared frame stays as it is");
}

#[test]
fn a_pong_that_is_in_flight_is_not_replaced() {
    let mut connections = one();
    pong(&mut connections, b"1");
    let connection = connections.live_mut(0);
    let sent = connection.outbox.take_only().unwrap();
    connection.in_flight_bytes = connection.outbox_bytes;
    (connection.send, connection.lagging) = (Some(SendId::at(0)), true);
    assert!(!pong(&mut connections, b"2"));
    assert_eq!(sent.as_slice(), b"\x8a\x011");
    connections.sent(0);
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 has a Pong that is not in its outbox")]
fn the_check_finds_a_pong_that_was_not_queued() {
    let mut connections = one();
    connections.queue(0, frame(1));
    connections.live_mut(0).pong_bytes = 2;
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 counts 137 bytes, but 138 wait and 0 are in flight")]
fn the_check_finds_an_outbox_with_more_bytes_than_it_counts() {
    let mut connections = one();
    connections.queue(0, frame(10));
    connections.live_mut(0).outbox_bytes -= 1;
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 counts 139 bytes, but 138 wait and 0 are in flight")]
fn the_check_finds_an_outbox_with_fewer_bytes_than_it_counts() {
    let mut connections = one();
    connections.queue(0, frame(10));
    connections.live_mut(0).outbox_bytes += 1;
    connections.check();
}

#[test]
#[should_panic(expected = "the bytes in all outboxes")]
fn the_check_finds_a_wrong_sum_of_all_outboxes() {
    let mut connections = one();
    connections.waiting.outbox_bytes += 1;
    connections.check();
}

// Clients.

#[test]
#[should_panic(expected = "the client of connection 0 has another")]
fn the_check_finds_a_connection_whose_client_was_detached() {
    let mut connections = one();
    connections.clients.expect_mut(0, CLIENT).detach();
    connections.check();
}

#[test]
#[should_panic(expected = "client 0 and its connection")]
fn the_check_finds_a_client_whose_connection_has_none() {
    let mut connections = one();
    connections.live_mut(0).client = None;
    connections.check();
}

#[test]
#[should_panic(expected = "client 0 was removed before it was detached")]
fn a_client_is_detached_before_it_is_removed() {
    let mut connections = one();
    let client = connections.client_of(0).unwrap();
    connections.remove_client(client);
}

#[test]
fn open_callbacks_are_counted_until_they_are_fired_dropped_or_expire() {
    let mut connections = one();
    let client = connections.client_of(0).unwrap();
    let numbers: Vec<u64> =
        (1..=3).map(|expires_ms| connections.issue(client, callback(), expires_ms).unwrap().0).collect();
    assert_eq!(connections.expire_callbacks(0, 1), 1);
    assert!(matches!(connections.take_callback(client, numbers[2], 1), Some((Some(_), 0))));
    assert_eq!(connections.callbacks_open(), 1);
    connections.check();
    connections.detach_client(0);
    assert_eq!((connections.callbacks_open(), connections.detached()), (0, 1));
    assert!(connections.is_detached(client) && !connections.is_connected(client));
    connections.check();
}

#[test]
#[should_panic(expected = "a client that has disconnected has open callbacks")]
fn the_check_finds_callbacks_that_have_outlived_their_connection() {
    let mut connections = one();
    let client = connections.client_of(0).unwrap();
    connections.detach_client(0);
    let ids = &mut connections.clients.expect_mut(client.slot as usize, CLIENT).callback_ids;
    connections.callbacks.issue(client.slot, ids, callback(), 1);
    connections.check();
}

// Ends.

#[test]
fn ends_are_taken_in_the_order_in_which_they_were_decided() {
    let mut connections = one();
    let [first, second] = [0, 1].map(|session| {
        let generation = connections.next_generation();
        let connection = Connection::of_session(session, PeerAddress::UNIX, generation, Moment::default());
        add(&mut connections, connection)
    });
    let decide = |connections: &mut Connections| {
        [second, 0, first].into_iter().for_each(|slot| {
            connections.live_mut(slot).stage = Stage::Open;
            connections.end(slot, Cause::EndOfStream, None);
            connections.end(slot, Cause::SessionTimeout, None);
        });
    };
    let slots = |endings: Vec<Ending>| endings.iter().map(|ending| ending.slot).collect::<Vec<_>>();
    decide(&mut connections);
    assert_eq!(slots(connections.take_endings()), [second, 0, first]);
    decide(&mut connections);
    assert_eq!(slots(connections.take_session_endings()), [second, first]);
    assert_eq!(slots(connections.take_endings()), [0]);
}

#[test]
#[should_panic(expected = "an end was decided and not carried out")]
fn the_check_finds_an_end_that_was_left_over() {
    let mut connections = one();
    connections.end(0, Cause::EndOfStream, None);
    connections.check();
}

#[test]
#[should_panic(expected = "each end that is left to be carried out is in the queue, once")]
fn the_check_finds_an_end_that_was_forgotten() {
    let mut connections = one();
    connections.live_mut(0).stage = Stage::Ending;
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 has kept its client")]
fn the_check_finds_a_connection_that_is_closing_and_has_a_client() {
    let mut connections = one();
    connections.live_mut(0).stage = Stage::Flushing;
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 has ended, but was not released")]
fn the_check_finds_a_connection_that_was_not_released() {
    let mut connections = one();
    kill(&mut connections);
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 has no timer")]
fn the_check_finds_a_connection_that_would_never_be_looked_at() {
    let mut connections = one();
    connections.live_mut(0).timer = None;
    connections.check();
}

#[test]
#[should_panic(expected = "session 0 has an operation in flight")]
fn the_check_finds_an_operation_on_the_socket_that_a_session_does_not_have() {
    let mut connections = one_session();
    connections.live_mut(0).send = Some(SendId::at(0));
    connections.check();
}

#[test]
#[should_panic(expected = "connection 0 was released before its end")]
fn a_connection_is_not_released_before_its_end() {
    one().remove(0);
}

#[test]
#[should_panic(expected = "connection 0 was released with an operation in flight")]
fn a_connection_is_not_released_with_an_operation_in_flight() {
    let mut connections = one();
    kill(&mut connections);
    connections.live_mut(0).shutting_down = true;
    connections.remove(0);
}

#[test]
#[should_panic(expected = "slot 1 must hold a connection")]
fn a_slot_without_a_connection_is_a_panic() {
    one().live(1);
}
