//! The tests of this module, with a client of rustls as the other end.

use super::testing::*;
use super::*;

#[test]
fn data_passes_in_both_directions_with_each_suite() {
    for (suite, _) in suites() {
        let (mut client, mut session) = connected(suite);
        let mut input = sealed(&mut client, b"from the client");
        assert_eq!(open_all(&mut session, &mut input).unwrap(), b"from the client", "{suite:?}");
        let mut output = Vec::new();
        session.seal([&b"from "[..], b"", b"the server"], &mut output);
        assert_eq!(output.len(), {
            let (_, fresh) = connected(suite);
            fresh.sealed_len(15)
        });
        deliver(&mut client, &output).unwrap();
        assert_eq!(received(&mut client), b"from the server", "{suite:?}");
    }
}

#[test]
fn a_session_is_small() {
    assert!(size_of::<TlsSession>() <= 176, "{} bytes", size_of::<TlsSession>());
}
