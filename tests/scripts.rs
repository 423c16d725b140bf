//! Tests of the files that are shipped with the program: the host's tuning, the seccomp profile, the systemd unit, and the
//! tables in the docs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quickio::{config, metrics};

fn in_tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The `/proc` and `/etc` of a simulated host for the tuning script, removed when the value is dropped.
struct Host(PathBuf);

impl Host {
    fn new(name: &str, sysctls: &[(&str, &str)]) -> Host {
        let host = Host(std::env::temp_dir().join(format!("quickio-host-{}-{name}", std::process::id())));
        let _ = fs::remove_dir_all(&host.0);
        host.write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:         1 kB\n");
        for (name, value) in sysctls {
            host.write(&sysctl_path(name), &format!("{value}\n"));
        }
        host
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn tune(&self, flags: &[&str]) -> (bool, String) {
        let mut command = Command::new("bash");
        command.arg(in_tree("scripts/tune-host.sh")).args(flags).env("TUNE_HOST_ROOT", &self.0);
        let output = command.output().unwrap();
        (output.status.success(), text(&output))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sysctl_path(name: &str) -> String {
    format!("proc/sys/{}", name.replace('.', "/"))
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// The values of a host that was never tuned, and the values after tuning.
const UNTUNED: [(&str, &str, &str); 9] = [
    ("fs.file-max", "9223372036854775807", "9223372036854775807"),
    ("fs.nr_open", "524288", "1048576"),
    ("kernel.io_uring_disabled", "2", "0"),
    ("net.core.somaxconn", "4096", "65535"),
    ("net.ipv4.tcp_ehash_entries", "-262144", "-262144"),
    ("net.ipv4.tcp_mem", "100\t4000000\t300", "524288 4000000 2097152"),
    ("net.ipv4.tcp_rmem", "4096\t131072\t6291456", "4096 16384 6291456"),
    ("net.ipv4.ip_local_port_range", "32768\t60999", "10240 65535"),
    ("net.netfilter.nf_conntrack_max", "262144", "2200000"),
];

fn untuned(name: &str) -> Host {
    Host::new(name, &UNTUNED.map(|(name, value, _)| (name, value)))
}

#[test]
fn tuning_changes_nothing_without_apply() {
    let host = untuned("tells");
    let (success, output) = host.tune(&[]);
    assert!(success, "{output}");
    assert!(output.contains("4096 -> 65535") && output.contains("absent    net.ipv4.tcp_wmem"), "{output}");
    assert!(output.contains("262144 -> 2097152: boot parameter thash_entries=2097152"), "{output}");
    for (name, value, _) in UNTUNED {
        assert_eq!(host.read(&sysctl_path(name)).trim(), value, "{name}");
    }
    assert!(!host.0.join("etc").exists());
}

#[test]
fn tuning_sets_the_wanted_values_once() {
    let host = untuned("sets");
    let (success, output) = host.tune(&["--apply"]);
    assert!(success, "{output}");
    for (name, _, wanted) in UNTUNED {
        assert_eq!(host.read(&sysctl_path(name)).trim().replace('\t', " "), wanted, "{name}");
    }
    let sysctls = host.read("etc/sysctl.d/90-quickio.conf");
    assert!(sysctls.contains("\nnet.ipv4.tcp_mem = 524288 4000000 2097152\n"), "{sysctls}");
    assert!(sysctls.contains("\n-net.netfilter.nf_conntrack_max = 2200000\n"), "{sysctls}");
    assert!(
        !sysctls.contains("tcp_wmem") && !sysctls.contains("tcp_ehash"),
        "values that this kernel does not have, or does not let be set, must not be set at boot: {sysctls}"
    );
    assert!(host.read("etc/security/limits.d/90-quickio.conf").contains("\n* - nofile 1048576\n"));

    let (success, output) = host.tune(&["--apply"]);
    assert!(success && !output.contains("\n  set ") && !output.contains("wrote"), "{output}");
    assert_eq!(host.read("etc/sysctl.d/90-quickio.conf"), sysctls);
}

#[test]
fn tuning_reports_values_that_it_cannot_set() {
    let host = untuned("fails");
    host.write("etc", "not a directory, to make writing fail");
    let (success, output) = host.tune(&["--apply"]);
    assert!(
        !success && output.contains("FAILED to write") && output.contains("run this as root"),
        "{output}"
    );
}

#[test]
fn tuning_rejects_unknown_flags() {
    let (success, output) = untuned("flags").tune(&["--aply"]);
    assert!(!success && output.contains("unknown flag --aply") && output.contains("Usage:"), "{output}");
}

#[test]
fn shell_scripts_pass_shellcheck() {
    let script = in_tree("scripts/tune-host.sh");
    match Command::new("shellcheck").arg(&script).output() {
        Ok(output) => assert!(output.status.success(), "{}", text(&output)),
        // Not every host has shellcheck. Without it, only the syntax is checked.
        Err(_) => assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success()),
    }
}

#[test]
fn the_seccomp_profile_allows_each_call_once() {
    let profile = fs::read_to_string(in_tree("scripts/seccomp.json")).unwrap();
    let profile: serde_json::Value = serde_json::from_str(&profile).unwrap();
    assert_eq!(
        (&profile["defaultAction"], &profile["defaultErrnoRet"]),
        (&"SCMP_ACT_ERRNO".into(), &1.into())
    );
    let mut seen = BTreeSet::new();
    for rule in profile["syscalls"].as_array().unwrap() {
        for name in rule["names"].as_array().unwrap() {
            let name = name.as_str().unwrap();
            assert!(seen.insert(name) || rule["args"].is_array(), "{name} appears twice");
        }
    }
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register", "membarrier", "eventfd2", "futex"] {
        assert!(seen.contains(name), "{name}");
    }
    for name in ["bpf", "mount", "ptrace", "unshare", "setns", "keyctl", "perf_event_open", "init_module"] {
        assert!(!seen.contains(name), "{name}");
    }
}

#[test]
fn the_kernel_accepts_the_seccomp_profile() {
    let mut python = Command::new("python3");
    python.arg(in_tree("tests/scripts/under_seccomp.py")).arg(in_tree("scripts/seccomp.json")).arg("--check");
    let output = python.output().unwrap();
    match output.status.code() {
        Some(77) => eprintln!("{}", text(&output)),
        code => assert_eq!(code, Some(0), "{}", text(&output)),
    }
}

#[test]
fn the_unit_waits_longer_than_the_server_takes_to_stop() {
    let unit = fs::read_to_string(in_tree("scripts/quickio.service")).unwrap();
    let values = |key: &str| -> Vec<&str> {
        unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
    };
    let value = |key: &str| *values(key).first().unwrap_or_else(|| panic!("{key} is missing"));
    let defaults = config::Config::default();
    let stop: u64 = value("TimeoutStopSec").strip_suffix('s').unwrap().parse().unwrap();
    assert!(stop > (defaults.shutdown_timeout + defaults.worker_stop_timeout).as_secs());
    let check = "/usr/local/bin/quickio check --config /etc/quickio/quickio.toml";
    assert_eq!(values("ExecReload"), [check, "/bin/kill -HUP $MAINPID"]);
    assert_eq!(values("ExecStartPre"), [check]);
    assert_eq!(value("Type"), "notify");
    let start: u64 = value("TimeoutStartSec").strip_suffix('s').unwrap().parse().unwrap();
    assert!(start > defaults.worker_start_timeout.as_secs());
    assert_eq!(value("RestartPreventExitStatus"), config::EXIT_CODE.to_string());
    assert!(value("ExecStart").ends_with("--config /etc/quickio/quickio.toml"));
    assert!(value("LimitNOFILE").parse::<usize>().unwrap() >= 1 << 20);
}

#[test]
fn systemd_accepts_the_unit() {
    // Not every host has systemd. The paths of the unit are those of an installed server.
    let folder = Host::new("unit", &[]);
    let unit = fs::read_to_string(in_tree("scripts/quickio.service")).unwrap();
    folder.write("quickio.service", &unit.replace("/usr/local/bin/quickio", "/bin/true"));
    let verified =
        Command::new("systemd-analyze").arg("verify").arg(folder.0.join("quickio.service")).output();
    match verified {
        Ok(output) => {
            let complaints = text(&output);
            let complaints: Vec<&str> =
                complaints.lines().filter(|line| line.contains("quickio.service")).collect();
            assert!(complaints.is_empty(), "{complaints:?}");
        }
        Err(_) => eprintln!("**** SKIPPED: there is no systemd-analyze here ****"),
    }
}

#[test]
fn the_operators_guide_has_the_generated_tables() {
    let guide = fs::read_to_string(in_tree("docs/operations.md")).unwrap();
    for table in [config::docs(), metrics::docs()] {
        assert!(guide.contains(&table), "run scripts/docs.sh; docs/operations.md should contain: {table}");
    }
}

#[test]
fn the_guide_for_client_tests_has_the_generated_table() {
    let guide = fs::read_to_string(in_tree("docs/client-tests.md")).unwrap();
    let table = config::clienttest::docs();
    assert!(guide.contains(&table), "run scripts/docs.sh; docs/client-tests.md should contain: {table}");
}
