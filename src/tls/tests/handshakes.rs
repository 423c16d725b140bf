//! Handshakes with a client of rustls, and what the server says to other bytes.

use std::io::Write;
use std::sync::Arc;

use rustls::{AlertDescription, ClientConfig, Error, ProtocolVersion, version};

use super::super::testing::*;
use super::super::*;
use crate::limits::{TLS_HANDSHAKE_BYTES_MAX, TLS_HANDSHAKE_CERTIFICATE_BYTES_MAX};

/// Gives bytes to a new handshake. Returns the failure, and what the server sent.
fn refused(context: &TlsContext, input: &[u8]) -> (TlsFailure, Vec<u8>) {
    let mut output = Vec::new();
    let failure = context.accept().receive(input, &mut output).expect_err("no handshake");
    (failure, output)
}

/// Returns an alert without protection.
fn plain_alert(alert: AlertDescription) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, u8::from(alert)]
}

#[test]
fn a_handshake_may_arrive_in_pieces() {
    for (suite, _) in suites() {
        let config = Arc::new(client_config(suite));
        for size in [1, 2, 3, 5, 6, 7, 64, 1000, usize::MAX] {
            let mut client = client(&config);
            let mut established = shake_hands(&mut client, &mut context(suite).accept(), size).unwrap();
            assert!(!client.is_handshaking());
            assert_eq!(established.peer.server_name.as_deref(), Some("quickio.example"));
            assert_eq!(established.peer.alpn.as_deref(), Some(&b"http/1.1"[..]));
            let mut input = sealed(&mut client, b"x");
            assert_eq!(open_all(&mut established.session, &mut input).unwrap(), b"x", "{suite:?}");
        }
    }
}

#[test]
fn data_behind_the_handshake_stays_with_the_caller() {
    // With TLS 1.3 the client may send data together with its Finished. With TLS 1.2 only in a resumed handshake.
    for (suite, _) in suites() {
        let (config, context) = (Arc::new(client_config(suite)), context(suite));
        for round in 0..2 {
            let mut client = client(&config);
            let mut handshake = context.accept();
            client.writer().write_all(b"at once").unwrap();
            let mut rest = Vec::new();
            let mut established = loop {
                let mut output = Vec::new();
                rest.extend(written(&mut client));
                let (used, established) = handshake.receive(&rest, &mut output).unwrap();
                rest.drain(..used);
                deliver(&mut client, &output).unwrap();
                if let Some(established) = established {
                    break established;
                }
            };
            assert_eq!(established.peer.is_resumed, round == 1, "{suite:?}");
            if suite.tls13().is_some() || round == 1 {
                assert!(!rest.is_empty(), "{suite:?}: the data has come with the handshake");
            }
            rest.extend(written(&mut client));
            assert_eq!(open_all(&mut established.session, &mut rest).unwrap(), b"at once");
        }
    }
}

#[test]
fn sessions_are_resumed_by_ticket() {
    for (suite, version) in suites() {
        for certificate in ["server", "rsa"] {
            if version.version == ProtocolVersion::TLSv1_2 && needs_rsa(suite) != (certificate == "rsa") {
                continue;
            }
            let context = TlsContext::new(server_config(certificate, &[version]));
            let config = Arc::new(client_config(suite));
            for round in 0..3 {
                let mut client = client(&config);
                let mut established = shake_hands(&mut client, &mut context.accept(), usize::MAX).unwrap();
                assert_eq!(established.peer.is_resumed, round > 0, "{suite:?}");
                let mut output = Vec::new();
                established.session.seal([&b"x"[..]], &mut output);
                assert_eq!(deliver(&mut client, &output).unwrap(), b"x");
            }
        }
    }
}

#[test]
fn key_logs_of_the_configuration_still_work() {
    #[derive(Debug, Default)]
    struct Labels(std::sync::Mutex<Vec<String>>);
    impl rustls::KeyLog for Labels {
        fn log(&self, label: &str, _: &[u8], _: &[u8]) {
            self.0.lock().unwrap().push(label.to_owned());
        }
    }
    let labels = Arc::new(Labels::default());
    let mut config = server_config("server", &[&version::TLS13]);
    config.key_log = labels.clone();
    let client_config = Arc::new(client_config(suites()[0].0));
    shake_hands(&mut client(&client_config), &mut TlsContext::new(config).accept(), usize::MAX).unwrap();
    let labels = labels.0.lock().unwrap();
    assert!(labels.iter().any(|label| label == "SERVER_TRAFFIC_SECRET_0"), "{labels:?}");
    assert!(labels.iter().any(|label| label == "SERVER_HANDSHAKE_TRAFFIC_SECRET"), "{labels:?}");
}

fn client_with(
    certificate_name: Option<&str>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots());
    Arc::new(match certificate_name {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let (chain, key) = certificate(name);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

#[test]
fn certificates_of_clients_are_verified_when_sessions_are_resumed() {
    // The authority that is accepted now is another one, as if the certificate had expired meanwhile.
    let mut others = rustls::RootCertStore::empty();
    others.add(certificate("stranger").0.remove(0)).unwrap();
    for version in [&version::TLS12, &version::TLS13] {
        let config = asking_config();
        let now = TlsContext::new(config.clone()).with_client_certificates(client_verifier(roots()));
        let later = TlsContext::new(config).with_client_certificates(client_verifier(others.clone()));
        let client_config = client_with(Some("client"), version);
        for is_resumed in [false, true] {
            let mut client = client(&client_config);
            let established = shake_hands(&mut client, &mut now.accept(), usize::MAX).unwrap();
            assert_eq!(established.peer.is_resumed, is_resumed, "{version:?}");
            assert!(established.peer.certificate.is_some());
        }
        let mut client = client(&client_config);
        let failure = shake_hands(&mut client, &mut later.accept(), usize::MAX).unwrap_err();
        assert_eq!(failure.reason, TlsReason::CertificateInvalid, "{version:?}");
        let error = client.process_new_packets().unwrap_err();
        assert!(matches!(error, rustls::Error::AlertReceived(_)), "{version:?}: {error}");
    }
}

#[test]
fn certificates_of_clients_are_verified() {
    let context = TlsContext::new(asking_config()).with_client_certificates(client_verifier(roots()));
    for version in [&version::TLS13, &version::TLS12] {
        let mut client = client(&client_with(Some("client"), version));
        let established = shake_hands(&mut client, &mut context.accept(), usize::MAX).unwrap();
        assert_eq!(established.peer.certificate, Some(certificate("client").0.remove(0)));
    }
    for version in [&version::TLS13, &version::TLS12] {
        for (name, reason, alert) in [
            (None, TlsReason::CertificateMissing, AlertDescription::CertificateRequired),
            (Some("stranger"), TlsReason::CertificateInvalid, AlertDescription::UnknownCA),
        ] {
            let mut client = client(&client_with(name, version));
            let (failure, error) = failed(&mut client, &context);
            assert_eq!(failure.reason, reason, "{version:?}: {failure}");
            assert_eq!(error, Error::AlertReceived(alert), "{version:?}: {failure}");
        }
    }
}

/// Continues a handshake until the server refuses it. Returns the failure, and the client's error.
fn failed(client: &mut rustls::ClientConnection, context: &TlsContext) -> (TlsFailure, Error) {
    let mut handshake = context.accept();
    loop {
        let mut output = Vec::new();
        let sent = written(client);
        match handshake.receive(&sent, &mut output) {
            Ok((used, established)) => {
                assert_eq!(used, sent.len());
                assert!(established.is_none(), "the handshake succeeded");
                deliver(client, &output).unwrap();
            }
            Err(failure) => return (failure, deliver(client, &output).expect_err("an alert")),
        }
    }
}

#[test]
fn versions_and_suites_that_do_not_match_fail() {
    let (tls_13, tls_12) = (suites()[0].0, suites().last().unwrap().0);
    for (suite, versions, reason, alert) in [
        (tls_12, &version::TLS13, TlsReason::Version, AlertDescription::ProtocolVersion),
        (tls_13, &version::TLS12, TlsReason::Version, AlertDescription::ProtocolVersion),
    ] {
        let context = TlsContext::new(server_config("server", &[versions]));
        let (failure, error) = failed(&mut client(&Arc::new(client_config(suite))), &context);
        assert_eq!((failure.reason, &error), (reason, &Error::AlertReceived(alert)), "{failure}");
    }
    // A suite for RSA, and a certificate with another key.
    let rsa = suites().into_iter().find(|(suite, _)| needs_rsa(*suite)).unwrap().0;
    let context = TlsContext::new(server_config("server", &[&version::TLS12]));
    let (failure, error) = failed(&mut client(&Arc::new(client_config(rsa))), &context);
    assert_eq!(failure.reason, TlsReason::Incompatible, "{failure}");
    assert_eq!(error, Error::AlertReceived(AlertDescription::HandshakeFailure));
    // A client that accepts only signatures with RSA, for a suite and a certificate with ECDSA.
    let ecdsa = |(suite, _): &(rustls::SupportedCipherSuite, _)| format!("{suite:?}").contains("ECDHE_ECDSA");
    let mut config = client_config(suites().into_iter().find(ecdsa).unwrap().0);
    let mut provider = (**config.crypto_provider()).clone();
    let mapping = provider.signature_verification_algorithms.mapping;
    let first = mapping.iter().position(|(scheme, _)| format!("{scheme:?}").starts_with("RSA")).unwrap();
    provider.signature_verification_algorithms.mapping = &mapping[first..];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    config = builder
        .with_protocol_versions(&[&version::TLS12])
        .unwrap()
        .with_root_certificates(roots())
        .with_no_client_auth();
    let (failure, error) = failed(&mut client(&Arc::new(config)), &context);
    assert_eq!(failure.reason, TlsReason::Incompatible, "{failure}");
    assert_eq!(error, Error::AlertReceived(AlertDescription::HandshakeFailure));
    // No common protocol.
    let mut config = client_config(tls_13);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (failure, error) = failed(&mut client(&Arc::new(config)), &super::super::testing::context(tls_13));
    assert_eq!(failure.reason, TlsReason::Incompatible, "{failure}");
    assert_eq!(error, Error::AlertReceived(AlertDescription::NoApplicationProtocol));
}

#[test]
fn http_without_tls_is_told_from_other_bytes() {
    for http in
        [&b"G"[..], b"GET", b"GET / HTTP/1.1\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n", b"PROPFIND /x HTTP/1.0\r\n"]
    {
        let (failure, output) = refused(&context(suites()[0].0), http);
        assert_eq!((failure.reason, failure.alert), (TlsReason::PlainHttp, None));
        assert_eq!(output, b"", "the caller answers in HTTP");
    }
    for other in [
        &b"get / HTTP/1.1"[..],
        b"GET/",
        b"\x80\x2e\x01\x03\x01",
        b"/qio/ping=1",
        b"ABCDEFGHIJKLMNOPQ",
        &[23, 3, 3],
    ] {
        let (failure, output) = refused(&context(suites()[0].0), other);
        assert_eq!(failure.reason, TlsReason::NotTls, "{other:?}");
        assert_eq!(output, plain_alert(AlertDescription::UnexpectedMessage));
    }
    let (used, established) = context(suites()[0].0).accept().receive(b"", &mut Vec::new()).unwrap();
    assert!(used == 0 && established.is_none());
}

#[test]
fn bad_records_before_the_handshake_fail() {
    for (input, reason, alert) in [
        (&[22, 2, 0, 0, 9][..], TlsReason::Version, AlertDescription::ProtocolVersion),
        (&[22, 3, 1, 0x40, 1], TlsReason::Oversized, AlertDescription::RecordOverflow),
        // An empty record, and a message that is not a ClientHello.
        (&[22, 3, 1, 0, 0], TlsReason::Malformed, AlertDescription::DecodeError),
        (
            &[22, 3, 1, 0, 5, 20, 0, 0, 1, 0],
            TlsReason::UnexpectedMessage,
            AlertDescription::UnexpectedMessage,
        ),
        (&[22, 3, 1, 0, 5, 1, 0, 0, 1, 0], TlsReason::Malformed, AlertDescription::DecodeError),
    ] {
        let (failure, output) = refused(&context(suites()[0].0), input);
        assert_eq!((failure.reason, &output[..]), (reason, &plain_alert(alert)[..]), "{input:?}: {failure}");
    }
}

#[test]
fn a_client_hello_that_was_changed_anywhere_never_succeeds_by_chance() {
    let config = Arc::new(client_config(suites()[0].0));
    let hello = written(&mut client(&config));
    let context = context(suites()[0].0);
    for at in 0..hello.len() {
        let mut changed = hello.clone();
        changed[at] ^= 0x41;
        let mut output = Vec::new();
        match context.accept().receive(&changed, &mut output) {
            Ok((_, established)) => assert!(established.is_none()),
            Err(failure) => {
                assert_ne!(failure.reason, TlsReason::Internal, "byte {at}: {failure}");
                assert!(failure.reason == TlsReason::PlainHttp || output.len() >= 7, "byte {at}: {failure}");
            }
        }
    }
}

#[test]
fn the_bytes_of_a_handshake_are_bounded() {
    let asking = TlsContext::new(asking_config()).with_client_certificates(client_verifier(roots()));
    for (context, bound) in
        [(context(suites()[0].0), TLS_HANDSHAKE_BYTES_MAX), (asking, TLS_HANDSHAKE_CERTIFICATE_BYTES_MAX)]
    {
        for content in [1, 100, 16_000] {
            let mut handshake = context.accept();
            // A ClientHello of 16 MiB.
            let mut record = vec![22, 3, 1];
            record.extend_from_slice(&u16::try_from(content).unwrap().to_be_bytes());
            record.resize(5 + content, 0xff);
            record[5] = 1;
            let mut sent = 0;
            let failure = loop {
                let mut output = Vec::new();
                match handshake.receive(&record, &mut output) {
                    Ok(_) => sent += record.len(),
                    Err(failure) => {
                        assert_eq!(output, plain_alert(AlertDescription::DecodeError));
                        break failure;
                    }
                }
                record[5] = 0xff;
                assert!(sent <= bound && handshake.memory() < 3 * bound);
            };
            assert!(
                matches!(failure.reason, TlsReason::HandshakeTooLong | TlsReason::Malformed),
                "{content}: {failure}"
            );
        }
    }
}

#[test]
fn failures_after_the_servers_finished_have_an_encrypted_alert() {
    for (input, alert) in [
        (&[23, 3, 3, 0x41, 1][..], AlertDescription::RecordOverflow),
        (&[23, 2, 3, 0, 40], AlertDescription::ProtocolVersion),
        (
            &[23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8],
            AlertDescription::BadRecordMac,
        ),
    ] {
        for (suite, _) in suites().into_iter().filter(|(suite, _)| suite.tls13().is_some()) {
            let mut client = client(&Arc::new(client_config(suite)));
            let mut handshake = context(suite).accept();
            let mut output = Vec::new();
            handshake.receive(&written(&mut client), &mut output).unwrap();
            let failure = handshake.receive(input, &mut output).unwrap_err();
            let error = deliver(&mut client, &output).unwrap_err();
            assert_eq!(error, Error::AlertReceived(alert), "{suite:?}: {failure}");
        }
    }
}

#[test]
fn alerts_of_the_client_end_the_handshake() {
    for (description, reason) in
        [(0, TlsReason::Closed), (40, TlsReason::PeerAlert), (70, TlsReason::PeerAlert)]
    {
        for (suite, _) in suites() {
            let mut client = client(&Arc::new(client_config(suite)));
            let mut handshake = context(suite).accept();
            let mut output = Vec::new();
            handshake.receive(&written(&mut client), &mut output).unwrap();
            output.clear();
            let failure = handshake.receive(&[21, 3, 3, 0, 2, 2, description], &mut output).unwrap_err();
            assert_eq!(failure.reason, reason, "{suite:?}: {failure}");
            assert_eq!(output, b"", "an alert is not answered");
        }
    }
}
