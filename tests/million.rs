//! Tests of `scripts/million.sh`: its plan and its checks on simulated hosts, and a run with few clients.

#[path = "support/ports.rs"]
mod ports;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory that is removed when the value is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("quickio-million-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn in_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The `/proc` of a host that has all that a million clients need.
fn host(name: &str) -> Folder {
    let host = Folder::new(name);
    host.write("proc/meminfo", "MemTotal:       25165824 kB\nMemAvailable:   23068672 kB\n");
    host.write("proc/slabinfo", "");
    for (name, value) in [
        ("fs.file-nr", "700\t0\t9223372036854775807"),
        ("net.core.somaxconn", "65535"),
        ("net.ipv4.ip_local_port_range", "32768\t60999"),
        ("net.ipv4.tcp_ehash_entries", "4194304"),
        ("net.ipv4.tcp_max_orphans", "262144"),
        ("net.ipv4.tcp_mem", "500000\t1000000\t2000000"),
    ] {
        host.write(&format!("proc/sys/{}", name.replace('.', "/")), &format!("{value}\n"));
    }
    host
}

fn check(host: &Folder, flags: &str) -> Output {
    let mut command = Command::new("python3");
    command.arg(in_tree("scripts/lib/million_host.py")).args(flags.split(' '));
    command.env("MILLION_ROOT", &host.0).env("MILLION_NOFILE", "20000").output().unwrap()
}

/// Returns the numbers of the plan by their names.
fn plan(output: &Output) -> BTreeMap<String, u64> {
    let lines = text(&output.stdout);
    let pair =
        |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    lines.lines().map(|line| pair(line).unwrap()).collect()
}

#[test]
fn a_million_clients_have_places_ports_and_subscriptions() {
    let host = host("plan");
    let output = check(&host, "--connections 1000000 --cores 1 --churn 1000");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("MISSING") && !said.contains(" low "), "{said}");
    let plan = plan(&output);
    let (shards, addresses) = (plan["shards"], plan["addresses"]);
    // The busiest shard gets more than the mean: its ring holds 20,000 sockets.
    let mean = 1_000_000.0 / shards as f64;
    assert!(mean + 6.0 * mean.sqrt() <= 19_900.0 && shards < 60, "{shards}");
    let ports = addresses * (60_999 - 32_768 + 1);
    assert!(ports >= 2 * (1_000_000 + 60_000), "{addresses}");
    assert!(plan["clients_max"] > 1_000_000);
    assert!(plan["subscriptions"] * 60 / 100 > 2 * plan["clients_max"]);
}

#[test]
fn few_clients_get_a_shard_for_each_core() {
    let host = host("few");
    let plan_of = |flags| plan(&check(&host, flags))["shards"];
    assert_eq!(plan_of("--connections 300 --cores 3"), 3);
    assert_eq!(plan_of("--connections 300 --cores 1"), 1);
    assert_eq!(plan_of("--connections 19900 --cores 1"), 1);
    assert_eq!(plan_of("--connections 19901 --cores 1"), 2);
    assert_eq!(plan_of("--connections 300 --shards 7"), 7);
}

#[test]
fn what_a_host_lacks_is_named_with_what_to_do() {
    for (file, value, flags, item, advice) in [
        ("proc/meminfo", "MemAvailable: 4194304 kB\n", "", "memory available", "use fewer --connections"),
        ("proc/sys/fs/file-nr", "700 0 1500000\n", "", "fs.file-max", "sysctl -w fs.file-max=2010700"),
        ("proc/ignored", "", " --shards 20", "nofile (ulimit -n)", "give more --shards"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768 32778\n", "", "ports of the load", "widen"),
    ] {
        let host = host("lacks");
        host.write(file, value);
        let flags = format!("--connections 1000000{flags}");
        let output = check(&host, &flags);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("MISSING  {item}")) && said.contains(advice), "{item}: {said}");
        assert!(said.contains(&format!("missing: {item}: nothing was started")), "{said}");
        assert!(check(&host, &format!("{flags} --force")).status.success());
    }
}

#[test]
fn what_only_makes_a_run_slower_does_not_prevent_it() {
    let host = host("slower");
    host.write("proc/sys/net/ipv4/tcp_mem", "1000 2000 4000\n");
    host.write("proc/sys/net/core/somaxconn", "128\n");
    host.write("proc/sys/net/ipv4/tcp_ehash_entries", "-262144\n");
    let output = check(&host, "--connections 1000000");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("low      net.ipv4.tcp_mem") && said.contains("low      net.core.somaxconn"),
        "{said}"
    );
    assert!(said.contains("2,000 pages until pressure, 4,000 at most"), "{said}");
    assert!(said.contains("low      table of TCP connections   262,144 buckets"), "{said}");
}

#[test]
fn unknown_flags_and_steps_are_refused() {
    for (words, said) in
        [("--conections 3", "unknown flag: --conections"), ("connect wait", "no such step: wait")]
    {
        let output = Command::new(in_tree("scripts/million.sh")).args(words.split(' ')).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
}

/// Runs all steps with few clients. Returns the directory of the report.
fn run() -> Folder {
    let out = Folder::new("run");
    let bin = Path::new(env!("CARGO_BIN_EXE_quickio")).parent().unwrap();
    let flags = "--connections 300 --rooms 10 --hold 1 --seconds 1 --churn 20 --shards 2 --reserve 16";
    let mut command = Command::new(in_tree("scripts/million.sh"));
    command.args(flags.split(' ')).arg("--bin").arg(bin).arg("--out").arg(&out.0);
    let output = command.arg("--port").arg(ports::free_ports("127.0.0.1").to_string()).output().unwrap();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    out
}

/// Returns a JSON file of a run.
fn read(out: &Folder, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(out.0.join(name)).unwrap()).unwrap()
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {report:#}"))
}

/// Makes the report of a run again. Returns its exit code and what it said.
fn report_again(out: &Folder) -> (Option<i32>, String) {
    let output =
        Command::new(in_tree("scripts/million_table.py")).arg("report").arg(&out.0).output().unwrap();
    (output.status.code(), text(&output.stderr))
}

#[test]
fn a_run_with_few_clients_is_reported_step_by_step() {
    let out = run();
    let report = read(&out, "million.json");
    for (pointer, expected) in [
        ("/steps/connect/load/connected", 300.0),
        ("/steps/connect/load/failed", 0.0),
        ("/steps/hold/load/lost", 0.0),
        ("/steps/broadcast/load/delivered", 300.0),
        ("/steps/rooms/load/published", 10.0),
        ("/steps/rooms/load/lost", 0.0),
        ("/steps/churn/load/failed", 0.0),
        ("/steps/return/load/back", 300.0),
        ("/steps/stop/load/closed_1001", 300.0),
        ("/steps/stop/moments/exit_code", 0.0),
        ("/server_log/shards_left", 0.0),
    ] {
        assert_eq!(number(&report, pointer), expected, "{pointer}");
    }
    assert_eq!(report["failures"], serde_json::json!([]));
    the_namespace_is_told(&report);
    // The server's own figures: both shards have clients, each delivery was measured, and memory was taken.
    let shards = report.pointer("/steps/connect/connections_of_shards").unwrap();
    let (fewest, most) = (number(shards, "/fewest"), number(shards, "/most"));
    assert!(fewest > 0.0 && fewest + most == 300.0, "{shards}");
    assert!(number(&report, "/steps/broadcast/histograms/delivery/count") >= 300.0);
    assert!(number(&report, "/steps/connect/server/cpu_us_each") > 0.0);
    assert!(number(&report, "/steps/hold/memory/resident_each") > 1000.0);
    assert!(number(&report, "/steps/stop/machine/available_min") > 0.0);
    let table = fs::read_to_string(out.0.join("table.md")).unwrap();
    assert!(table.contains("| connected: 300 of 300 | 300 (met) |"), "{table}");
    side_by_side(&out);
    failures_are_reported(&out);
    goals_need_all_clients(&out);
}

/// The report tells where the run took place, and what the server's program was.
fn the_namespace_is_told(report: &Value) {
    let host = &report["host"];
    match host["network_namespace"].as_str() {
        Some("own") => {
            let present = fs::read_to_string("/proc/sys/net/ipv4/tcp_ehash_entries").unwrap();
            let present: f64 = present.trim().parse().unwrap();
            assert!(number(host, "/tcp_buckets") >= present.abs(), "{host:#}");
        }
        Some("host") => assert_ne!(host["network_namespace_reason"], "", "{host:#}"),
        _ => panic!("{host:#}"),
    }
    assert_eq!(host["packets_steered_to"], "", "{host:#}");
    assert!(host["program"]["version"].as_str().unwrap().starts_with("quickio "), "{host:#}");
    assert_eq!(host["program"]["sha256"].as_str().unwrap().len(), 64, "{host:#}");
}

/// Several runs have a column each.
fn side_by_side(out: &Folder) {
    let file = out.0.join("million.json");
    let mut command = Command::new(in_tree("scripts/million_table.py"));
    let output = command.arg("docs").args([&file, &file, &file]).output().unwrap();
    let table = text(&output.stdout);
    assert!(table.contains("| `stop` | run 1 | run 2 | run 3 |"), "{table}{}", text(&output.stderr));
    assert!(table.contains("| connected | 300 | 300 | 300 |"), "{table}");
    assert!(table.contains("| limited by | "), "{table}");
    let namespace = if read(out, "million.json")["host"]["network_namespace"] == "own" {
        "its own"
    } else {
        "the host's"
    };
    let row = format!("| network namespace | {namespace} | {namespace} | {namespace} |");
    assert!(table.contains(&row), "{table}");
}

/// A run fails because of each thing that clients must not see, and its name is shown.
fn failures_are_reported(out: &Folder) {
    for (file, pointer, value, said) in [
        ("connect.load.json", "/failed", 2, "connect: 2 clients did not get their connection"),
        ("hold.load.json", "/lost", 1, "hold: 1 idle clients lost their connection"),
        ("broadcast.load.json", "/pings_unanswered", 2, "broadcast: 2 pings were not answered"),
        ("rooms.load.json", "/lost", 3, "rooms: 3 events did not arrive"),
        ("rooms.load.json", "/unpublished", 1, "rooms: 1 events were not published"),
        ("churn.load.json", "/churned", 1000, "clients that had left did not come back"),
        ("return.load.json", "/back", 290, "return: 10 clients did not come back"),
        ("stop.load.json", "/closed_1001", 299, "stop: 1 clients were not told that the server stops"),
        ("stop.moments.json", "/exit_code", 1, "stop: the server's exit code was 1"),
    ] {
        let path = out.0.join(file);
        let before = fs::read_to_string(&path).unwrap();
        let mut changed: Value = serde_json::from_str(&before).unwrap();
        *changed.pointer_mut(pointer).unwrap() = value.into();
        fs::write(&path, changed.to_string()).unwrap();
        let (code, stderr) = report_again(out);
        assert!(code == Some(1) && stderr.contains(said), "{file}: {code:?} {stderr}");
        fs::write(&path, before).unwrap();
    }
    let log = out.0.join("server.2.log");
    let behind =
        "WARN shutdown-timeout has passed: the server exits while shards are still running running=3\n";
    fs::write(&log, behind).unwrap();
    let (code, stderr) = report_again(out);
    assert!(code == Some(1) && stderr.contains("stop: 3 shards were left behind"), "{code:?} {stderr}");
    fs::write(&log, "").unwrap();
    assert_eq!(report_again(out).0, Some(0));
}

/// Goals are not met by a step that did not reach all clients.
fn goals_need_all_clients(out: &Folder) {
    for (file, step, goals) in [
        ("broadcast.load.json", r#"{"step": "broadcast", "error": "refused"}"#, &[6, 7][..]),
        ("stop.load.json", r#"{"clients": 0, "closed_1001": 0, "first_ms": 0.0, "last_ms": 0.0}"#, &[8]),
    ] {
        let path = out.0.join(file);
        let before = fs::read_to_string(&path).unwrap();
        fs::write(&path, step).unwrap();
        let (_, stderr) = report_again(out);
        let report = read(out, "million.json");
        let met = |goal: &usize| report["goals"][*goal - 1]["met"].as_bool().unwrap();
        assert!(!goals.iter().any(met), "{:#} {stderr}", report["goals"]);
        fs::write(&path, before).unwrap();
    }
}

#[test]
fn the_namespace_of_the_host_is_used_on_request() {
    let setting = "/proc/sys/net/ipv4/tcp_child_ehash_entries";
    let before = fs::read_to_string(setting).ok();
    for (flags, is_forbidden) in [("--check", false), ("--check --no-namespace", true)] {
        let mut command = Command::new(in_tree("scripts/million.sh"));
        let output =
            command.args(flags.split(' ')).args(["--force", "--connections", "10"]).output().unwrap();
        let said = text(&output.stderr);
        assert!(said.contains("table of TCP connections") || before.is_none(), "{said}");
        assert_eq!(said.contains("--no-namespace was given"), is_forbidden && before.is_some(), "{said}");
        assert_eq!(fs::read_to_string(setting).ok(), before, "the setting of the host is as before");
    }
}

#[test]
fn a_check_of_the_host_keeps_the_last_report() {
    let out = Folder::new("check");
    for file in ["table.md", "million.json", "notes.md"] {
        out.write(file, "");
    }
    let mut command = Command::new(in_tree("scripts/million.sh"));
    let output = command.args(["--check", "--force", "--connections", "10", "--out"]).arg(&out.0).output();
    assert!(output.unwrap().status.success());
    assert_eq!(fs::read_dir(&out.0).unwrap().count(), 3);
}
