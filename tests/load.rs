//! Tests of the load generator against the real server, as the scripts use it: every scenario, over every protocol, in
//! threads and in processes. The counts must be correct; no test checks the speed.

#[path = "support/ports.rs"]
mod ports;
#[allow(dead_code, unused_imports, reason = "other tests need the rest")]
mod support;

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use support::Server;

const LOAD: &str = env!("CARGO_BIN_EXE_quickio-load");

fn run(words: &str) -> Output {
    Command::new(LOAD).args(words.split_ascii_whitespace()).output().expect("the load generator starts")
}

/// Returns the JSON report of a short run against a server. Nothing may be lost.
fn report(server: &Server, name: &str, words: &str) -> Value {
    let file =
        TempFile(std::env::temp_dir().join(format!("quickio-load-{}-{name}.json", std::process::id())));
    let path = file.0.display();
    let common = "--quiet --seconds 0.3 --warmup 0.1 --settle 0.1 --drain 120";
    let output = run(&format!("{words} {common} --server {} --json {path}", server.address()));
    let printed =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {printed}");
    serde_json::from_str(&fs::read_to_string(&file.0).unwrap()).unwrap()
}

/// A file that is removed when the value is dropped.
struct TempFile(PathBuf);

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn number(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
}

#[test]
fn pings_are_all_answered() {
    let server = Server::start(&[]);
    for (name, words) in [
        ("closed", "ping --connections 20 --depth 3"),
        ("rate", "ping --connections 20 --rate 1000 --threads 2 --protocol raw"),
        ("parts", "ping --connections 20 --rate 1000 --processes 2"),
        ("polling", "ping --connections 20 --depth 3 --protocol long-polling"),
        ("polling-rate", "ping --connections 20 --rate 1000 --threads 2 --protocol long-polling"),
        ("stream", "ping --connections 20 --depth 3 --threads 2 --protocol event-stream"),
        ("stream-rate", "ping --connections 20 --rate 1000 --protocol event-stream"),
    ] {
        let report = report(&server, name, words);
        assert_eq!(number(&report, "/connections/opened"), 20);
        assert!(number(&report, "/whole_run/pings") >= 20);
        assert_eq!(number(&report, "/whole_run/pings"), number(&report, "/whole_run/pongs"));
        assert!(number(&report, "/latency_us/ping/count") > 0);
    }
}

#[test]
fn events_reach_every_subscriber_over_two_shards() {
    let server = Server::start(&[]);
    for (name, words) in [
        ("single", "fanout --subscribers 50 --publishers 3 --threads 2"),
        ("bursts", "fanout --subscribers 50 --rate 50 --burst 20 --protocol raw"),
        ("large", "fanout --subscribers 20 --rate 50 --size 20000 --processes 2"),
        ("polling", "fanout --subscribers 50 --publishers 3 --threads 2 --protocol long-polling"),
        ("polling-bursts", "fanout --subscribers 50 --rate 20 --burst 10 --protocol long-polling"),
        ("polling-large", "fanout --subscribers 20 --rate 50 --size 20000 --protocol long-polling"),
        ("stream", "fanout --subscribers 50 --publishers 3 --threads 2 --protocol event-stream"),
        ("stream-bursts", "fanout --subscribers 50 --rate 20 --burst 10 --protocol event-stream"),
        (
            "stream-large",
            "fanout --subscribers 20 --rate 50 --size 20000 --processes 2 --protocol event-stream",
        ),
    ] {
        let report = report(&server, name, words);
        let delivered = number(&report, "/whole_run/delivered");
        assert!(delivered > 0);
        assert_eq!(delivered, number(&report, "/whole_run/deliveries_expected"), "{words}");
        for bad in ["deliveries_doubled", "deliveries_disordered"] {
            assert_eq!(number(&report, &format!("/whole_run/{bad}")), 0, "{words}");
        }
    }
    let stats = server.stats();
    assert!(stats.value("mesh_sent") > 0, "both shards took part");
}

#[test]
fn connections_are_held_and_churned() {
    let server = Server::start(&[]);
    let held = report(&server, "hold", "hold --connections 300 --rooms 7");
    assert_eq!(number(&held, "/connections/opened"), 300);
    for (name, words) in [("websocket", "churn --connections 5"), ("raw", "churn --rate 200 --protocol raw")]
    {
        assert!(number(&report(&server, name, words), "/whole_run/cycles") > 0);
    }
    let words = "mixed --subscribers 20 --pingers 5 --churners 3 --idle 10 --slow 2";
    let mixed = report(&server, "mixed", words);
    assert_eq!(number(&mixed, "/connections/opened"), 37);
    assert_eq!(number(&mixed, "/slow/opened"), 2);
}

/// Over HTTP a client opens only the sockets that it needs, and the server receives every counted request.
#[test]
fn sessions_need_few_sockets() {
    for (protocol, rooms, sockets_each) in
        [("long-polling", 7, 1), ("long-polling", 0, 1), ("event-stream", 7, 2), ("event-stream", 0, 1)]
    {
        let server = Server::start(&[]);
        let words = format!("hold --connections 100 --rooms {rooms} --protocol {protocol}");
        let held = report(&server, &format!("hold-{protocol}-{rooms}"), &words);
        assert_eq!(number(&held, "/connections/opened"), 100);
        assert_eq!(number(&held, "/connections/sockets"), 100 * sockets_each, "{words}");
        // One more request checked whether the server is running.
        assert_eq!(
            server.stats().value("http_requests"),
            number(&held, "/whole_run/requests") + 1,
            "{words}"
        );
    }
}

#[test]
fn all_at_once_over_http() {
    let server = Server::start(&[]);
    for protocol in ["long-polling", "event-stream"] {
        let words = format!("mixed --subscribers 20 --pingers 5 --idle 10 --threads 2 --protocol {protocol}");
        let mixed = report(&server, &format!("mixed-{protocol}"), &words);
        assert_eq!(number(&mixed, "/connections/opened"), 37);
        assert!(number(&mixed, "/whole_run/delivered") > 0 && number(&mixed, "/whole_run/pongs") > 0);
    }
}

#[test]
fn measures_the_process_of_the_server() {
    let server = Server::start(&[]);
    let pid = server.pid();
    let report = report(&server, "measured", &format!("ping --connections 10 --server-pid {pid}"));
    let of_server = |pointer| report["server"].pointer(pointer).and_then(Value::as_f64).unwrap();
    assert!(of_server("/cpu_us/total") > 0.0);
    assert!(of_server("/cpu_us_each_message/total") > 0.0);
    assert!(of_server("/memory/resident") >= of_server("/memory/anonymous"));
}

/// A run of `million` whose steps a test requests.
struct Million {
    child: Child,
    steps: ChildStdin,
    reports: Lines<BufReader<ChildStdout>>,
}

impl Million {
    /// Starts a run with 300 clients in 3 rings.
    fn start(server: &str) -> Million {
        let words =
            format!("million --server {server} --connections 300 --rooms 10 --clients-per-ring 120 --quiet");
        let mut child = Command::new(LOAD)
            .args(words.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load generator starts");
        let (steps, reports) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Million { child, steps, reports: BufReader::new(reports).lines() }
    }

    fn request(&mut self, step: &str) {
        writeln!(self.steps, "{step}").unwrap();
    }

    fn report(&mut self) -> Value {
        serde_json::from_str(&self.reports.next().expect("the run goes on").unwrap()).unwrap()
    }

    fn step(&mut self, step: &str) -> Value {
        self.request(step);
        self.report()
    }

    /// Ends the run, which must go well.
    fn end(mut self) {
        drop(self.steps);
        assert!(self.child.wait().unwrap().success());
    }
}

#[test]
fn a_million_takes_all_steps_against_the_server() {
    // The server gets the same port twice.
    let address = &format!("127.0.77.1:{}", ports::free_ports("127.0.77.1"));
    let arguments = ["--listen", address, "--connections-per-address-max", "0"];
    let mut server = Server::start(&arguments);
    let mut million = Million::start(address);
    let connect = million.step("connect");
    assert_eq!((number(&connect, "/connected"), number(&connect, "/failed")), (300, 0), "{connect:#}");
    assert_eq!(server.stats().value("clients"), 300);
    assert_eq!(number(&million.step("hold 0.2"), "/open"), 300);

    let broadcast = million.step("broadcast");
    assert_eq!(
        (number(&broadcast, "/expected"), number(&broadcast, "/delivered")),
        (300, 300),
        "{broadcast:#}"
    );
    assert!(number(&broadcast, "/pings/count") > 0, "{broadcast:#}");
    for line in ["rooms 0.5 4", "rooms 0.5 4 40"] {
        let rooms = million.step(line);
        assert_eq!(number(&rooms, "/published"), 20, "{rooms:#}");
        assert_eq!(number(&rooms, "/delivered"), number(&rooms, "/expected"), "{rooms:#}");
        for none in ["/lost", "/duplicated", "/failed", "/lost_clients"] {
            assert_eq!(number(&rooms, none), 0, "{none}: {rooms:#}");
        }
    }
    million.request("return");
    assert_eq!(million.report()["ready"], "return");
    drop(server);
    server = Server::start(&arguments);
    let back = million.report();
    assert_eq!((number(&back, "/lost"), number(&back, "/back")), (300, 300), "{back:#}");
    assert_eq!(server.stats().value("clients"), 300);

    million.request("stop");
    assert_eq!(million.report()["ready"], "stop");
    server.signal("TERM");
    let stop = million.report();
    assert_eq!((number(&stop, "/clients"), number(&stop, "/closed_1001")), (300, 300), "{stop:#}");
    million.end();
}

#[test]
fn reports_errors() {
    let server = Server::start(&[]);
    for (words, code, error) in [
        (
            "pong".into(),
            2,
            "there is no scenario pong; the scenarios are hold, ping, fanout, churn, slow, mixed, million (see --help)",
        ),
        ("million --seconds 5".into(), 2, "--seconds is not a flag of the scenario million"),
        ("million --server 127.0.0.1:1".into(), 1, "Nothing listens there"),
        ("ping --rate x".into(), 2, "--rate x: expected a number per second, up to ten million"),
        (
            "ping --server 127.0.0.1:1".into(),
            1,
            "no connection to 127.0.0.1:1: Connection refused (os error 111). Nothing listens there: start the server, \
             or give its address with --server",
        ),
        (format!("ping --server {} --protocol websocket", server.admin()), 1, "upgrade refused: 200 OK"),
        (format!("ping --server {} --protocol long-polling", server.admin()), 1, "answered 4"),
        (
            format!("ping --server {} --protocol event-stream", server.admin()),
            1,
            "a response that is not an event stream",
        ),
    ] {
        let output = run(&words);
        let printed = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words}: {printed}");
        assert!(printed.contains(error), "{words}: {printed}");
    }
}

#[test]
fn scripts_parse_and_explain_themselves() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    for name in ["floor.sh", "loadtest.sh", "apps.sh", "attack.sh"] {
        let script = scripts.join(name);
        let bash = |arguments: &[&str]| Command::new("bash").args(arguments).output().unwrap();
        let path = script.to_str().unwrap();
        assert!(bash(&["-n", path]).status.success());
        let help = bash(&[path, "--help"]);
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert!(help.status.success() && text.contains(&format!("scripts/{name} [")), "{text}");
        assert!(!text.contains("set -eu"), "{text}");
        assert_eq!(bash(&[path, "--nonsense"]).status.code(), Some(2));
    }
}

/// The bounds of the script are for a machine that does nothing else; here only the promises to honest clients hold.
#[test]
fn attacks_hurt_no_honest_client() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = std::env::temp_dir().join(format!("quickio-attack-{}", std::process::id()));
    let script = Command::new("bash")
        .arg(root.join("scripts/attack.sh"))
        .args(["--debug", "--no-bounds", "--seconds", "1", "--settle", "0", "--out"])
        .arg(&out)
        .args(["pings", "broadcasts", "sessions", "vanish"])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&[script.stdout, script.stderr].concat()).into_owned();
    std::fs::remove_dir_all(&out).unwrap();
    assert!(script.status.success(), "{printed}");
    for attack in ["| pings |", "| broadcasts |", "| sessions |", "| vanish |"] {
        assert!(printed.contains(attack), "{printed}");
    }
}
