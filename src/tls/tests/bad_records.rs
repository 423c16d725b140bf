//! Records that the client must not send: the reason of the failure, and the alert.

use rustls::{AlertDescription, SupportedCipherSuite};

use super::super::record::CONTENT_BYTES_MAX;
use super::super::session::SEND;
use super::super::testing::*;
use super::super::*;
use crate::limits::TLS_IDLE_RECORDS_MAX;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;

/// A ClientHello of TLS 1.2 without content.
const CLIENT_HELLO: [u8; 4] = [1, 0, 0, 0];

/// Calls `check` with the ends of a connection, for each suite of this version.
fn for_each_suite(is_13: bool, check: impl Fn(SupportedCipherSuite, TlsSession, TlsSession)) {
    for (suite, _) in suites().into_iter().filter(|(suite, _)| suite.tls13().is_some() == is_13) {
        let (client, server) = ends(suite);
        check(suite, client, server);
    }
}

/// Asserts that `input` fails for this reason, with the alert that belongs to it.
#[track_caller]
fn assert_fails(ends: (&mut TlsSession, &mut TlsSession), input: &[u8], reason: TlsReason) {
    let alert = match reason {
        TlsReason::BadMac => AlertDescription::BadRecordMac,
        TlsReason::Oversized => AlertDescription::RecordOverflow,
        TlsReason::Version => AlertDescription::ProtocolVersion,
        TlsReason::UnexpectedMessage | TlsReason::Flood | TlsReason::Renegotiation => {
            AlertDescription::UnexpectedMessage
        }
        _ => panic!("{reason:?} has more than one alert"),
    };
    assert_fails_with(ends, input, reason, alert);
}

/// Asserts that `input` fails, and that the client can read the alert.
#[track_caller]
fn assert_fails_with(
    (client, server): (&mut TlsSession, &mut TlsSession),
    input: &[u8],
    reason: TlsReason,
    alert: AlertDescription,
) {
    let failure = open_all(server, &mut input.to_vec()).expect_err("a record that is not allowed");
    assert_eq!((failure.reason, failure.alert), (reason, Some(alert)), "{failure}");
    let mut output = Vec::new();
    server.alert(failure.alert_to_send().expect("an alert for the client"), &mut output);
    let received = open_all(client, &mut output).expect_err("the alert is fatal");
    assert_eq!((received.reason, received.alert), (TlsReason::PeerAlert, Some(alert)));
    assert_eq!(received.alert_to_send(), None);
}

#[test]
fn a_record_that_was_changed_anywhere_fails() {
    for (suite, _) in suites() {
        let (mut client, mut server) = ends(suite);
        let whole = record(&mut client, DATA, b"an event");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            match server.open(&mut changed) {
                // A record that is longer now.
                Ok(Opened::Incomplete { needed }) => assert!(at == 3 || at == 4 && needed > whole.len()),
                Ok(opened) => panic!("{suite:?}, byte {at}: {opened:?}"),
                Err(failure) if at < 5 => assert_ne!(failure.reason, TlsReason::Internal),
                Err(failure) => assert_eq!(failure.reason, TlsReason::BadMac, "{suite:?}, byte {at}"),
            }
        }
        // A record that fails does not count: the next one is still the first.
        assert_eq!(open_all(&mut server, &mut whole.clone()).unwrap(), b"an event");
    }
}

#[test]
fn bad_macs_and_records_out_of_order_fail() {
    for (suite, _) in suites() {
        let (mut client, mut server) = ends(suite);
        let first = record(&mut client, DATA, b"first");
        let second = record(&mut client, DATA, b"second");
        let bad_mac = |client: &mut TlsSession, server: &mut TlsSession, input: &[u8]| {
            assert_fails((client, server), input, TlsReason::BadMac);
        };
        bad_mac(&mut client, &mut server, &second);

        // Twice the same record.
        let (mut client, mut server) = ends(suite);
        let again = record(&mut client, DATA, b"first");
        open_all(&mut server, &mut again.clone()).unwrap();
        bad_mac(&mut client, &mut server, &again);

        // Another connection's record.
        let (mut client, mut server) = ends(suite);
        bad_mac(&mut client, &mut server, &first);

        // Records that are too short for a tag.
        for len in 0..16 {
            let (mut client, mut server) = ends(suite);
            let short = [&[DATA, 3, 3, 0, len][..], &vec![7; usize::from(len)]].concat();
            bad_mac(&mut client, &mut server, &short);
        }
    }
}

#[test]
fn oversized_records_fail_when_the_header_is_read() {
    for (is_13, expansion) in [(true, 256), (false, 2048)] {
        for_each_suite(is_13, |_, mut client, mut server| {
            let header = |len: usize| {
                let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
                vec![DATA, 3, 3, high, low]
            };
            let most = CONTENT_BYTES_MAX + expansion;
            let opened = server.open(&mut header(most)).unwrap();
            assert_eq!(opened, Opened::Incomplete { needed: HEADER_BYTES + most });
            assert_fails((&mut client, &mut server), &header(most + 1), TlsReason::Oversized);
        });
    }
}

#[test]
fn content_over_16_kib_fails() {
    for_each_suite(true, |_, mut client, mut server| {
        let mut most = vec![b'a'; CONTENT_BYTES_MAX];
        most.push(DATA);
        assert_eq!(
            open_all(&mut server, &mut forged(&mut client, DATA, &most)).unwrap().len(),
            CONTENT_BYTES_MAX
        );
        // Padding counts.
        most.push(0);
        let over = forged(&mut client, DATA, &most);
        assert_fails((&mut client, &mut server), &over, TlsReason::Oversized);
    });
    for_each_suite(false, |_, mut client, mut server| {
        let most = vec![b'a'; CONTENT_BYTES_MAX + 1];
        let record = forged(&mut client, DATA, &most[1..]);
        assert_eq!(open_all(&mut server, &mut record.clone()).unwrap().len(), CONTENT_BYTES_MAX);
        let over = forged(&mut client, DATA, &most);
        assert_fails((&mut client, &mut server), &over, TlsReason::Oversized);
    });
}

#[test]
fn padding_is_removed() {
    for_each_suite(true, |suite, mut client, mut server| {
        for padding in [1, 2, 255, 10_000] {
            let content = [b"data\0", &[DATA][..], &vec![0; padding]].concat();
            let mut record = forged(&mut client, DATA, &content);
            assert_eq!(open_all(&mut server, &mut record).unwrap(), b"data\0", "{suite:?}");
        }
        // A record without a type.
        let record = forged(&mut client, DATA, &[0; 20]);
        assert_fails((&mut client, &mut server), &record, TlsReason::UnexpectedMessage);
    });
}

#[test]
fn empty_records_are_bounded() {
    for (suite, _) in suites() {
        let (mut client, mut server) = ends(suite);
        let empty = |client: &mut TlsSession| {
            let records = (0..TLS_IDLE_RECORDS_MAX).flat_map(|_| record(client, DATA, b""));
            records.collect::<Vec<u8>>()
        };
        // Data begins the count again.
        for _ in 0..3 {
            let mut input = [empty(&mut client), record(&mut client, DATA, b"x")].concat();
            assert_eq!(open_all(&mut server, &mut input).unwrap(), b"x");
        }
        let input = [empty(&mut client), record(&mut client, DATA, b"")].concat();
        assert_fails((&mut client, &mut server), &input, TlsReason::Flood);

        // Only data may be empty.
        for kind in [ALERT, HANDSHAKE] {
            let (mut client, mut server) = ends(suite);
            let input = record(&mut client, kind, b"");
            assert_fails((&mut client, &mut server), &input, TlsReason::UnexpectedMessage);
        }
    }
}

#[test]
fn other_types_of_records_fail() {
    for (suite, _) in suites() {
        // With TLS 1.3, a type of 0 is padding behind a type of 1.
        for kind in [0, 19, CHANGE_CIPHER_SPEC, 24, 255] {
            let (mut client, mut server) = ends(suite);
            let input = record(&mut client, kind, &[1]);
            assert_fails((&mut client, &mut server), &input, TlsReason::UnexpectedMessage);
        }
    }
    // Records without protection.
    for_each_suite(true, |_, mut client, mut server| {
        for plain in [
            &[CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1][..],
            &[ALERT, 3, 3, 0, 2, 2, 0],
            &[HANDSHAKE, 3, 3, 0, 1, 1],
        ] {
            let failure = server.open(&mut plain.to_vec()).unwrap_err();
            assert_eq!(failure.reason, TlsReason::UnexpectedMessage);
        }
        let input = [CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1];
        assert_fails((&mut client, &mut server), &input, TlsReason::UnexpectedMessage);
    });
    for_each_suite(false, |_, mut client, mut server| {
        let input = [ALERT, 3, 3, 0, 2, 1, 0];
        assert_fails((&mut client, &mut server), &input, TlsReason::BadMac);
    });
}

#[test]
fn wrong_versions_fail() {
    for (suite, _) in suites() {
        for (major, minor) in [(2, 0), (0, 0), (4, 3), (254, 253)] {
            let (mut client, mut server) = ends(suite);
            let input = [DATA, major, minor, 0, 30];
            assert_fails((&mut client, &mut server), &input, TlsReason::Version);
        }
    }
    for_each_suite(false, |_, mut client, mut server| {
        let input = [DATA, 3, 1, 0, 30];
        assert_fails((&mut client, &mut server), &input, TlsReason::Version);
    });
    // TLS 1.3 has the version in what the MAC protects.
    for_each_suite(true, |_, mut client, mut server| {
        let mut input = record(&mut client, DATA, b"x");
        input[2] = 1;
        assert_fails((&mut client, &mut server), &input, TlsReason::BadMac);
    });
}

#[test]
fn alerts_of_the_client() {
    let fatal = 2;
    let warning = 1;
    for (suite, _) in suites() {
        let is_13 = suite.tls13().is_some();
        // Alerts that end the connection, and are not answered.
        for (level, description) in [(fatal, 40), (fatal, 80), (fatal, 90), (fatal, 222)] {
            let (mut client, mut server) = ends(suite);
            let failure =
                open_all(&mut server, &mut record(&mut client, ALERT, &[level, description])).unwrap_err();
            assert_eq!(failure.reason, TlsReason::PeerAlert, "{suite:?}, {description}");
            assert_eq!(failure.alert, Some(AlertDescription::from(description)));
            assert_eq!(failure.alert_to_send(), None);
        }
        // A warning ends only TLS 1.3, except user_canceled.
        let (mut client, mut server) = ends(suite);
        assert_eq!(open_all(&mut server, &mut record(&mut client, ALERT, &[warning, 90])).unwrap(), b"");
        let result = open_all(&mut server, &mut record(&mut client, ALERT, &[warning, 100]));
        assert_eq!(
            result.err().map(|failure| failure.reason),
            is_13.then_some(TlsReason::PeerAlert),
            "{suite:?}"
        );

        // close_notify is one, whatever its level is.
        for level in [warning, fatal] {
            let (mut client, mut server) = ends(suite);
            let mut input = record(&mut client, ALERT, &[level, 0]);
            assert_eq!(open_all(&mut server, &mut input).unwrap(), b"");
            assert!(server.received_close_notify());
        }
        for (alert, expected) in [
            (&[3, 0][..], AlertDescription::IllegalParameter),
            (&[0, 40], AlertDescription::IllegalParameter),
            (&[1], AlertDescription::DecodeError),
            (&[1, 0, 1], AlertDescription::DecodeError),
            (&[1, 90, 1, 90], AlertDescription::DecodeError),
        ] {
            let (mut client, mut server) = ends(suite);
            let input = record(&mut client, ALERT, alert);
            assert_fails_with((&mut client, &mut server), &input, TlsReason::Malformed, expected);
        }
        // Warnings are bounded.
        let (mut client, mut server) = ends(suite);
        let mut input = Vec::new();
        for _ in 0..=TLS_IDLE_RECORDS_MAX {
            input.extend(record(&mut client, ALERT, &[warning, 90]));
        }
        assert_fails((&mut client, &mut server), &input, TlsReason::Flood);
    }
}

/// Sends a KeyUpdate of the client, and follows it.
fn key_update(client: &mut TlsSession, request: u8) -> Vec<u8> {
    let sent = record(client, HANDSHAKE, &[24, 0, 0, 1, request]);
    client.update_keys(SEND);
    sent
}

#[test]
fn key_updates_are_bounded() {
    for_each_suite(true, |_, mut client, mut server| {
        for request in [0, 1] {
            for _ in 0..TLS_IDLE_RECORDS_MAX {
                open_all(&mut server, &mut key_update(&mut client, request)).unwrap();
            }
            assert_eq!(server.owes(), request == 1);
            assert_eq!(open_all(&mut server, &mut record(&mut client, DATA, b"x")).unwrap(), b"x");
        }
        // Many requests have one answer.
        let mut output = Vec::new();
        server.seal([&b"y"[..]], &mut output);
        assert_eq!(open_all(&mut client, &mut output).unwrap(), b"y");
        let flood: Vec<u8> = (0..=TLS_IDLE_RECORDS_MAX).flat_map(|_| key_update(&mut client, 1)).collect();
        // The failed server owes a key update no longer: its alert is the last record.
        assert_fails((&mut client, &mut server), &flood, TlsReason::Flood);
        assert!(!server.owes());
    });
}

#[test]
fn a_key_update_may_come_in_pieces() {
    for_each_suite(true, |suite, mut client, mut server| {
        for cut in 1..5 {
            let message = [24, 0, 0, 1, 0];
            let mut input = record(&mut client, HANDSHAKE, &message[..cut]);
            input.extend(record(&mut client, HANDSHAKE, &message[cut..]));
            client.update_keys(SEND);
            input.extend(record(&mut client, DATA, b"x"));
            assert_eq!(open_all(&mut server, &mut input).unwrap(), b"x", "{suite:?}, cut at {cut}");
        }
        // Nothing may stand between the pieces.
        let mut input = record(&mut client, HANDSHAKE, &[24, 0]);
        input.extend(record(&mut client, DATA, b"x"));
        assert_fails((&mut client, &mut server), &input, TlsReason::UnexpectedMessage);
    });
}

#[test]
fn other_handshake_messages_of_tls_13_fail() {
    use AlertDescription::{DecodeError, IllegalParameter, UnexpectedMessage};
    for (message, reason, alert) in [
        (&[24, 0, 0, 1, 2][..], TlsReason::Malformed, IllegalParameter),
        (&[24, 0, 0, 1, 255], TlsReason::Malformed, IllegalParameter),
        (&[24, 0, 0, 2, 0, 0], TlsReason::Malformed, DecodeError),
        (&[24, 0, 0, 0], TlsReason::Malformed, DecodeError),
        (&[24, 1, 0, 1, 0], TlsReason::Malformed, DecodeError),
        // Two messages in a record: the second has the old key.
        (&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], TlsReason::UnexpectedMessage, UnexpectedMessage),
        // ClientHello, NewSessionTicket, Certificate, Finished.
        (&[1, 0, 0, 0], TlsReason::UnexpectedMessage, UnexpectedMessage),
        (&[4, 0, 0, 0], TlsReason::UnexpectedMessage, UnexpectedMessage),
        (&[11, 0, 0, 0], TlsReason::UnexpectedMessage, UnexpectedMessage),
        (&[20, 0, 0, 32], TlsReason::UnexpectedMessage, UnexpectedMessage),
    ] {
        for_each_suite(true, |_, mut client, mut server| {
            let input = record(&mut client, HANDSHAKE, message);
            assert_fails_with((&mut client, &mut server), &input, reason, alert);
        });
    }
}

#[test]
fn renegotiation_is_refused() {
    for_each_suite(false, |suite, mut client, mut server| {
        open_all(&mut server, &mut record(&mut client, HANDSHAKE, &CLIENT_HELLO)).unwrap();
        // The client learns that there is none, and goes on.
        assert!(server.owes());
        let mut output = Vec::new();
        let announced = server.sealed_len(1);
        server.seal([&b"x"[..]], &mut output);
        assert_eq!(output.len(), announced);
        assert_eq!(open_all(&mut client, &mut output).unwrap(), b"x", "{suite:?}");
        assert_eq!(client.idle_records, 0);
        let again = record(&mut client, HANDSHAKE, &CLIENT_HELLO);
        assert_fails((&mut client, &mut server), &again, TlsReason::Renegotiation);
    });
    for message in [&[0, 0, 0, 0][..], &[20, 0, 0, 1, 1], &[1], &[1, 0, 0, 9, 1], &[1, 0, 0, 0, 1]] {
        for_each_suite(false, |_, mut client, mut server| {
            let input = record(&mut client, HANDSHAKE, message);
            assert_fails((&mut client, &mut server), &input, TlsReason::UnexpectedMessage);
        });
    }
}
