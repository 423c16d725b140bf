//! History and recovery over real sockets, on all transports: protocol.md, "History".

use crate::settings_file::SettingsFile;
use crate::support::server::converse;
use crate::support::{Conversation, Transport};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const RULES: &str = "
[[rules]]
path = '/relay/all/*'
history = 10000
[[rules]]
path = '/relay/few/*'
history = 5
history-ttl = '1m'
[[rules]]
path = '/relay/closed/*'
history = 5
on = 'user'
";

/// The answer to a subscription with options.
#[derive(Debug, PartialEq)]
struct Recovered {
    epoch: String,
    at: u64,
    events: u64,
    complete: bool,
}

fn subscribe(client: &mut dyn Conversation, path: &str, options: &str) -> Recovered {
    let answer = client.request_code("/qio/on", &format!("[\"{path}\",null,{options}]"), 200);
    let data = &answer.body["data"];
    let (epoch, number) = data["at"].as_str().unwrap().split_once('.').unwrap();
    Recovered {
        epoch: epoch.to_owned(),
        at: number.parse().unwrap(),
        events: data["events"].as_u64().unwrap(),
        complete: data["complete"].as_bool().unwrap(),
    }
}

/// Returns the next event of a path with its number. The beginning of an epoch is skipped.
fn numbered(client: &mut dyn Conversation, path: &str) -> (u64, String) {
    loop {
        let event = client.event();
        if event.path == "/qio/heartbeat" || event.path == "/qio/at" {
            continue;
        }
        let number = event.path.strip_prefix("/qio/at/").and_then(|rest| rest.strip_suffix(path));
        return (number.unwrap_or_else(|| panic!("{event:?}")).parse().unwrap(), event.data);
    }
}

fn refused(client: &mut dyn Conversation, path: &str, data: &str, code: u64, message: &str) {
    let answer = client.request_code(path, data, code);
    assert_eq!(answer.body["err_msg"], message, "{data}");
}

#[test]
fn a_client_that_comes_back_gets_what_it_has_missed_on_all_transports() {
    let settings = SettingsFile::new("history-transports", RULES);
    let server = settings.start(&["--shards", "2"]);
    let mut sender = server.conversation(Transport::Raw);
    for (transport, name) in Transport::ALL.into_iter().zip(["a", "b", "c", "d"]) {
        let path = format!("/relay/few/{name}");
        let mut plain = server.conversation(transport);
        plain.subscribe(&path);
        let mut client = server.conversation(transport);
        let first = subscribe(&mut *client, &path, "{\"history\":3}");
        assert_eq!((first.at, first.events, first.complete), (0, 0, true));
        sender.request_code(&path, "{\"n\":1}", 200);
        // The first event of an epoch has its name before it.
        let begin = client.event();
        let at: (String, String) = serde_json::from_str(&begin.data).unwrap();
        assert_eq!((begin.path.as_str(), at.0.as_str()), ("/qio/at", path.as_str()));
        assert_eq!(numbered(&mut *client, &path), (1, "{\"n\":1}".into()));
        let epoch = at.1.strip_suffix(".0").unwrap().to_owned();
        drop(client);
        (2..=4).for_each(|n| drop(sender.request_code(&path, &format!("{{\"n\":{n}}}"), 200)));

        let mut client = server.conversation(transport);
        let back = subscribe(&mut *client, &path, &format!("{{\"since\":\"{epoch}.1\"}}"));
        let expected = Recovered { epoch: epoch.clone(), at: 4, events: 3, complete: true };
        assert_eq!(back, expected);
        sender.request_code(&path, "5", 200);
        let events: Vec<(u64, String)> = (0..4).map(|_| numbered(&mut *client, &path)).collect();
        let texts = ["{\"n\":2}", "{\"n\":3}", "{\"n\":4}", "5"];
        assert_eq!(events, (2..).zip(texts.map(str::to_owned)).collect::<Vec<_>>());
        refused(
            &mut *client,
            "/qio/on",
            &format!("[\"{path}\",null,{{\"history\":1}}]"),
            409,
            "already subscribed",
        );
        client.unsubscribe(&path);

        // More were sent than the rule keeps, and the last ones are asked for in that case.
        (6..=7).for_each(|n| drop(sender.request_code(&path, &n.to_string(), 200)));
        let late = subscribe(&mut *client, &path, &format!("{{\"since\":\"{epoch}.1\"}}"));
        assert_eq!((late.at, late.events, late.complete), (7, 0, false));
        client.unsubscribe(&path);
        let late = subscribe(&mut *client, &path, &format!("{{\"since\":\"{epoch}.1\",\"history\":2}}"));
        assert_eq!((late.at, late.events, late.complete), (7, 2, false));
        assert_eq!(numbered(&mut *client, &path), (6, "6".into()));
        assert_eq!(numbered(&mut *client, &path), (7, "7".into()));

        // Whoever did not ask sees nothing of it.
        for n in ["{\"n\":1}", "{\"n\":2}", "{\"n\":3}", "{\"n\":4}", "5", "6", "7"] {
            let event = plain.event();
            assert_eq!((event.path.as_str(), event.data.as_str()), (path.as_str(), n));
        }

        let page = client.request_code("/qio/history", &format!("\"{path}\""), 200);
        assert_eq!(page.body["data"]["at"], format!("{epoch}.7"));
        assert_eq!(page.body["data"]["events"].to_string(), r#"[[3,{"n":3}],[4,{"n":4}],[5,5],[6,6],[7,7]]"#);
        let options = format!("[\"{path}\",{{\"limit\":2,\"before\":\"{epoch}.6\"}}]");
        let page = client.request_code("/qio/history", &options, 200);
        assert_eq!(page.body["data"]["events"].to_string(), r#"[[4,{"n":4}],[5,5]]"#);
    }
    let stats = server.stats();
    assert_eq!((stats.value("history_paths"), stats.value("history_events")), (4, 20));
    let few = &stats.0["rules"]["/relay/few/*"];
    assert_eq!(
        (&few["rule_recoveries_complete"], &few["rule_recoveries_incomplete"]),
        (&4.into(), &8.into())
    );
    // The events are too old after a minute, and are dropped without anybody who asks for them.
    server.advance(Duration::from_secs(61));
    server.eventually_is("history_events", 0);
    assert_eq!(server.stats().value("history_paths"), 4);
}

#[test]
fn what_cannot_be_answered_is_refused() {
    let settings = SettingsFile::new("history-refused", RULES);
    let server = settings.start(&[]);
    for transport in Transport::ALL {
        let mut client = server.conversation(transport);
        for (path, data, code, message) in [
            ("/qio/on", r#"["/relay/none",null,{"history":1}]"#, 400, "no history"),
            ("/qio/on", r#"["/relay/few/a",null,{"hisotry":1}]"#, 400, "invalid options"),
            ("/qio/on", r#"["/relay/few/a",null,{"since":"x"}]"#, 400, "invalid options"),
            ("/qio/on", r#"["/relay/few/a",null,7]"#, 400, "invalid options"),
            ("/qio/on", r#"["/relay/few/a",null,{},1]"#, 400, "invalid json ev_path"),
            ("/qio/on", r#"["/relay/closed/a",null,{"history":1}]"#, 401, "authenticate first"),
            ("/qio/history", r#""/relay/closed/a""#, 401, "authenticate first"),
            ("/qio/history", r#""/relay/none""#, 400, "no history"),
            ("/qio/history", r#"["/relay/few/a",{"limits":1}]"#, 400, "invalid json ev_path or options"),
            ("/qio/history", r#"["/relay/few/a",{"before":"1"}]"#, 400, "invalid options"),
            ("/qio/history", "7", 400, "invalid json ev_path or options"),
        ] {
            refused(&mut *client, path, data, code, message);
        }
        client.request_code("/qio/on", r#"["/nowhere",null,{"history":1}]"#, 400);
        client.request_code("/qio/history", r#""/qio/ping""#, 400);
        client.request_code("/qio/on", r#"["/relay/none",null,{}]"#, 200);
    }
}

#[test]
fn a_restart_and_changed_rules_are_told() {
    let settings = SettingsFile::new("history-restart", RULES);
    let path = "/relay/few/a";
    let mut server = settings.start(&[]);
    let mut client = server.conversation(Transport::WebSocket);
    client.request_code(path, "1", 200);
    let first = subscribe(&mut *client, path, "{\"history\":0}");
    assert_eq!((first.at, first.events), (1, 0));
    drop(client);
    server.eventually_is("clients", 0);
    server.signal("TERM");
    server.exit();

    let server = settings.start(&[]);
    let mut client = server.conversation(Transport::WebSocket);
    client.request_code(path, "2", 200);
    let since = format!("{{\"since\":\"{}.1\"}}", first.epoch);
    let back = subscribe(&mut *client, path, &since);
    assert!(!back.complete && back.epoch != first.epoch, "{back:?}");

    // Without the rule, its events are forgotten, and a subscription goes on without numbers.
    settings.write("");
    server.signal("HUP");
    server.log_with("without a restart: rules");
    server.advance(Duration::from_secs(2));
    server.eventually_is("history_events", 0);
    client.request_code(path, "3", 200);
    let event = client.event();
    assert_eq!((event.path.as_str(), event.data.as_str()), (path, "3"));
}

/// The data that each reader has got, by the number.
type Seen = BTreeMap<u64, String>;

/// The event after which readers stop.
const END: &str = "\"end\"";

/// Reads a path on one connection after another, until the last event. Returns the events, and how often some were missed.
fn read_with_interruptions(address: &str, transport: Transport, path: &str, seed: u64) -> (Seen, u64) {
    let (mut seen, mut incomplete, mut random) = (Seen::new(), 0, seed);
    let mut position: Option<(String, u64)> = None;
    loop {
        let mut client = converse(address, transport);
        let options = match &position {
            Some((epoch, number)) => format!("{{\"since\":\"{epoch}.{number}\",\"history\":1}}"),
            None => "{\"history\":10000}".to_owned(),
        };
        let answer = subscribe(&mut *client, path, &options);
        let mut number = answer.at - answer.events;
        match &position {
            Some((epoch, before)) if answer.complete => assert_eq!((epoch, *before), (&answer.epoch, number)),
            Some(_) => incomplete += 1,
            None => {}
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        for _ in 0..1 + (random >> 33) % 40 {
            let (next, data) = numbered(&mut *client, path);
            assert_eq!(next, number + 1, "the numbers ascend by one");
            number = next;
            let is_last = data == END;
            assert_eq!(seen.insert(number, data), None, "event {number} came twice");
            if is_last {
                return (seen, incomplete);
            }
        }
        position = Some((answer.epoch, number));
    }
}

#[test]
fn readers_that_reconnect_at_random_see_everything_or_are_told() {
    const READERS: usize = 120;
    const SENDERS: u64 = 4;
    const EVENTS: u64 = 500;
    let settings = SettingsFile::new("history-random", RULES);
    // Sessions of readers that have left count until they time out.
    let server = settings.start(&["--shards", "2", "--connections-per-address-max", "0"]);
    let address: Arc<str> = server.address().into();
    let paths = ["/relay/all/x", "/relay/few/x"];
    let readers: Vec<_> = (0..READERS)
        .map(|reader| {
            let address = Arc::clone(&address);
            let (transport, path) = (Transport::ALL[reader % 4], paths[reader / 4 % 2]);
            let read = move || (path, read_with_interruptions(&address, transport, path, reader as u64));
            thread::spawn(read)
        })
        .collect();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let address = Arc::clone(&address);
            thread::spawn(move || {
                let mut client = converse(&address, Transport::ALL[sender as usize]);
                for event in 0..EVENTS {
                    for path in paths {
                        client.request_code(path, &format!("[{sender},{event}]"), 200);
                    }
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    let mut client = server.conversation(Transport::Raw);
    paths.iter().for_each(|path| drop(client.request_code(path, END, 200)));
    let mut all: BTreeMap<&str, Seen> = BTreeMap::new();
    let (mut missed, mut views) = (0, 0);
    for reader in readers {
        let (path, (seen, incomplete)) = reader.join().unwrap();
        if path == paths[0] {
            assert_eq!((seen.len() as u64, incomplete), (SENDERS * EVENTS + 1, 0), "nobody misses anything");
        }
        missed += incomplete;
        views += 1;
        let known = all.entry(path).or_default();
        for (number, data) in seen {
            let before = known.entry(number).or_insert_with(|| data.clone());
            assert_eq!(*before, data, "all readers agree on event {number} of {path}");
        }
    }
    assert_eq!(views, READERS);
    // The events of each sender are in order.
    for seen in all.values() {
        let mut last = [-1; SENDERS as usize];
        for data in seen.values().filter(|data| *data != END) {
            let [sender, event]: [i64; 2] = serde_json::from_str(data).unwrap();
            assert!(std::mem::replace(&mut last[sender as usize], event) < event);
        }
    }
    println!("events were missed {missed} times, and that was told");
    let stats = server.stats();
    assert_eq!((stats.value("mesh_refused"), stats.value("recoveries")), (0, 0));
    let number = |name: &str| stats.0["rules"]["/relay/all/*"][name].as_u64();
    assert_eq!(number("rule_recoveries_incomplete"), Some(0));
}
