//! The frames that a worker receives, and the commands that it can send.

use super::support::{Conversation, Transport};
use super::{
    Client, MS, ask, body, describe, eventually, execute, name, one_of_each_shard, received,
    received_eventually, request, request_code, start, tell, two_of_one_shard,
};
use serde_json::{Value, json};

#[test]
fn the_hello_describes_the_worker() {
    let server = start(json!({"greeting": "\"hello\"\n\u{e9}"}), &["--shards", "2"]);
    let mut client = server.websocket();
    let who = describe(&mut client);
    assert_eq!(
        who["hello"],
        json!({
            "version": 1, "app": "raw", "instance": 0, "instances": 1, "links": [4, 5], "script": super::RAW,
            "settings": {"greeting": "\"hello\"\n\u{e9}"}, "test": false,
        })
    );
    assert_eq!(who["leader"], who["pid"], "the worker leads a process group");
    assert_eq!(who["cwd"], json!(std::env::current_dir().unwrap().to_str().unwrap()), "that of the server");
    assert_eq!(who["link"], who["client"][0], "the link of the client's shard");
    assert_eq!(who["argv"], json!([super::RAW]), "without arguments");
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(who["cores"], json!(cores), "not the core of a shard");
    assert_eq!((&who["stdin"], &who["sockets"]), (&json!(""), &json!([3, 4, 5])), "and no other sockets");
    assert!(server.greeting.contains(&"applications: relay, clienttest, raw".into()));
}

#[test]
fn answers_are_passed_on_unchanged() {
    let server = start(json!({}), &[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        for (given, expected) in [
            (json!({}), r#"{"code":200,"data":null}"#),
            (json!({"data": {"a": [1, null]}}), r#"{"code":200,"data":{"a":[1,null]}}"#),
            (json!({"raw": r#"{ "a" : 1.50 }"#}), r#"{"code":200,"data":{ "a" : 1.50 }}"#),
            (json!({"code": 404}), r#"{"code":404,"data":null,"err_msg":null}"#),
            (json!({"code": 404, "message": ""}), r#"{"code":404,"data":null,"err_msg":""}"#),
            (
                json!({"code": 418, "message": "\"a\"\n\u{e9}", "data": [7]}),
                "{\"code\":418,\"data\":[7],\"err_msg\":\"\\\"a\\\"\\n\u{e9}\"}",
            ),
            (json!({"code": 65535, "message": "x"}), r#"{"code":65535,"data":null,"err_msg":"x"}"#),
            (json!({"code": 200, "message": "x"}), r#"{"code":200,"data":null}"#),
        ] {
            assert_eq!(body(&request(&mut client, json!([["answer", given]]))), expected);
        }
        let answer = client.request_code("/raw/over/any", "1", 200);
        assert_eq!(answer.body["data"], json!(["/raw/over/any", "1"]));
    }
}

#[test]
fn events_are_passed_on_unchanged() {
    let server = start(json!({}), &[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let mut echo = |path: &str, data: &str| client.request_code(path, data, 200).body["data"].take();
        assert_eq!(echo("/raw", "[ 1]"), json!(["/raw", "[ 1]"]));
        assert_eq!(echo("/raw/a/(b)//c/", "2"), json!(["/raw/a/b/c", "2"]), "the rest of the path, cleaned");
        assert_eq!(echo("/raw", "{no JSON"), json!(["/raw", "{no JSON"]), "the data are not checked");
        assert_eq!(echo("/raw/alone", "3"), json!(["/raw/alone", "3"]), "an event with a row of its own");
        let long = format!("{:?}", "\u{e9}".repeat(15_000));
        assert_eq!(echo("/raw", &long), json!(["/raw", long]));
        let nothing = echo("/raw", "");
        assert!(["", "null"].contains(&nothing[1].as_str().unwrap()), "no data means null: {nothing}");
        client.request_code("/raw/alone/below", "", 200);
        client.request_code("/raw/no-handler", "", 500);
        client.request_code("/rawer", "", 404);
    }
    let mut client = server.websocket();
    client.tell("/raw/quiet", "7");
    client.ask("/raw/loud", "8");
    let events = received(&mut client, "EVENT");
    assert!(events.contains(&json!(["/raw/quiet", 0, "7"])), "no answer is expected: {events:?}");
    assert!(events.contains(&json!(["/raw/loud", 1, "8"])), "{events:?}");
    assert_eq!(client.answers().len(), 1);
    let before = describe(&mut client)["time"].as_u64().unwrap();
    server.advance(MS(1234));
    assert_eq!(describe(&mut client)["time"], json!(before + 1234));
}

#[test]
fn an_event_can_stay_without_an_answer() {
    let server = start(json!({}), &["--worker-request-timeout", "5s"]);
    let mut client = server.websocket();
    ask(&mut client, &json!([["answer", {"code": 0}]]));
    execute(&mut client, json!([]));
    server.eventually_is("worker_requests", 0);
    server.advance(MS(6000));
    client.ping();
    assert!(client.answers().is_empty());
    assert_eq!(server.stats().value("worker_requests_timed_out"), 0, "the request has ended");
}

#[test]
fn large_frames_and_small_pieces() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let answer = request_code(&mut client, json!([["answer", {"fill": 700_000}]]), 200);
    assert_eq!(answer.body["data"].as_str().unwrap().len(), 700_000);
    // This broadcast exceeds every outbox, but it has no subscribers.
    execute(&mut client, json!([["broadcast", {"path": "/raw/nobody", "fill": 15 << 20}]]));
    // One frame byte by byte, and two frames in one piece.
    client.subscribe("/raw/room");
    let frame = |data: &str| {
        let length = char::from(36 + 9 + data.len() as u8);
        format!("\0\0\0{length}\u{2}\0\0\0{}\0\0\0\u{9}{}/raw/room{data}", "\0".repeat(20), "\0".repeat(8))
    };
    execute(&mut client, json!([["bytes", {"bytes": frame("1"), "pause_ms": 0}]]));
    execute(&mut client, json!([["bytes", {"bytes": frame("23") + &frame("456")}]]));
    client.ping();
    let data: Vec<String> = client.events().into_iter().map(|event| event.data).collect();
    assert_eq!(data, ["1", "23", "456"]);
}

#[test]
fn subscriptions_are_decided() {
    let server = start(json!({}), &[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let on = |client: &mut Box<dyn Conversation>, path: &str, steps: Value| {
            client.request("/qio/on", &json!([path, steps]).to_string()).code()
        };
        for (code, alone, below) in [(200, 200, 200), (0, 401, 404), (401, 401, 404), (404, 401, 404)] {
            let steps = json!([["answer", {"code": code}]]);
            assert_eq!(on(&mut client, &format!("/raw/ask/{code}"), steps.clone()), below, "{code}");
            assert_eq!(on(&mut client, "/raw/alone", steps), alone, "{code}");
            client.unsubscribe("/raw/alone");
        }
        for code in [400, 418, 420, 500] {
            let steps = json!([["answer", {"code": code}]]);
            assert_eq!(on(&mut client, "/raw/ask/it", steps), code, "passed on unchanged");
        }
        let refused = |client: &mut Box<dyn Conversation>, path: &str, code| {
            client.request_code("/qio/on", &format!("{path:?}"), code)
        };
        refused(&mut client, "/raw/nobody", 401);
        refused(&mut client, "/raw/nobody/below", 404);
        // Only subscribed clients receive broadcasts.
        for path in ["/raw/ask/200", "/raw/ask/401", "/raw/ask/it", "/raw/alone"] {
            execute(&mut client, json!([["broadcast", {"path": path, "data": path}]]));
        }
        client.ping();
        let paths: Vec<String> = client.events().into_iter().map(|event| event.path).collect();
        assert_eq!(paths, ["/raw/ask/200"]);
    }
}

#[test]
fn a_subscription_waits_for_its_decision() {
    let server = start(json!({}), &[]);
    let mut client = server.websocket();
    let on = |name: &str| json!([format!("/raw/ask/{name}"), [["hold", {"name": name}]]]).to_string();
    let pending = client.ask("/qio/on", &on("late"));
    let twice = client.request_code("/qio/on", &on("late"), 202);
    assert!(twice.text.ends_with("\"err_msg\":\"subscription pending\"}"), "{}", twice.text);
    execute(&mut client, json!([["broadcast", {"path": "/raw/ask/late", "data": "before"}]]));
    execute(&mut client, json!([["answer", {"held": "late"}]]));
    assert_eq!(client.answer(pending).code(), 200);
    execute(&mut client, json!([["broadcast", {"path": "/raw/ask/late", "data": "after"}]]));
    assert_eq!(client.event().data, "\"after\"");
    client.request_code("/qio/on", &on("late"), 200);
    // A subscription that the client ends before the decision does not begin, and the worker receives its end.
    let pending = client.ask("/qio/on", &on("given-up"));
    client.unsubscribe("/raw/ask/given-up");
    execute(&mut client, json!([["answer", {"held": "given-up"}]]));
    assert_eq!(client.answer(pending).code(), 200);
    execute(&mut client, json!([["broadcast", {"path": "/raw/ask/given-up"}]]));
    client.ping();
    assert!(client.events().is_empty());
    let me = name(&mut client);
    assert_eq!(received(&mut client, "OFF"), [json!(["/raw/ask/given-up", me])]);
}

#[test]
fn a_worker_receives_subscriptions_and_their_ends() {
    let server = start(json!({}), &[]);
    let mut observer = server.websocket();
    for transport in Transport::SOCKETS {
        let mut client = server.client(transport);
        let me = name(&mut client);
        client.request_code("/qio/on", r#"["/raw/ask/a/b", {"why": [1]}]"#, 200);
        client.subscribe("/raw/ask");
        client.subscribe("/raw/alone");
        client.subscribe("/raw/open");
        let on: Vec<Value> = received(&mut client, "ON");
        let expected = [
            json!(["/raw/ask/a/b", r#"{"why": [1]}"#]),
            json!(["/raw/ask", "null"]),
            json!(["/raw/alone", "null"]),
        ];
        assert_eq!(on[on.len() - 3..], expected, "but no subscriptions that need no decision");
        client.unsubscribe("/raw/ask");
        client.unsubscribe("/raw/alone");
        client.unsubscribe("/raw/never");
        let mine = |received: Vec<Value>| -> Vec<Value> {
            received.into_iter().filter(|off| off[1] == me).map(|off| off[0].clone()).collect()
        };
        assert_eq!(mine(received(&mut client, "OFF")), [json!("/raw/ask")], "only for events with `off`");
        client.reset();
        let mut ended = eventually("the ends of all subscriptions", || {
            Some(mine(received(&mut observer, "OFF"))).filter(|off| off.len() == 3)
        });
        ended.sort_by_key(Value::to_string);
        assert_eq!(ended, [json!("/raw/ask"), json!("/raw/ask/a/b"), json!("/raw/open")]);
    }
}

#[test]
fn callbacks_are_offered_and_answered() {
    let server = start(json!({}), &[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        let mut answer = request_code(&mut client, json!([["answer", {"callback": 1, "data": 0}]]), 200);
        // The worker chooses its own numbers. The client receives other ones.
        for number in [u32::MAX, 7, 1] {
            let steps = json!([["answer", {"callback": number, "data": number}]]);
            answer =
                client.request_code(&format!("/qio/callback/{}", answer.callback), &steps.to_string(), 200);
            assert_eq!(answer.body["data"], json!(number));
        }
        let fired = format!("/qio/callback/{}", answer.callback);
        let steps = json!([["answer", {"code": 418, "message": "no more"}]]);
        client.request_code(&fired, &steps.to_string(), 418);
        client.request_code(&fired, "1", 404);
        // An event can also offer a callback.
        execute(&mut client, json!([["send", {"path": "/news", "data": [1], "callback": 9}]]));
        let event = client.event();
        assert_eq!((event.path.as_str(), event.data.as_str()), ("/news", "[1]"));
        assert_ne!(event.callback, 0);
        client.tell(&format!("/qio/callback/{}", event.callback), "{no JSON");
        let replies = received(&mut client, "REPLY");
        assert_eq!(replies.last(), Some(&json!([9, 0, "{no JSON"])), "unchanged, and without a request");
        let before = &replies[replies.len() - 2];
        assert_eq!((&before[0], &before[1]), (&json!(1), &json!(1)), "and here with a request");
        assert!(received(&mut client, "DROPPED").is_empty());
    }
}

/// Returns the first number of each received frame of a type.
fn numbers(client: &mut Client, kind: &str) -> Vec<u64> {
    received(client, kind).iter().map(|received| received[0].as_u64().expect("a number")).collect()
}

/// Waits until `count` callbacks were dropped, and returns their numbers.
#[track_caller]
fn dropped(client: &mut Client, count: usize) -> Vec<u64> {
    received_eventually(client, "DROPPED", count);
    let mut numbers = numbers(client, "DROPPED");
    numbers.sort_unstable();
    numbers
}

#[test]
fn dropped_callbacks_are_reported() {
    let server = start(json!({}), &["--clients-cb-max-age", "15s"]);
    let mut client = server.websocket();
    let offer = |number: u32| json!([["answer", {"callback": number}]]);
    // A callback expires.
    let expired = request_code(&mut client, offer(1), 200).callback;
    server.advance(MS(14_999));
    assert!(received(&mut client, "DROPPED").is_empty());
    server.advance(MS(1));
    assert_eq!(dropped(&mut client, 1), [1]);
    client.request_code(&format!("/qio/callback/{expired}"), "1", 404);
    // A fifth evicts the oldest.
    for number in 2..=6 {
        request_code(&mut client, offer(number), 200);
    }
    assert_eq!(numbers(&mut client, "DROPPED"), [1, 2]);
    server.advance(MS(15_000));
    assert_eq!(dropped(&mut client, 6), [1, 2, 3, 4, 5, 6]);
    // An error offers no callback, and neither does an answer to an event without a callback.
    request_code(&mut client, json!([["answer", {"code": 400, "callback": 7}]]), 400);
    tell(&mut client, offer(8));
    request_code(&mut client, json!([["answer", {"callback": 9, "raw": "no JSON"}]]), 500);
    execute(&mut client, json!([["send", {"path": "", "callback": 10}]]));
    execute(&mut client, json!([["send", {"path": "/a", "raw": "no JSON", "callback": 11}]]));
    // A request that has ended cannot be answered again, and there is no client with this id.
    execute(&mut client, json!([["answer", {"request": 4_000_000_000u32, "callback": 12}]]));
    let mut stranger = name(&mut client);
    stranger[2] = json!(stranger[2].as_u64().unwrap() + 1000);
    execute(&mut client, json!([["send", {"path": "/a", "callback": 13, "client": stranger}]]));
    let of_no_subscription = json!(["/raw/ask/a", [["answer", {"callback": 14}]]]);
    client.request_code("/qio/on", &of_no_subscription.to_string(), 200);
    assert_eq!(dropped(&mut client, 14), (1..=14).collect::<Vec<_>>(), "each once");
    assert_eq!(server.stats().value("callbacks_open"), 0);
}

#[test]
fn callbacks_end_with_their_client() {
    let server = start(json!({}), &[]);
    let [mut client, mut other] = two_of_one_shard(&server);
    request_code(&mut client, json!([["answer", {"callback": 1}]]), 200);
    execute(&mut client, json!([["send", {"path": "/a", "callback": 2}], ["hold", {"name": "gone"}]]));
    assert!(received(&mut other, "DROPPED").is_empty());
    client.reset();
    assert_eq!(dropped(&mut other, 2), [1, 2]);
    // An answer for a disconnected client is dropped.
    execute(&mut other, json!([["answer", {"held": "gone", "callback": 3}]]));
    assert_eq!(dropped(&mut other, 3)[2], 3);
}

#[test]
fn timers_follow_the_clock() {
    let server = start(json!({}), &[]);
    for mut client in one_of_each_shard(&server, Transport::Raw) {
        let fired = |client: &mut Client| numbers(client, "TIMER");
        let before = fired(&mut client).len();
        let new = |client: &mut Client| fired(client).split_off(before);
        execute(
            &mut client,
            json!([["timer", {"number": 1, "ms": 1000}], ["timer", {"number": 2, "ms": 1500}]]),
        );
        server.advance(MS(999));
        assert!(new(&mut client).is_empty());
        server.advance(MS(1));
        assert_eq!(new(&mut client), [1]);
        let time = describe(&mut client)["time"].take();
        assert_eq!(received(&mut client, "TIMER").last().unwrap()[1], time, "the frame has the time");
        server.advance(MS(5000));
        assert_eq!(new(&mut client), [1, 2], "once each");
        // A repeated timer fires until it is cancelled.
        execute(&mut client, json!([["timer", {"number": 3, "ms": 100, "repeat": true}]]));
        (0..3).for_each(|_| server.advance(MS(100)));
        assert_eq!(new(&mut client), [1, 2, 3, 3, 3]);
        execute(&mut client, json!([["cancel", {"number": 3}], ["cancel", {"number": 99}]]));
        server.advance(MS(1000));
        assert_eq!(new(&mut client), [1, 2, 3, 3, 3]);
        // A timer that is set again fires only at its new time.
        execute(
            &mut client,
            json!([["timer", {"number": 1, "ms": 1000}], ["timer", {"number": 1, "ms": 2000}]]),
        );
        server.advance(MS(1999));
        assert_eq!(new(&mut client).len(), 5);
        server.advance(MS(1));
        assert_eq!(new(&mut client), [1, 2, 3, 3, 3, 1]);
        execute(&mut client, json!([["timer", {"number": 4, "ms": 0}]]));
        server.advance(MS(1));
        assert_eq!(new(&mut client)[6..], [4]);
    }
}

#[test]
fn a_worker_has_timers_from_the_start() {
    let timers = json!([{"timer": 7, "ms": 1000}, {"timer": 8, "ms": 2500}]);
    let server = start(json!({"timers": timers}), &[]);
    let [mut client, _other] = one_of_each_shard(&server, Transport::Raw);
    // Each fires once for the worker, not once for each link, and can be cancelled like any other.
    for (ms, expected) in
        [(999, &[][..]), (1, &[7]), (1000, &[7, 7]), (500, &[7, 7, 8]), (500, &[7, 7, 8, 7])]
    {
        server.advance(MS(ms));
        assert_eq!(numbers(&mut client, "TIMER"), expected);
    }
    execute(&mut client, json!([["cancel", {"number": 7}]]));
    server.advance(MS(2000));
    assert_eq!(numbers(&mut client, "TIMER"), [7, 7, 8, 7, 8]);
}

#[test]
fn a_worker_receives_the_end_of_watched_clients() {
    let server = start(json!({}), &[]);
    let [mut client, mut other] = two_of_one_shard(&server);
    let gone = name(&mut client);
    client.subscribe("/raw/room");
    execute(&mut client, json!([["watch", {}]]));
    execute(&mut other, json!([["watch", {}]]));
    assert!(received(&mut other, "GONE").is_empty());
    client.reset();
    assert_eq!(received_eventually(&mut other, "GONE", 1), [json!([gone])]);
    let all = request_code(&mut other, json!([["told", {}]]), 200).body["data"].take();
    let all = all.as_array().unwrap();
    assert_eq!(all.last().unwrap()[0], "GONE", "after all other frames of the client: {all:?}");
    assert_eq!(all[all.len() - 2], json!(["OFF", "/raw/room", gone]));
    // The client has disconnected before it is watched.
    execute(&mut other, json!([["watch", {"client": gone}]]));
    assert_eq!(received_eventually(&mut other, "GONE", 2), [json!([gone]), json!([gone])]);
}

#[test]
fn a_worker_sends_to_closes_and_moves_clients() {
    let server = start(json!({}), &[]);
    for transport in Transport::SOCKETS {
        let [mut client, mut other] = one_of_each_shard(&server, transport);
        let names = [name(&mut client), name(&mut other)];
        execute(
            &mut client,
            json!([["send", {"path": "/any/(where)//", "data": {"a": 1}}], ["send", {"path": "/none"}]]),
        );
        let (first, second) = (client.event(), client.event());
        assert_eq!(
            (first.path.as_str(), first.callback, first.data.as_str()),
            ("/any/where", 0, r#"{"a":1}"#)
        );
        assert_eq!((second.path.as_str(), second.data.as_str()), ("/none", "null"));
        // Events for another client go over the link of its shard.
        execute(
            &mut client,
            json!([["send", {"path": "/for/you", "client": names[1], "link": 1, "data": 5}]]),
        );
        assert_eq!(other.event().path, "/for/you");
        assert!(client.events().is_empty());
        // Events before a close are sent before the connection is closed.
        tell(&mut client, json!([["send", {"path": "/last", "data": 1}], ["close", {}]]));
        assert_eq!(client.text(), "/last:0=1");
        client.expect_closed(1000, "closed by the application");
        tell(&mut other, json!([["move", {"address": "there.example:80"}]]));
        assert_eq!(other.text(), r#"/qio/move:0="there.example:80""#);
        other.expect_closed(1000, "closed by the application");
        // Commands for disconnected clients are ignored.
        let mut third = server.client(transport);
        for name in names {
            let gone = json!({"client": name});
            let to_move = json!({"client": name, "address": "x"});
            execute(
                &mut third,
                json!([["close", gone], ["send", {"path": "/a", "client": name}], ["move", to_move]]),
            );
        }
    }
    let stats = server.stats();
    assert_eq!((stats.value("worker_frames_refused"), stats.value("workers_started")), (0, 1));
}

#[test]
fn broadcasts_reach_subscribers_of_all_shards_in_order() {
    let server = start(json!({}), &[]);
    for transport in Transport::SOCKETS {
        let mut clients = one_of_each_shard(&server, transport);
        clients.iter_mut().for_each(|client| client.subscribe("/raw/room"));
        let mut steps: Vec<Value> =
            (0..200).map(|nth| json!(["broadcast", {"path": "/raw/room", "data": nth, "link": 1}])).collect();
        steps.push(json!(["broadcast", {"path": "/elsewhere", "link": 1}]));
        execute(&mut clients[0], Value::Array(steps));
        for client in &mut clients {
            for nth in 0..200 {
                let event = client.event();
                assert_eq!(
                    (event.path.as_str(), event.callback, event.data),
                    ("/raw/room", 0, nth.to_string())
                );
            }
        }
        clients[0].unsubscribe("/raw/room");
        execute(&mut clients[1], json!([["broadcast", {"path": "/raw/room", "data": "last"}]]));
        assert_eq!(clients[1].event().data, "\"last\"");
        clients[0].ping();
        assert!(clients[0].events().is_empty());
    }
}

#[test]
fn events_of_a_client_arrive_in_order() {
    let server = start(json!({}), &[]);
    let mut client = server.client(Transport::Raw);
    let mut bytes = Vec::new();
    for nth in 0..500 {
        bytes.extend(client.framed(format!("/raw/{nth}:0={nth}")));
        bytes.extend(client.framed(format!("/qio/on:0=\"/raw/ask/{nth}\"")));
        bytes.extend(client.framed(format!("/qio/off:0=\"/raw/ask/{nth}\"")));
    }
    client.send(&bytes);
    let all = request_code(&mut client, json!([["told", {}]]), 200).body["data"].take();
    let seen: Vec<&Value> = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|received| received[0] != "OFF")
        .map(|received| &received[1])
        .collect();
    let expected: Vec<Value> =
        (0..500).flat_map(|nth| [json!(format!("/raw/{nth}")), json!(format!("/raw/ask/{nth}"))]).collect();
    assert_eq!(seen.len(), expected.len());
    assert!(seen.into_iter().eq(&expected));
}
