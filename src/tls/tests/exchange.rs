//! Data, key updates and closures between the record layer and a client of rustls.

use std::io::Read;

use proptest::collection::vec;
use proptest::prelude::*;
use rustls::ProtocolVersion;

use super::super::record::{CONTENT_BYTES_MAX, HEADER_BYTES};
use super::super::session::{RECEIVE, SEND};
use super::super::testing::*;
use super::super::*;
use crate::limits::{TLS_KEY_RECORDS_MAX, TLS_KEY_UPDATE_RECORDS};

#[test]
fn data_passes_in_both_directions_with_each_suite() {
    for (suite, version) in suites() {
        let (mut client, mut session) = connected(suite);
        assert_eq!(session.version(), version.version);
        for len in [1, 2, 64, 1000, CONTENT_BYTES_MAX, CONTENT_BYTES_MAX + 1, 3 * CONTENT_BYTES_MAX + 5] {
            let data: Vec<u8> = (0..len).map(|nth| nth as u8).collect();
            let mut input = sealed(&mut client, &data);
            assert_eq!(open_all(&mut session, &mut input).unwrap(), data, "{suite:?}");

            let mut output = b"before".to_vec();
            let (head, tail) = data.split_at(len / 3);
            let announced = session.sealed_len(len);
            session.seal([head, b"", tail], &mut output);
            assert_eq!(output.len(), 6 + announced, "{suite:?}, {len} bytes");
            assert_eq!(deliver(&mut client, &output[6..]).unwrap(), data, "{suite:?}");
        }
    }
}

#[test]
fn nothing_is_sealed_for_no_data() {
    for (suite, _) in suites() {
        let (_, mut session) = connected(suite);
        let mut output = Vec::new();
        session.seal([], &mut output);
        session.seal([&b""[..]], &mut output);
        assert_eq!((output.len(), session.sealed_len(0)), (0, 0));
    }
}

#[test]
fn a_session_is_small() {
    assert_eq!(size_of::<TlsSession>(), 152);
    for (suite, _) in suites() {
        let (_, session) = connected(suite);
        let long = if session.cipher() == Cipher::Aes128Gcm { 0 } else { 64 };
        assert_eq!(session.heap_bytes(), long, "{suite:?}");
    }
}

#[test]
fn a_record_that_is_cut_anywhere_is_incomplete() {
    for (suite, _) in suites() {
        let (mut client, mut session) = connected(suite);
        let whole = sealed(&mut client, b"an event");
        for cut in 0..whole.len() {
            let mut input = whole[..cut].to_vec();
            let needed = if cut < HEADER_BYTES { HEADER_BYTES } else { whole.len() };
            assert_eq!(session.open(&mut input).unwrap(), Opened::Incomplete { needed });
            assert_eq!(input, whole[..cut], "an incomplete record must stay as it is");
        }
        assert_eq!(open_all(&mut session, &mut whole.clone()).unwrap(), b"an event");
    }
}

#[test]
fn keys_are_updated_in_both_directions() {
    for (suite, _) in suites().into_iter().filter(|(suite, _)| suite.tls13().is_some()) {
        let (mut client, mut session) = connected(suite);
        for round in 0..5_u8 {
            // The client changes its key, and asks for a change of ours.
            client.refresh_traffic_keys().unwrap();
            let mut input = sealed(&mut client, &[round]);
            assert_eq!(open_all(&mut session, &mut input).unwrap(), [round], "{suite:?}");
            assert!(session.owes());
            let mut output = Vec::new();
            let announced = session.sealed_len(1);
            session.seal([&[round][..]], &mut output);
            assert_eq!(output.len(), announced);
            assert!(!session.owes());
            assert_eq!(session.sequences[SEND], 1, "the sequence begins again with the new key");
            assert_eq!(deliver(&mut client, &output).unwrap(), [round], "{suite:?}");
            assert_eq!(written(&mut client).len(), 0, "our key update asks for none");
        }
    }
}

#[test]
fn a_key_is_changed_before_it_has_protected_too_many_records() {
    for (suite, _) in suites() {
        let (mut client, mut server) = ends(suite);
        server.sequences[SEND] = TLS_KEY_UPDATE_RECORDS;
        client.sequences[RECEIVE] = TLS_KEY_UPDATE_RECORDS;
        let mut output = Vec::new();
        let announced = server.sealed_len(4);
        server.seal([&b"data"[..]], &mut output);
        assert_eq!(output.len(), announced);
        assert_eq!(open_all(&mut client, &mut output).unwrap(), b"data", "{suite:?}");
        let expected = if suite.tls13().is_some() { 1 } else { TLS_KEY_UPDATE_RECORDS + 1 };
        assert_eq!(server.sequences[SEND], expected);
        assert!(!client.owes(), "our key update asks for none");
    }
}

#[test]
fn a_key_that_cannot_be_changed_wears_out() {
    for (suite, version) in suites() {
        let (_, mut server) = ends(suite);
        server.sequences[SEND] = TLS_KEY_RECORDS_MAX - 1;
        assert!(!server.is_worn_out());
        server.sequences[SEND] = TLS_KEY_RECORDS_MAX;
        let has_limit =
            version.version == ProtocolVersion::TLSv1_2 && server.cipher() != Cipher::ChaCha20Poly1305;
        assert_eq!(server.is_worn_out(), has_limit, "{suite:?}");
    }
}

#[test]
fn both_ends_close_in_order() {
    for (suite, _) in suites() {
        let (mut client, mut session) = connected(suite);
        let mut output = Vec::new();
        session.seal([&b"last"[..]], &mut output);
        let before = output.len();
        let announced = session.sealed_alert_len();
        session.close_notify(&mut output);
        assert_eq!(output.len() - before, announced);
        session.close_notify(&mut output);
        session.alert(rustls::AlertDescription::InternalError, &mut output);
        assert_eq!(output.len() - before, announced, "nothing follows a close_notify");
        assert_eq!(deliver(&mut client, &output).unwrap(), b"last");
        let end = client.reader().read(&mut [0]).expect("close_notify is an orderly end");
        assert_eq!(end, 0);

        assert!(!session.received_close_notify());
        client.send_close_notify();
        let mut input = written(&mut client);
        input.extend_from_slice(b"what follows is ignored");
        let used = input.len();
        assert_eq!(session.open(&mut input).unwrap(), Opened::CloseNotify { used });
        assert!(session.received_close_notify());
        assert_eq!(session.open(&mut [1, 2, 3]).unwrap(), Opened::CloseNotify { used: 3 });
    }
}

#[test]
fn an_alert_reaches_the_client() {
    for (suite, _) in suites() {
        let (mut client, mut session) = connected(suite);
        let mut output = Vec::new();
        session.alert(rustls::AlertDescription::AccessDenied, &mut output);
        let error = deliver(&mut client, &output).unwrap_err();
        assert_eq!(error, rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied), "{suite:?}");
    }
}

#[test]
#[should_panic(expected = "data was sealed after close_notify")]
fn nothing_is_sealed_after_close_notify() {
    let (_, mut session) = connected(suites()[0].0);
    session.close_notify(&mut Vec::new());
    session.seal([&b"late"[..]], &mut Vec::new());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Messages arrive as they were sent, in whatever pieces the bytes of the client arrive, with key updates between
    /// them.
    #[test]
    fn messages_arrive_in_pieces_of_any_size(
        suite in 0..suites().len(),
        messages in vec((vec(any::<u8>(), 1..40_000), any::<bool>()), 1..6),
        sizes in vec(1..20_000_usize, 1..8),
    ) {
        let (suite, _) = suites()[suite];
        let (mut client, mut session) = connected(suite);
        let mut sent = Vec::new();
        for (message, update) in &messages {
            if *update && suite.tls13().is_some() {
                client.refresh_traffic_keys().unwrap();
            }
            sent.extend(sealed(&mut client, message));
        }
        let (mut input, mut data) = (Vec::new(), Vec::new());
        let mut sizes = sizes.iter().cycle();
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            rest = after;
            input.extend_from_slice(piece);
            loop {
                match session.open(&mut input).unwrap() {
                    Opened::Incomplete { needed } => {
                        prop_assert!(needed > input.len());
                        break;
                    }
                    Opened::Data { used, plain } => {
                        data.extend_from_slice(&input[plain]);
                        input.drain(..used);
                    }
                    Opened::Handled { used } => drop(input.drain(..used)),
                    Opened::CloseNotify { .. } => prop_assert!(false, "the client has not closed"),
                }
            }
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(&data, &messages.iter().flat_map(|(message, _)| message.clone()).collect::<Vec<_>>());

        let mut output = Vec::new();
        let announced = session.sealed_len(data.len());
        session.seal(messages.iter().map(|(message, _)| &message[..]), &mut output);
        prop_assert_eq!(output.len(), announced);
        prop_assert_eq!(deliver(&mut client, &output).unwrap(), data);
    }
}
