//! Benchmarks of event texts, paths and routers and of the subscription table against naive twins.
//!
//! `cargo bench --bench tables` runs all groups, `cargo bench --bench tables -- route` one of them.

use std::collections::{HashMap, HashSet};
use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use memchr::{memchr, memchr_iter};
use quickio::client::subscriptions::{SubscribeOutcome, Subscriptions};
use quickio::event::find::find_byte;
use quickio::event::path::{Path, PathRef};
use quickio::event::router::Router;
use quickio::event::text::{self, AnswerText};
use quickio::rules::{Access, Buckets, Rate, Rule, RuleAction, RuleSet, Subject};

#[path = "../tests/naive/mod.rs"]
mod naive;

const TEXT: &str = r#"/chat/say:7={"text":"hi"}"#;
const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: quickio.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n\
    Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nOrigin: http://example\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nConnection: keep-alive, Upgrade\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: quickio\r\n\r\n";
const HOSTILE_BYTES: usize = 64 * 1024;

fn parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let hostile = "/".repeat(HOSTILE_BYTES);
    for (name, text) in [("chat", TEXT), ("64 KiB of slashes", &hostile)] {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| b.iter(|| text::parse(black_box(text))));
        group.bench_function(format!("{name}, naive"), |b| b.iter(|| naive::parse(black_box(text))));
    }
}

/// The search for a byte: the `:` of event texts of 20 to 200 bytes, and all line ends of a request's head of 500 bytes.
fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("find");
    for (path_len, text_len) in [(9, 20), (20, 60), (40, 200), (150, 200)] {
        let text = format!("{}:0={}", "/".repeat(path_len), "x".repeat(text_len - path_len - 3));
        let name = |search| format!("colon behind {path_len} bytes, {search}");
        group.bench_function(name("find_byte"), |b| b.iter(|| find_byte(black_box(text.as_bytes()), b':')));
        group.bench_function(name("memchr"), |b| b.iter(|| memchr(b':', black_box(text.as_bytes()))));
        group.bench_function(name("naive"), |b| {
            b.iter(|| black_box(text.as_bytes()).iter().position(|byte| *byte == b':'));
        });
    }
    group.bench_function("line ends, find_byte", |b| {
        b.iter(|| {
            let (mut rest, mut lines) = (black_box(HEAD), 0);
            while let Some(end) = find_byte(rest, b'\n') {
                (rest, lines) = (&rest[end + 1..], lines + 1);
            }
            lines
        });
    });
    group
        .bench_function("line ends, memchr_iter", |b| b.iter(|| memchr_iter(b'\n', black_box(HEAD)).count()));
    group.bench_function("line ends, naive", |b| {
        b.iter(|| black_box(HEAD).iter().filter(|byte| **byte == b'\n').count());
    });
}

/// A hundred rules: places for users, rooms of twenty services with exceptions before them, and a last one for the rest.
fn hundred_rules() -> Vec<Rule> {
    let mut patterns = vec!["/user/{user}/**".to_owned()];
    for service in 0..24 {
        patterns
            .extend(["admin", "*/log/**", "{user}/*", "**"].map(|end| format!("/service-{service}/{end}")));
    }
    patterns.extend(["/news/*", "/chat/*", "/**"].map(str::to_owned));
    let rule = |pattern: String| Rule {
        on: Access::Owner,
        send: Access::User,
        ..Rule::open(pattern.parse().unwrap())
    };
    patterns.into_iter().map(rule).collect()
}

/// The decision of a hundred rules about an event, and the token bucket of a client.
fn rules(c: &mut Criterion) {
    let mut group = c.benchmark_group("rules");
    let list = hundred_rules();
    let rules = RuleSet::new(list.clone());
    assert_eq!(list.len(), 100);
    let subject = Subject { user: Some("7"), ..Subject::default() };
    let paths = [
        ("first", "/user/7/inbox"),
        ("middle", "/service-12/7/rust"),
        ("last", "/other/place/with/five/segments"),
    ];
    for (name, path) in paths {
        let naive = || {
            let path = black_box(path);
            let number = list.iter().position(|rule| rule.pattern.covers(path))?;
            Some(rules.allows(number, RuleAction::Send, path, &subject))
        };
        let fast = || {
            let path = black_box(path);
            rules.find(path).map(|number| rules.allows(number, RuleAction::Send, path, &subject))
        };
        assert_eq!(fast(), naive());
        group.bench_function(name, |b| b.iter(fast));
        group.bench_function(format!("{name}, naive"), |b| b.iter(naive));
    }
    let (buckets, rate) = (Buckets::new(), Rate::parse("10000/s", None).unwrap());
    let mut event = 0_u64;
    group.bench_function("bucket", |b| {
        b.iter(|| {
            event += 1;
            buckets.take(buckets.key((1_u64, event as u32 % 10_000, 1_u32)), rate, event)
        });
    });
    // A map of full buckets' times that is never cleaned.
    let mut times: HashMap<(u64, u32, u32), f64> = HashMap::new();
    group.bench_function("bucket, naive", |b| {
        b.iter(|| {
            event += 1;
            let full_at = times.entry((1, event as u32 % 10_000, 1)).or_default();
            let begins = full_at.max(event as f64);
            let passes = begins - event as f64 <= 999_900.0;
            *full_at = if passes { begins + 100.0 } else { begins };
            passes
        });
    });
}

fn clean(c: &mut Criterion) {
    let mut group = c.benchmark_group("clean");
    let (long, hostile) = ("/segment".repeat(128), "/".repeat(HOSTILE_BYTES));
    let cases = [
        ("clean", "/chat/say"),
        ("dirty", "/chat//@say/"),
        ("clean, 1 KiB", &long),
        ("64 KiB of slashes", &hostile),
    ];
    let mut scratch = String::new();
    for (name, raw) in cases {
        group.throughput(Throughput::Bytes(raw.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| PathRef::clean(black_box(raw), &mut scratch).map(|path| path.as_str().len()));
        });
        group.bench_function(format!("{name}, naive"), |b| b.iter(|| naive::clean(black_box(raw))));
    }
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("write");
    let mut out = Vec::with_capacity(256);
    let (path, data) = ("/chat/say", r#"{"text":"hi"}"#);
    group.bench_function("event", |b| {
        b.iter(|| {
            out.clear();
            text::write_event(&mut out, black_box(path), black_box(7), black_box(data));
        });
    });
    group.bench_function("event, naive", |b| {
        b.iter(|| format!("{}:{}={}", black_box(path), black_box(7), black_box(data)));
    });
    for (name, code, message) in [("answer", 200, None), ("error", 404, Some("callback doesn't exist"))] {
        let answer = AnswerText { id: 7, server_callback: 1, code, data, message };
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                black_box(&answer).write(&mut out);
            });
        });
        group.bench_function(format!("{name}, naive"), |b| b.iter(|| naive_answer(black_box(&answer))));
    }
}

fn naive_answer(answer: &AnswerText<'_>) -> String {
    let AnswerText { id, server_callback, code, data, message } = answer;
    match code {
        200 => format!(r#"/qio/callback/{id}:{server_callback}={{"code":200,"data":{data}}}"#),
        _ => {
            let message = serde_json::to_string(message).expect("a string is JSON");
            format!(r#"/qio/callback/{id}:0={{"code":{code},"data":{data},"err_msg":{message}}}"#)
        }
    }
}

/// The built-in events and those of some applications.
fn registered() -> Vec<(String, bool)> {
    let built_in = ["on", "off", "ping", "hostname", "heartbeat", "move", "callback"];
    let mut events: Vec<_> =
        built_in.iter().map(|name| (format!("/qio/{name}"), *name == "callback")).collect();
    for app in ["chat", "game", "news", "clienttest"] {
        events.push((format!("/{app}"), true));
        events.extend(["say", "join", "leave", "list", "move"].map(|name| (format!("/{app}/{name}"), false)));
    }
    events
}

fn routers() -> (Router<usize>, naive::Router<usize>) {
    let (mut router, mut twin) = (Router::new(), naive::Router::default());
    for (value, (path, children)) in registered().into_iter().enumerate() {
        router.register(&Path::parse(&path).expect("a path"), children, value).expect("registered once");
        twin.register(&path, children, value);
    }
    (router, twin)
}

fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let (router, twin) = routers();
    let hostile = format!("/game{}", "/a".repeat(500));
    for (name, raw) in [
        ("exact", "/chat/say"),
        ("child", "/qio/callback/12"),
        ("nobody", "/nobody/here"),
        ("500 segments", &hostile),
    ] {
        let path = Path::parse(raw).expect("a path");
        group.bench_function(name, |b| {
            b.iter(|| router.route(black_box(path.as_ref())).map(|routed| routed.extra))
        });
        group.bench_function(format!("{name}, naive"), |b| b.iter(|| twin.route(black_box(path.as_str()))));
    }
}

/// The steps for every event.
fn parse_clean_route(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse, clean, route");
    let (router, twin) = routers();
    let mut scratch = String::new();
    group.bench_function("chat", |b| {
        b.iter(|| {
            let event = text::parse(black_box(TEXT)).expect("an event");
            let path = PathRef::clean(event.path, &mut scratch).expect("a path");
            router.route(path).map(|routed| *routed.value)
        });
    });
    group.bench_function("chat, naive", |b| {
        b.iter(|| {
            let event = naive::parse(black_box(TEXT)).expect("an event");
            let path = naive::clean(event.path).expect("a path");
            twin.route(&path).map(|(value, _)| *value)
        });
    });
}

/// The naive twin: a map of sets in each direction.
#[derive(Default)]
struct NaiveSubscriptions {
    by_path: HashMap<String, HashSet<u32>>,
    by_client: HashMap<u32, HashSet<String>>,
}

impl NaiveSubscriptions {
    fn subscribe(&mut self, client: u32, path: &str) {
        self.by_path.entry(path.to_owned()).or_default().insert(client);
        self.by_client.entry(client).or_default().insert(path.to_owned());
    }

    fn unsubscribe(&mut self, client: u32, path: &str) {
        self.leave(client, path);
        self.by_client.get_mut(&client).map(|paths| paths.remove(path));
    }

    fn close(&mut self, client: u32) {
        for path in self.by_client.remove(&client).unwrap_or_default() {
            self.leave(client, &path);
        }
    }

    fn leave(&mut self, client: u32, path: &str) {
        if let Some(subscribers) = self.by_path.get_mut(path) {
            subscribers.remove(&client);
            if subscribers.is_empty() {
                self.by_path.remove(path);
            }
        }
    }
}

fn subscribe(table: &mut Subscriptions, client: u32, path: &Path) {
    if let SubscribeOutcome::Decide(id) = table.subscribe(client, path) {
        black_box(table.decide(client, id, true));
    }
}

const CLIENTS: u32 = 20_000;

/// Returns the paths of a client: one that all clients have, one of its own, and two of a hundred.
fn joined(client: u32) -> [Path; 4] {
    let raws = [
        "/news".to_owned(),
        format!("/user/{client}"),
        format!("/room/{}", client % 100),
        format!("/room/{}", client % 99),
    ];
    raws.map(|raw| Path::parse(&raw).expect("a path"))
}

fn filled() -> (Subscriptions, NaiveSubscriptions) {
    let (mut table, mut twin) = (Subscriptions::new(), NaiveSubscriptions::default());
    for client in 0..CLIENTS {
        for path in joined(client) {
            subscribe(&mut table, client, &path);
            twin.subscribe(client, path.as_str());
        }
    }
    (table, twin)
}

fn subscriptions(c: &mut Criterion) {
    let mut group = c.benchmark_group("subscriptions");
    let (mut table, mut twin) = filled();
    let path = Path::parse("/room/5").expect("a path");
    group.bench_function("find", |b| b.iter(|| table.find(black_box(path.as_ref()))));
    group.bench_function("find, naive", |b| {
        b.iter(|| twin.by_path.get(black_box(path.as_str())).map(HashSet::len))
    });
    group.bench_function("on, off", |b| {
        b.iter(|| {
            subscribe(&mut table, CLIENTS, black_box(&path));
            table.unsubscribe(CLIENTS, path.as_ref())
        });
    });
    group.bench_function("on, off, naive", |b| {
        b.iter(|| {
            twin.subscribe(CLIENTS, black_box(path.as_str()));
            twin.unsubscribe(CLIENTS, path.as_str());
        });
    });
    let mut closing = (0..CLIENTS).map(|number| number * 7919 % CLIENTS).cycle();
    group.bench_function("client of four comes and goes", |b| {
        b.iter(|| {
            let client = closing.next().expect("it cycles");
            table.close(client, |path, ended| drop(black_box((path, ended))));
            joined(client).iter().for_each(|path| subscribe(&mut table, client, path));
        });
    });
    group.bench_function("client of four comes and goes, naive", |b| {
        b.iter(|| {
            let client = closing.next().expect("it cycles");
            twin.close(client);
            joined(client).iter().for_each(|path| twin.subscribe(client, path.as_str()));
        });
    });
    walk(&mut group, &table, &twin);
}

/// The main loop of a broadcast: visits the slot of every subscriber.
fn walk(group: &mut BenchmarkGroup<'_, WallTime>, table: &Subscriptions, twin: &NaiveSubscriptions) {
    group.throughput(Throughput::Elements(u64::from(CLIENTS)));
    let news = Path::parse("/news").expect("a path");
    let id = table.find(news.as_ref()).expect("all clients are subscribed");
    group.bench_function("walk 20,000", |b| {
        b.iter(|| table.subscribers(black_box(id)).iter().map(|one| u64::from(one.client())).sum::<u64>());
    });
    group.bench_function("walk 20,000, naive", |b| {
        b.iter(|| {
            twin.by_path[black_box(news.as_str())].iter().map(|client| u64::from(*client)).sum::<u64>()
        });
    });
}

/// A client with very many subscriptions. The cost of an operation must not depend on their number.
fn many(c: &mut Criterion) {
    const PATHS: usize = 200_000;
    let mut group = c.benchmark_group("one client with 200,000");
    let paths: Vec<Path> =
        (0..PATHS).map(|number| Path::parse(&format!("/many/{number}")).expect("a path")).collect();
    let fill = || {
        let mut table = Subscriptions::new();
        paths.iter().for_each(|path| subscribe(&mut table, 0, path));
        table
    };
    let fill_twin = || {
        let mut twin = NaiveSubscriptions::default();
        paths.iter().for_each(|path| twin.subscribe(0, path.as_str()));
        twin
    };
    let (mut table, twin) = (fill(), fill_twin());
    let mut any = (0..PATHS).map(|number| &paths[number * 7919 % PATHS]).cycle();
    group.bench_function("on, active", |b| b.iter(|| table.subscribe(0, any.next().expect("it cycles"))));
    group.bench_function("on, active, naive", |b| {
        b.iter(|| twin.by_client[&0].contains(any.next().expect("it cycles").as_str()));
    });
    group.throughput(Throughput::Elements(PATHS as u64));
    group.bench_function("subscribe to all", |b| b.iter_with_large_drop(fill));
    group.bench_function("subscribe to all, naive", |b| b.iter_with_large_drop(fill_twin));
    group.bench_function("close", |b| {
        b.iter_batched_ref(fill, |table| table.close(0, |path, _| drop(path)), BatchSize::PerIteration);
    });
    group.bench_function("close, naive", |b| {
        b.iter_batched_ref(fill_twin, |twin| twin.close(0), BatchSize::PerIteration);
    });
}

fn brief() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
}

criterion_group! {
    name = benches;
    config = brief();
    targets = parse, find, rules, clean, write, route, parse_clean_route, subscriptions, many
}
criterion_main!(benches);
