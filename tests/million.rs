//! Tests of `scripts/million.sh`: its plan and its checks on simulated hosts.

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
    let output = check(&host, "--connections 1000000");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("low      net.ipv4.tcp_mem") && said.contains("low      net.core.somaxconn"),
        "{said}"
    );
    assert!(said.contains("2,000 pages until pressure, 4,000 at most"), "{said}");
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
