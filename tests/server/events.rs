//! protocol.md, sections 1 to 4: event text, paths, answers, routing, and the built-in events, over every transport.

use crate::support::{Conversation, Server, Transport, wire};

#[test]
fn answers_have_the_documented_text() {
    let server = Server::start(&["--public-address", "qio.example.com:443"]);
    let table = [
        ("/qio/ping:1=null", r#"/qio/callback/1:0={"code":200,"data":null}"#),
        ("/qio/ping:2=", r#"/qio/callback/2:0={"code":200,"data":null}"#),
        (r#"/qio/ping:3={"a":[1,2]}"#, r#"/qio/callback/3:0={"code":200,"data":null}"#),
        (
            "/qio/ping:18446744073709551615=1",
            r#"/qio/callback/18446744073709551615:0={"code":200,"data":null}"#,
        ),
        ("/qio/ping:007=1", r#"/qio/callback/7:0={"code":200,"data":null}"#),
        ("/qio/hostname:4=null", r#"/qio/callback/4:0={"code":200,"data":"qio.example.com:443"}"#),
        ("/qio/limits:4=null", r#"/qio/callback/4:0={"code":200,"data":{"message_bytes_max":65536}}"#),
        // No handler.
        ("/nowhere:5=null", r#"/qio/callback/5:0={"code":404,"data":null,"err_msg":null}"#),
        (":6=null", r#"/qio/callback/6:0={"code":404,"data":null,"err_msg":null}"#),
        ("@!?é:7=null", r#"/qio/callback/7:0={"code":404,"data":null,"err_msg":null}"#),
        ("/:8=", r#"/qio/callback/8:0={"code":404,"data":null,"err_msg":null}"#),
        ("/qio:9=", r#"/qio/callback/9:0={"code":404,"data":null,"err_msg":null}"#),
        // Paths are cleaned.
        ("/qio//ping//:10=", r#"/qio/callback/10:0={"code":200,"data":null}"#),
        ("/@qio/(pi)n.g>>>>:11=", r#"/qio/callback/11:0={"code":200,"data":null}"#),
        ("/é/@/qio/ /ping/é/:12=", r#"/qio/callback/12:0={"code":200,"data":null}"#),
        // Routing matches whole segments, and takes the nearest event that has children.
        ("/qio/ping/child:13=", r#"/qio/callback/13:0={"code":404,"data":null,"err_msg":null}"#),
        ("/qio/pingpong:14=", r#"/qio/callback/14:0={"code":404,"data":null,"err_msg":null}"#),
        ("/relayed:15=", r#"/qio/callback/15:0={"code":404,"data":null,"err_msg":null}"#),
        ("/relay/to/nobody:16=1", r#"/qio/callback/16:0={"code":200,"data":null}"#),
        (
            "/clienttest/error/420:17=",
            r#"/qio/callback/17:0={"code":420,"data":"you requested an error?","err_msg":"420s are fun!"}"#,
        ),
        (
            "/clienttest/error/500:18=1",
            r#"/qio/callback/18:0={"code":500,"data":"you requested an error?","err_msg":"500s are fun!"}"#,
        ),
    ];
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        for (event, answer) in table {
            client.send_text(event);
            assert_eq!(client.text(), answer, "{transport:?}: {event}");
        }
        // All of them in one piece.
        client.send_texts(&table.map(|(event, _)| event.to_string()));
        for (_, answer) in table {
            assert_eq!(client.text(), answer, "{transport:?}");
        }
    }
    let rounds = 2 * Transport::ALL.len() as u64;
    assert!(server.stats().value("events_received") >= rounds * table.len() as u64);
    assert!(server.stats().value("events_unrouted") >= rounds * 8);
}

#[test]
fn data_passes_through_byte_for_byte() {
    let server = Server::start(&[]);
    let long = format!("\"{}\"", "x".repeat(60_000));
    let data = [
        r#"{ "a" : [1, 2.50, 1e400, "\u00e9é"] , "a":2}"#,
        "  7",
        "\"=:=:/qio/callback/1:1=\"",
        "-0.0000000000000000000000000000000000000000000001",
        &long,
        // Over HTTP, a line end is the end of an event.
        "[1,\r\n\t\"\u{7f} \u{10ffff}\" ]",
    ];
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let data = if Transport::HTTP.contains(&transport) { &data[..data.len() - 1] } else { &data };
        for (data, id) in data.iter().zip(1..) {
            client.send_text(&format!("/clienttest/echo:{id}={data}"));
            let text = client.text();
            let body =
                text.strip_prefix(&format!("/qio/callback/{id}:{id}=")).expect("an answer with a callback");
            assert_eq!(body, format!("{{\"code\":200,\"data\":{data}}}"), "{transport:?}");
        }
        // No data is null, in both directions.
        client.send_text("/clienttest/echo:9=");
        assert!(client.text().ends_with(r#"={"code":200,"data":null}"#));
        // Data that is not JSON is not passed on.
        for data in ["not JSON at all {{{[", "\"\u{0}\"", "1,\"code\":403"] {
            client.send_text(&format!("/clienttest/echo:9={data}"));
            assert!(client.text().starts_with(r#"/qio/callback/9:0={"code":400,"data":null,"#), "{data}");
        }
    }
}

#[test]
fn events_without_a_callback_are_not_answered() {
    let server = Server::start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        for event in [
            "/qio/ping",
            "/nowhere",
            "/clienttest/error/500",
            "/relay/x",
            "/clienttest/echo",
            "/qio/callback/1",
        ] {
            client.tell(event, "1");
        }
        client.tell("/qio/on", "\"/relay/y\"");
        client.tell("/qio/on", "5");
        client.ping();
        assert!(client.events().is_empty() && client.answers().is_empty());
        // The subscription exists nevertheless.
        client.tell("/relay/y", "1");
        assert_eq!(client.event().path, "/relay/y");
    }
}

#[test]
fn many_events_in_one_piece_are_answered_in_order() {
    let server = Server::start(&[]);
    const EVENTS: u64 = 2000;
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        client.send_texts(&Vec::from_iter((1..=EVENTS).map(|id| format!("/qio/ping:{id}="))));
        for id in 1..=EVENTS {
            assert_eq!(client.text(), format!("/qio/callback/{id}:0={{\"code\":200,\"data\":null}}"));
        }
    }
}

#[test]
fn events_of_every_length() {
    let server = Server::start(&["--receive-buffer-bytes", "256"]);
    // Near the lengths at which a frame's head grows, and at which receive buffers end.
    let lengths = (0..140).chain(240..270).chain(500..520).chain([65_000, 65_400]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        for length in lengths.clone() {
            let data = format!("\"{}\"", "d".repeat(length));
            assert_eq!(client.request("/clienttest/echo", &data).body["data"], "d".repeat(length));
        }
    }
}

#[test]
fn websocket_fragments_with_control_frames_between() {
    let server = Server::start(&[]);
    let event = "/clienttest/echo:1=\"gr\u{fc}\u{df}e\"".as_bytes();
    // At every split, also within a character.
    for split in 0..=event.len() {
        let mut client = server.websocket();
        let frames = [
            wire::Frame::text(&event[..split]).unfinished(),
            wire::Frame::new(wire::PING, "are you there?"),
            wire::Frame::new(wire::CONTINUATION, "").unfinished(),
            wire::Frame::new(wire::PONG, "nobody asked"),
            wire::Frame::new(wire::CONTINUATION, &event[split..]).masked_with([0xff, 0, 1, 2]),
        ];
        client.send(&frames.iter().flat_map(wire::Frame::bytes).collect::<Vec<u8>>());
        let pong = client.frame().expect("a pong");
        assert_eq!((pong.opcode, pong.payload.as_slice()), (wire::PONG, &b"are you there?"[..]));
        assert_eq!(client.answer(1).body["data"], "gr\u{fc}\u{df}e", "split at {split}");
    }
}

#[test]
fn pings_are_answered_with_their_payload() {
    let server = Server::start(&[]);
    let mut client = server.websocket();
    for length in [0, 1, 4, 125] {
        let payload = vec![0xa5; length];
        client.send(&wire::Frame::new(wire::PING, &payload).bytes());
        let pong = client.frame().expect("a pong");
        assert_eq!((pong.opcode, pong.payload), (wire::PONG, payload));
    }
}
