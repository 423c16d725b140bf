//! Tests of the settings from end to end: sources, precedence, the text of every error, and the generated texts.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::arrays::ENTRY_SETTINGS;
use super::clienttest::{Mangling, Mode};
use super::table::{Group, RELATIONS, SETTINGS, Setting, ValueKind};
use super::*;
use crate::limits::ORIGINS_MAX;

/// Returns the settings of a command line and an environment.
fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Config, String> {
    match action(args, env)? {
        Action::Run(config) => Ok(config),
        Action::Print(text) => panic!("printed: {text}"),
    }
}

fn action(args: &[&str], env: &[(&str, &str)]) -> Result<Action, String> {
    let args = args.iter().map(OsString::from);
    let env = env.iter().map(|(name, value)| (name.into(), value.into()));
    from_args(args, env).map_err(|error| error.to_string())
}

fn of_file(text: &str) -> Result<Config, String> {
    let settings = sources::text(text, Path::new("q.toml")).map_err(|error| error.to_string())?;
    resolve::config(&settings).map_err(|error| error.to_string())
}

/// A file with this content, which is removed when the value is dropped.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, content: &[u8]) -> TempFile {
        let path = std::env::temp_dir().join(format!("quickio-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        TempFile(path)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns a configuration in which no field has its default.
fn nothing_by_default() -> Config {
    Config {
        listen: vec![],
        listen_mode: 0,
        listen_group: Some("x".into()),
        admin: vec![],
        admin_tls: true,
        admin_password_file: Some("x".into()),
        tls_cert: vec!["x".into()],
        tls_key: vec!["x".into()],
        tls_min_version: TlsVersion::Tls13,
        tls_client_ca: Some("x".into()),
        tls_client_auth: TlsClientAuth::Optional,
        tls_ticket_key_file: Some("x".into()),
        api: vec![SocketAddr::from(([127, 0, 0, 1], 1))],
        api_tls: true,
        api_keys: vec![],
        api_body_bytes_max: 81,
        api_bytes_max: 82,
        admin_hosts: vec!["x".into()],
        shards: Some(77),
        app: vec!["x".into()],
        app_dir: Some("/x".into()),
        app_settings: Default::default(),
        rules: vec![],
        python: "x".into(),
        node: "x".into(),
        reload: true,
        public_address: Some("x".into()),
        origin: vec![],
        auth: AuthMode::Required,
        auth_keys: vec![],
        auth_audience: vec!["x".into()],
        auth_issuer: vec!["x".into()],
        auth_timeout: Duration::from_millis(81),
        auth_grace: Duration::from_millis(82),
        auth_leeway: Duration::from_millis(83),
        auth_cache_bytes_max: 84,
        history_bytes_max: 123_456,
        members_max: 77,
        members_bytes_max: 654_321,
        members_linger: Duration::from_secs(16),
        app_headers: vec!["x".into()],
        log_level: LogLevel::Trace,
        log_format: LogFormat::Json,
        clock: ClockKind::Manual,
        worker_start_timeout: Duration::from_millis(1),
        worker_timeout: Duration::from_millis(2),
        worker_request_timeout: Duration::from_millis(3),
        worker_stop_timeout: Duration::from_millis(4),
        worker_requests_max: 99,
        worker_outbox_bytes_max: 98,
        clients_max: 1,
        trusted_proxies: vec![TrustedProxy::Unix],
        proxy_protocol: vec![TrustedProxy::Unix],
        proxy_protocol_optional: true,
        sessions_share: 2,
        connections_per_address_max: Some(2),
        message_bytes_max: 3,
        http_head_bytes_max: 26,
        compression: true,
        compression_min_bytes: 28,
        compression_single_min_bytes: 29,
        outbox_bytes_max: 4,
        outboxes_bytes_max: Some(6),
        incomplete_bytes_max: Some(61),
        clients_subs_total: 5,
        clients_subs_pressure: 6,
        clients_subs_min: 7,
        clients_subs_max: 71,
        paths_bytes_max: 72,
        clients_cb_max_age: Duration::from_millis(8),
        timeout: Duration::from_millis(9),
        close_timeout: Duration::from_millis(10),
        send_timeout: Duration::from_millis(1010),
        http_idle_timeout: Duration::from_millis(27),
        heartbeat_interval: Duration::from_millis(11),
        heartbeat_slack: Duration::from_millis(12),
        poll_interval: Duration::from_millis(24),
        poll_slack: Duration::from_millis(25),
        heartbeat_challenge: Duration::from_millis(13),
        heartbeat_timeout: Duration::from_millis(14),
        shutdown_timeout: Duration::from_millis(15),
        receive_buffers: 16,
        receive_buffer_bytes: 17,
        sends_per_turn_max: 18,
        listen_backlog: 19,
        accepts_in_flight: 20,
        mesh_ring_messages: 21,
        mesh_overflow_bytes_max: 22,
        inbox_messages_max: 23,
        warnings: vec![],
        echo: false,
    }
}

#[test]
fn the_table_and_default_agree() {
    let mut config = nothing_by_default();
    for setting in SETTINGS {
        let location = Location::Flag(setting.name);
        let split = setting.default.split(',');
        let values: Vec<_> =
            split.map(|text| sources::RawValue { text: text.into(), location: location.clone() }).collect();
        resolve::set(setting, &values, &mut config).unwrap();
    }
    assert_eq!(config, Config::default());
}

#[test]
fn no_settings_mean_the_defaults() {
    assert_eq!(run(&[], &[]).unwrap(), Config::default());
    assert_eq!(run(&[], &[("PATH", "/bin"), ("QUICKIO_TIMEOUT", "")]).unwrap(), Config::default());
}

#[test]
fn every_setting_is_a_flag_a_variable_and_a_key() {
    // Clients can only authenticate if there are keys, which are in a file (see below).
    for setting in SETTINGS.iter().filter(|setting| setting.name != "auth") {
        let given = another_value(setting);
        // Some settings need a certificate.
        let needs_certificate = setting.group == Group::Tls && setting.name != "tls-cert";
        let base: &[&str] = if needs_certificate { &["--tls-cert=c.pem"] } else { &[] };
        let file = if needs_certificate { "tls-cert = \"c.pem\"\n" } else { "" };
        let flag = format!("--{}", setting.name);
        let is_switch = matches!(setting.kind, ValueKind::Switch(_));
        let words = [flag.as_str(), given];
        let words = if is_switch { &words[..1] } else { &words };
        let by_flag = run(&[base, words].concat(), &[]).unwrap();
        let by_equals = run(&[base, &[&format!("--{}={given}", setting.name)]].concat(), &[]).unwrap();
        let by_variable = run(base, &[(&setting.variable(), given)]).unwrap();
        let by_key = of_file(&format!("{file}{} = \"{given}\"", setting.name)).unwrap();
        assert_ne!(by_flag, run(base, &[]).unwrap(), "{}", setting.name);
        assert_eq!(by_flag, by_equals, "{}", setting.name);
        assert_eq!(by_flag, by_variable, "{}", setting.name);
        assert_eq!(by_flag, by_key, "{}", setting.name);
    }
}

/// Returns a value that is allowed and is not the default.
fn another_value(setting: &Setting) -> &'static str {
    match setting.name {
        "listen" => "[::1]:80,unix:/run/q.sock",
        "listen-mode" => "0660",
        "listen-group" => "www-data",
        "admin" => "off",
        "api" => "127.0.0.1:9",
        "api-bytes-max" => "1Mi",
        "admin-hosts" => "admin.example,quickio",
        "shards" => "3",
        "app" => "relay,clienttest",
        "app-dir" => "/srv/apps of mine",
        "public-address" => "example.org:8080",
        "origin" => "https://example.org,http://localhost:8080",
        "auth-audience" | "auth-issuer" => "https://one.example,other",
        "auth-grace" | "auth-leeway" | "members-linger" => "20s",
        "app-headers" => "cookie,origin",
        "log-level" => "trace",
        "log-format" => "json",
        "clock" => "manual",
        "tls-cert" => "a.pem,/etc/tls of mine/b.pem",
        "tls-key" => "a.key",
        "tls-client-ca" | "tls-ticket-key-file" | "admin-password-file" => "/etc/tls of mine/file",
        "tls-min-version" => "1.3",
        "tls-client-auth" => "optional",
        "python" | "node" => "/opt/bin/of mine",
        "reload" | "proxy-protocol-optional" | "compression" => "on",
        "clients-subs-pressure" => "61",
        "heartbeat-challenge" => "14m",
        "heartbeat-timeout" => "17m",
        "poll-interval" => "40s",
        "poll-slack" => "2s",
        "clients-subs-min" => "64",
        "paths-bytes-max" => "2Mi",
        "mesh-overflow-bytes-max" => "1Mi",
        "message-bytes-max" | "receive-buffer-bytes" | "mesh-ring-messages" | "receive-buffers" => "8Ki",
        name if name.ends_with("-timeout") || name == "timeout" || name.starts_with("heartbeat-") => "20s",
        "clients-cb-max-age" => "500ms",
        "outbox-bytes-max" => "2Mi",
        "outboxes-bytes-max" => "7",
        "incomplete-bytes-max" => "8",
        "sessions-share" => "20",
        "trusted-proxies" | "proxy-protocol" => "127.0.0.1,10.0.0.0/8,2001:db8::/32,unix",
        _ => "2048",
    }
}

#[test]
fn values_arrive_in_their_fields() {
    let config = run(
        &["--listen", "127.0.0.1:0", "--listen=[::1]:9,unix:/q", "--app=relay", "--app", "a, b"],
        &[("QUICKIO_CLIENTS_SUBS_PRESSURE", "75%"), ("QUICKIO_MESSAGE_BYTES_MAX", "16Ki")],
    )
    .unwrap();
    let listen: Vec<String> = config.listen.iter().map(Listen::to_string).collect();
    assert_eq!(listen, ["127.0.0.1:0", "[::1]:9", "unix:/q"]);
    assert_eq!(names(&config), ["relay", "a", "b"]);
    assert_eq!(config.clients_subs_pressure, 75);
    assert_eq!(config.message_bytes_max, 16_384);
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let file = TempFile::new(
        "precedence.toml",
        b"timeout = \"1s\"\nclose-timeout = \"1s\"\nshards = 1\napp = ['a']\n",
    );
    let env = [("QUICKIO_TIMEOUT", "2s"), ("QUICKIO_CLOSE_TIMEOUT", "2s"), ("QUICKIO_CONFIG", file.name())];
    let config = run(&["--timeout", "3s", "--app", "b"], &env).unwrap();
    assert_eq!(config.timeout, Duration::from_secs(3));
    assert_eq!(config.close_timeout, Duration::from_secs(2));
    assert_eq!(config.shards, Some(1));
    assert_eq!(names(&config), ["b"], "a list replaces a list");
    assert_eq!(config.heartbeat_interval, Config::default().heartbeat_interval);
}

#[test]
fn the_config_flag_overrides_the_config_variable() {
    let file = TempFile::new("flagged.toml", b"shards = 2\n");
    let config = run(&["--config", file.name()], &[("QUICKIO_CONFIG", "/does/not/exist")]).unwrap();
    assert_eq!(config.shards, Some(2));
}

#[test]
fn the_last_value_of_a_repeated_flag_wins() {
    assert_eq!(run(&["--shards", "2", "--shards", "3"], &[]).unwrap().shards, Some(3));
}

#[test]
fn optional_settings_can_be_cleared() {
    let env = [("QUICKIO_APP", "relay"), ("QUICKIO_PUBLIC_ADDRESS", "a.example"), ("QUICKIO_SHARDS", "4")];
    let config = run(&["--app", "", "--public-address=", "--shards=auto", "--admin", "off"], &env).unwrap();
    assert!(config.app.is_empty() && config.public_address.is_none());
    assert!(config.shards.is_none() && config.admin.is_empty());
}

#[test]
fn numbers_need_no_quotes_in_the_file() {
    let config = of_file("clients-max = 1_000\nclients-subs-pressure = 0x10\nshards = \"auto\"\n").unwrap();
    assert_eq!((config.clients_max, config.clients_subs_pressure, config.shards), (1000, 16, None));
}

#[test]
fn ignores_variables_of_other_programs() {
    let url = "tcp://10.0.0.1:8081";
    for (name, value) in [
        ("QUICKIO_FUZZ_SEED", "1"),
        ("QUICKIO_TEST_BINARY", "1"),
        ("QUICKIO_WORKER", "3"),
        // Kubernetes, for Services named quickio and quickio-admin.
        ("QUICKIO_SERVICE_HOST", "10.0.0.1"),
        ("QUICKIO_SERVICE_PORT_HTTP", "80"),
        ("QUICKIO_PORT", url),
        ("QUICKIO_PORT_8080_TCP", url),
        ("QUICKIO_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("QUICKIO_ADMIN_SERVICE_PORT", "8081"),
        ("QUICKIO_ADMIN_SERVICE_PORT_METRICS_HTTP", "8081"),
        ("QUICKIO_ADMIN_PORT", url),
        ("QUICKIO_ADMIN_PORT", "udp://[fd00::1]:8081"),
        ("QUICKIO_ADMIN_PORT_8081_TCP", url),
        ("QUICKIO_ADMIN_PORT_8081_TCP_PROTO", "tcp"),
        ("QUICKIO_ADMIN_PORT_8081_TCP_PORT", "8081"),
        ("QUICKIO_ADMIN_PORT_8081_TCP_ADDR", "10.0.0.1"),
        ("QUICKIO_ADMIN_PORT_53_SCTP_ADDR", "10.0.0.1"),
        // Docker, for a link with the alias quickio or quickio_admin.
        ("QUICKIO_NAME", "/web/quickio"),
        ("QUICKIO_ENV_PATH", "/bin"),
        ("QUICKIO_ADMIN_ENV_LANG", "C"),
    ] {
        assert_eq!(run(&[], &[(name, value)]).unwrap(), Config::default(), "{name}={value}");
    }
    for (name, value) in [
        ("QUICKIO_ADMIN_PORT", "8081"),
        ("QUICKIO_ADMIN_PORT", "http://10.0.0.1"),
        ("QUICKIO_PORT", "8080"),
        ("QUICKIO_ADMIN_HOST", "10.0.0.1"),
        ("QUICKIO_ADMIN_PORT_8081", url),
        ("QUICKIO_ADMIN_PORT_X_TCP", url),
        ("QUICKIO_SUPPORT", url),
        ("QUICKIO_NAME", "quickio"),
        ("QUICKIO_CLIENT_MAX", "5"),
    ] {
        let error = run(&[], &[(name, value)]).unwrap_err();
        assert!(error.contains(name), "{name}={value}: {error}");
    }
    // A setting is a setting, whatever its value looks like.
    assert!(run(&[], &[("QUICKIO_ADMIN", url)]).unwrap_err().contains("admin cannot be"));
    for setting in SETTINGS {
        let variable = setting.variable();
        let name = variable.strip_prefix("QUICKIO_").unwrap();
        assert!(!foreign::is_foreign(name, url) && !foreign::is_foreign(name, "/a/b"), "{name}");
    }
}

#[test]
fn errors_of_the_command_line() {
    for (args, message) in [
        (
            &["--clients-mx", "3"][..],
            "unknown setting `--clients-mx` (on the command line): did you mean `--clients-max`?",
        ),
        (
            &["--clients_max=3"],
            "unknown setting `--clients_max` (on the command line): did you mean `--clients-max`?",
        ),
        (&["--hepl"], "unknown setting `--hepl` (on the command line): did you mean `--help`?"),
        (
            &["--frobnicate"],
            "unknown setting `--frobnicate` (on the command line): --help lists all settings",
        ),
        (&["-x"], "unknown setting `-x` (on the command line): --help lists all settings"),
        (&["serve"], "unexpected argument `serve`: settings are given as flags (see --help)"),
        (&["--", "--help"], "unexpected argument `--help`: settings are given as flags (see --help)"),
        (
            &["--timeout"],
            "the flag --timeout needs a value; allowed: 1ms to 24h, a whole number with a unit, such as 500ms, 10s, 15m or 1h",
        ),
        (&["--config"], "the flag --config needs the path of a TOML file"),
        (
            &["--timeout", "10"],
            "timeout cannot be `10`: its unit must be ms, s, m or h; allowed: 1ms to 24h, a whole number with a unit, such as 500ms, 10s, 15m or 1h (flag --timeout)",
        ),
        (
            &["--timeout", "25h"],
            "timeout cannot be `25h`: it is out of range; allowed: 1ms to 24h, a whole number with a unit, such as 500ms, 10s, 15m or 1h (flag --timeout)",
        ),
        (
            &["--shards=0"],
            "shards cannot be `0`: it is out of range; allowed: auto, or 1 to 128 (flag --shards)",
        ),
        (
            &["--shards=129"],
            "shards cannot be `129`: it is out of range; allowed: auto, or 1 to 128 (flag --shards)",
        ),
        (
            &["--mesh-ring-messages=100"],
            "mesh-ring-messages cannot be `100`: it is not a power of two; allowed: 8 to 1048576 messages, a power of two (flag --mesh-ring-messages)",
        ),
        (
            &["--log-level=loud"],
            "log-level cannot be `loud`: it is not one of the choices; allowed: error, warn, info, debug or trace (flag --log-level)",
        ),
        (
            &["--admin=localhost"],
            "admin cannot be `localhost`: it has no port; write it behind a colon; allowed: ip:port, [ip6]:port or name:port, after tls://, plain:// or nothing; or off (flag --admin)",
        ),
        (
            &["--listen=1.2.3.4:5,1.2.3.4:5"],
            "listen cannot be `1.2.3.4:5`: it appears twice in the list; allowed: one or more of ip:port, [ip6]:port, name:port and unix:/path, each after tls://, plain://, either:// or nothing, separated by commas (flag --listen)",
        ),
        (
            &["--listen="],
            "listen cannot be ``: it has no port; write it behind a colon; allowed: one or more of ip:port, [ip6]:port, name:port and unix:/path, each after tls://, plain://, either:// or nothing, separated by commas (flag --listen)",
        ),
        (
            &["--app=a,,b"],
            "app cannot be ``: a name consists of 1 to 64 of the characters A-Z a-z 0-9 - _; allowed: names and files, separated by commas (flag --app)",
        ),
        (
            &["--origin=https://a.example/"],
            "origin cannot be `https://a.example/`: an origin has no path, not even a final slash; allowed: *, or one or more of http://host[:port], https://host[:port], scheme://host, file:// and null, separated by commas (flag --origin)",
        ),
        (
            &["--origin", "http://a.example,*"],
            "origin cannot be `*`: it must be the only entry of the list; allowed: *, or one or more of http://host[:port], https://host[:port], scheme://host, file:// and null, separated by commas (flag --origin)",
        ),
        (
            &["--origin=http://a.example,http://A.example:80"],
            "origin cannot be `http://A.example:80`: it appears twice in the list; allowed: *, or one or more of http://host[:port], https://host[:port], scheme://host, file:// and null, separated by commas (flag --origin)",
        ),
        (
            &["--heartbeat-interval=5s"],
            "heartbeat-slack (10s, the default) must be less than heartbeat-interval (5s, flag --heartbeat-interval); otherwise heartbeats would be sent without a pause",
        ),
        (
            &["--clients-subs-total=100"],
            "clients-subs-min (128, the default) must be at most clients-subs-total (100, flag --clients-subs-total); otherwise no client could have the subscriptions that each is granted",
        ),
    ] {
        assert_eq!(action(args, &[]).unwrap_err(), message);
    }
    assert!(action(&["--help=me"], &[]).is_ok(), "help is printed before its value is rejected");
}

const CERTIFICATE: &[&str] = &["--tls-cert", "c.pem", "--tls-key", "k.pem"];

#[test]
fn the_kinds_of_listeners() {
    use ListenKind::{Either, Plain, Tls};
    for (listen, certificates, expected) in [
        ("127.0.0.1:1,unix:/q", &[][..], [Plain, Plain]),
        ("127.0.0.1:1,unix:/q", CERTIFICATE, [Tls, Plain]),
        ("plain://127.0.0.1:1,tls://unix:/q", CERTIFICATE, [Plain, Tls]),
        ("either://127.0.0.1:1,either://unix:/q", CERTIFICATE, [Either, Either]),
        ("plain://127.0.0.1:1,plain://unix:/q", &[], [Plain, Plain]),
    ] {
        let config = run(&[&["--listen", listen], certificates].concat(), &[]).unwrap();
        let kinds: Vec<ListenKind> = config.listen.iter().map(|listen| config.listen_kind(listen)).collect();
        assert_eq!(kinds, expected, "{listen} {certificates:?}");
    }
}

#[test]
fn certificates_and_keys_are_lists() {
    let config = run(&["--tls-cert=a,b", "--tls-key", "a.key", "--tls-key", "b.key"], &[]).unwrap();
    assert_eq!(config.tls_cert, ["a", "b"].map(PathBuf::from));
    assert_eq!(config.tls_key, ["a.key", "b.key"].map(PathBuf::from));
    let config =
        of_file("tls-cert = ['a', 'b']\ntls-min-version = '1.3'\nadmin = 'tls://127.0.0.1:1'\n").unwrap();
    assert!(config.tls_cert.len() == 2 && config.tls_key.is_empty() && config.admin_tls);
    assert_eq!(config.tls_min_version, TlsVersion::Tls13);
    let config = run(&["--tls-cert=a", "--tls-cert=b", "--tls-key=k,k"], &[]).unwrap();
    assert_eq!(config.tls_key, ["k", "k"].map(PathBuf::from), "two certificates may have one key");
}

#[test]
fn errors_of_tls() {
    let pair = "set tls-cert and tls-key to the files of the certificate and its private key";
    for (args, message) in [
        (&["--listen=tls://127.0.0.1:1"][..], format!("listen tls://127.0.0.1:1 needs a certificate: {pair}")),
        (&["--listen=127.0.0.1:1,either://unix:/q"], format!("listen either://unix:/q needs a certificate: {pair}")),
        (&["--admin=tls://127.0.0.1:1"], format!("admin tls://127.0.0.1:1 needs a certificate: {pair}")),
        (&["--tls-key=k"], format!("tls-key needs a certificate: {pair}")),
        (&["--tls-client-ca=c"], format!("tls-client-ca needs a certificate: {pair}")),
        (&["--tls-ticket-key-file=t"], format!("tls-ticket-key-file needs a certificate: {pair}")),
        (
            &["--tls-cert=a,b", "--tls-key=k"],
            "tls-cert names 2 files and tls-key names 1: give one key for each certificate, in the same order, or no \
             tls-key if the files of the certificates have their keys"
                .into(),
        ),
        (
            &["--tls-min-version=1.1"],
            "tls-min-version cannot be `1.1`: it is not one of the choices; allowed: 1.2 or 1.3 (flag \
             --tls-min-version)"
                .into(),
        ),
        (
            &["--tls-cert=a,,b"],
            "tls-cert cannot be ``: a path must not be empty; allowed: paths of files, separated by commas (flag \
             --tls-cert)"
                .into(),
        ),
        (
            &["--admin=either://127.0.0.1:1"],
            "admin cannot be `either://127.0.0.1:1`: the word before :// must be plain or tls; allowed: ip:port, \
             [ip6]:port or name:port, after tls://, plain:// or nothing; or off (flag --admin)"
                .into(),
        ),
        (
            &["--listen=https://127.0.0.1:1"],
            "listen cannot be `https://127.0.0.1:1`: the word before :// must be plain, tls or either; allowed: one or \
             more of ip:port, [ip6]:port, name:port and unix:/path, each after tls://, plain://, either:// or nothing, \
             separated by commas (flag --listen)"
                .into(),
        ),
        (
            &["--listen=unix:/q,plain://unix:/q"],
            "listen cannot be `plain://unix:/q`: it appears twice in the list; allowed: one or more of ip:port, \
             [ip6]:port, name:port and unix:/path, each after tls://, plain://, either:// or nothing, separated by \
             commas (flag --listen)"
                .into(),
        ),
    ] {
        assert_eq!(action(args, &[]).unwrap_err(), message);
    }
    // The kernel chooses two ports.
    let listen = run(&["--listen=127.0.0.1:0,plain://127.0.0.1:0"], &[]).unwrap().listen;
    assert_eq!(listen.len(), 2);
}

#[test]
fn there_are_not_too_many_origins() {
    let origins: Vec<String> = (0..=ORIGINS_MAX).map(|number| format!("a{number}://b")).collect();
    let error = run(&["--origin", &origins.join(",")], &[]).unwrap_err();
    assert!(error.starts_with("origin cannot be `a65536://b`: there are more than 65536 origins"), "{error}");
}

#[test]
fn errors_of_the_environment() {
    for (name, value, message) in [
        (
            "QUICKIO_CLIENT_MAX",
            "3",
            "unknown setting `QUICKIO_CLIENT_MAX` (in the environment): did you mean `QUICKIO_CLIENTS_MAX`?",
        ),
        (
            "QUICKIO_CLIENTS-MAX",
            "3",
            "unknown setting `QUICKIO_CLIENTS-MAX` (in the environment): did you mean `QUICKIO_CLIENTS_MAX`?",
        ),
        ("QUICKIO_", "3", "unknown setting `QUICKIO_` (in the environment): --help lists all settings"),
        (
            "QUICKIO_CLOCK",
            "sundial",
            "clock cannot be `sundial`: it is not one of the choices; allowed: system or manual (variable QUICKIO_CLOCK)",
        ),
    ] {
        assert_eq!(action(&[], &[(name, value)]).unwrap_err(), message);
    }
}

#[test]
fn errors_of_the_file() {
    for (text, message) in [
        ("\n\n clients_max = 3", "unknown setting `clients_max` (q.toml:3:2): did you mean `clients-max`?"),
        ("[limits]\nclients-max = 3", "unknown setting `limits` (q.toml:1:2): --help lists all settings"),
        (
            "timeout = 10",
            "timeout cannot be `10`: it must be a string in quotes, but it is a TOML integer; allowed: 1ms to 24h, a whole number with a unit, such as 500ms, 10s, 15m or 1h (q.toml:1:11)",
        ),
        (
            "# é\nshards  =  'many'",
            "shards cannot be `many`: it does not begin with a whole number; allowed: auto, or 1 to 128 (q.toml:2:12)",
        ),
        (
            "shards = -1",
            "shards cannot be `-1`: it does not begin with a whole number; allowed: auto, or 1 to 128 (q.toml:1:10)",
        ),
        (
            "app = ['é', true]",
            "app cannot be `true`: it must be a string in quotes, but it is a TOML boolean; allowed: names and files, separated by commas (q.toml:1:13)",
        ),
        (
            "app = [\n 'a',\n 'b c']",
            "app cannot be `b c`: a name consists of 1 to 64 of the characters A-Z a-z 0-9 - _; allowed: names and files, separated by commas (q.toml:3:2)",
        ),
        (
            "listen = []",
            "listen cannot be ``: it has no port; write it behind a colon; allowed: one or more of ip:port, [ip6]:port, name:port and unix:/path, each after tls://, plain://, either:// or nothing, separated by commas (q.toml:1:10)",
        ),
        (
            "log-level = ['info']",
            "log-level cannot be `['info']`: it must be a string in quotes, but it is a TOML array; allowed: error, warn, info, debug or trace (q.toml:1:13)",
        ),
        (
            "shards = { a = 1 }",
            "shards cannot be `{ a = 1 }`: it must be a number or a string, but it is a TOML inline table; allowed: auto, or 1 to 128 (q.toml:1:10)",
        ),
        (
            "[shards]\na = 1",
            "shards cannot be `[shards]`: it must be a number or a string, but it is a TOML table; allowed: auto, or 1 to 128 (q.toml:1:1)",
        ),
        (
            "heartbeat-timeout = '5m'",
            "heartbeat-challenge (15m, the default) must be less than heartbeat-timeout (5m, q.toml:1:21); otherwise a silent client would be closed without having been challenged",
        ),
    ] {
        assert_eq!(of_file(text).unwrap_err(), message, "{text}");
    }
    for text in [
        "shards = ",
        "shards 3",
        "shards = 1\nshards = 2",
        "a = \"",
        "\u{0}",
        "= 3",
        "shards = 99999999999999999999",
        // Found by a fuzz target: toml_edit 0.23 panicked.
        "x==\nx.=",
    ] {
        let message = of_file(text).unwrap_err();
        assert!(
            message.starts_with("q.toml:") && message.contains(" is not valid TOML: "),
            "{text:?}: {message}"
        );
    }
}

#[test]
fn reports_files_that_cannot_be_read() {
    let message = action(&["--config", "/does/not/exist.toml"], &[]).unwrap_err();
    assert!(
        message.starts_with("cannot read the settings file /does/not/exist.toml: No such file"),
        "{message}"
    );
    let message = action(&["--config", "/"], &[]).unwrap_err();
    assert!(message.starts_with("cannot read the settings file /: "), "{message}");
    let not_text = TempFile::new("not-text.toml", b"timeout = \"\xff\"");
    let message = action(&["--config", not_text.name()], &[]).unwrap_err();
    assert!(message.contains("UTF-8"), "{message}");
    let long = TempFile::new("long.toml", &b"#\n".repeat(600_000));
    let message = action(&["--config", long.name()], &[]).unwrap_err();
    assert!(message.ends_with("is longer than 1048576 bytes"), "{message}");
}

#[test]
fn rejects_values_that_are_not_unicode() {
    let bad = OsStr::from_bytes(b"\xff\xfe").to_owned();
    let error = from_args(["--app".into(), bad.clone()], []).unwrap_err();
    assert!(error.to_string().contains("it is not valid UTF-8"), "{error}");
    let error = from_args([], [("QUICKIO_APP".into(), bad.clone())]).unwrap_err();
    assert!(error.to_string().contains("(variable QUICKIO_APP)"), "{error}");
    assert!(matches!(from_args([bad.clone()], []), Err(ConfigError::UnexpectedArgument { .. })));
    let mut variable = OsString::from("QUICKIO_");
    variable.push(&bad);
    assert!(matches!(from_args([], [(variable, "x".into())]), Err(ConfigError::UnknownSetting { .. })));
}

#[test]
fn relations_are_checked_from_both_sides() {
    for relation in RELATIONS {
        let (lesser, greater) = (Setting::find(relation.lesser), Setting::find(relation.greater));
        assert!(lesser.is_some() && greater.is_some());
    }
    assert!(run(&["--heartbeat-slack=50s"], &[]).is_err());
    assert!(run(&["--heartbeat-slack=49999ms"], &[]).is_ok());
    assert!(run(&["--outbox-bytes-max=65536"], &[]).is_err());
    assert!(run(&["--outbox-bytes-max=65537"], &[]).is_ok());
    let most = "--clients-subs-max=5000000";
    assert!(run(&["--clients-subs-min=4194304", most], &[]).is_ok());
    assert!(run(&["--clients-subs-min=4194305", most], &[]).is_err());
    assert!(run(&["--clients-subs-min=4096"], &[]).is_ok());
    assert!(run(&["--clients-subs-min=4097"], &[]).is_err());
}

#[test]
fn help_and_version_are_printed() {
    for args in [&["--help"][..], &["-h"], &["--shards", "2", "--help", "--nonsense"]] {
        assert_eq!(action(args, &[]).unwrap(), Action::Print(GeneratedText::Help));
    }
    for args in [&["--version"][..], &["-V"]] {
        assert_eq!(action(args, &[]).unwrap(), Action::Print(GeneratedText::Version));
    }
    assert_eq!(version(), format!("quickio {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(action(&["--generate-docs"], &[]).unwrap(), Action::Print(GeneratedText::Docs));
    let printed = GeneratedText::Docs.to_string();
    assert!(printed.contains(&docs()) && printed.contains(&crate::metrics::docs()));
}

#[test]
fn help_fits_a_terminal_and_lists_everything() {
    let help = help();
    for line in help.lines() {
        assert!(line.chars().count() <= 80 && line == line.trim_end(), "{line:?}");
    }
    for setting in SETTINGS {
        assert!(help.contains(&format!("\n  --{} ", setting.name)), "{}", setting.name);
    }
}

#[test]
fn the_generated_file_sets_the_defaults() {
    assert_eq!(action(&["--generate-config"], &[]).unwrap(), Action::Print(GeneratedText::SettingsFile));
    let file = GeneratedText::SettingsFile.to_string();
    assert_eq!(of_file(&file).unwrap(), Config::default());
    let is_key =
        |line: &str| line.starts_with('#') && line[1..].starts_with(|c: char| c.is_ascii_lowercase());
    let bare = |line: &str| if is_key(line) { line[1..].to_owned() } else { line.to_owned() };
    let uncommented: Vec<String> = file.lines().map(bare).collect();
    let uncommented = uncommented.join("\n");
    assert_eq!(of_file(&uncommented).unwrap(), Config::default());
    let settings = sources::text(&uncommented, Path::new("q.toml")).unwrap();
    assert_eq!(settings.iter().count(), SETTINGS.len(), "a setting is missing");
}

#[test]
fn the_docs_name_every_setting() {
    let docs = docs();
    for setting in SETTINGS {
        let rows = docs.lines().filter(|line| line.starts_with(&format!("| `{}` |", setting.name)));
        assert_eq!(rows.count(), 1, "{}", setting.name);
    }
    for line in docs.lines().filter(|line| line.starts_with('|')) {
        let bars = line.replace("\\|", "").matches('|').count();
        assert_eq!(bars, 5, "{line}");
    }
}

fn client_test(args: &[&str], env: &[(&str, &str)]) -> Result<Action<ClientTestConfig>, String> {
    let args = args.iter().map(OsString::from);
    let env = env.iter().map(|(name, value)| (name.into(), value.into()));
    client_test_from_args(args, env).map_err(|error| error.to_string())
}

fn client_test_run(args: &[&str]) -> ClientTestConfig {
    match client_test(args, &[]) {
        Ok(Action::Run(tests)) => tests,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn client_tests_have_a_proxy_and_its_applications() {
    let tests = client_test_run(&[]);
    let server = Config { app: vec!["relay".into(), "clienttest".into()], ..Config::default() };
    let proxy = "127.0.0.1:8082".parse().unwrap();
    assert_eq!(tests, ClientTestConfig { server, proxy, mangle: Mangling::Rotate });
    let tests = client_test_run(&[
        "--app=mine,clienttest",
        "--proxy",
        "[::1]:0",
        "--mangle=cut",
        "--shards",
        "1",
        "--mangle",
        "none",
    ]);
    assert_eq!(names(&tests.server), ["mine", "clienttest", "relay"]);
    assert_eq!(tests.server.shards, Some(1));
    assert_eq!((tests.proxy.to_string().as_str(), tests.mangle), ("[::1]:0", Mangling::Always(Mode::None)));
    for mode in Mode::ALL {
        assert_eq!(client_test_run(&["--mangle", mode.name()]).mangle, Mangling::Always(*mode));
    }
}

#[test]
fn errors_of_client_tests() {
    const MODES: &str = "none, status-200, connection-removed, upgrade-removed, key-removed, key-changed, \
                         version-removed, version-changed, protocol-removed, protocol-changed, \
                         answer-connection-removed, answer-upgrade-removed, answer-protocol-removed, \
                         answer-protocol-changed, accept-removed, accept-changed, swallow, cut, or rotate";
    for (args, message) in [
        (
            &["--mangle", "acept-removed"][..],
            format!(
                "mangle cannot be `acept-removed`: there is no such mode, did you mean `accept-removed`?; \
                 allowed: {MODES} (flag --mangle)"
            ),
        ),
        (
            &["--mangle=everything"],
            format!("mangle cannot be `everything`: there is no such mode; allowed: {MODES} (flag --mangle)"),
        ),
        (&["--mangle"], format!("the flag --mangle needs a value; allowed: {MODES}")),
        (&["--proxy"], "the flag --proxy needs a value; allowed: ip:port, [ip6]:port or name:port".into()),
        (
            &["--proxy=off"],
            "proxy cannot be `off`: it has no port; write it behind a colon; allowed: ip:port, [ip6]:port or name:port \
             (flag --proxy)"
                .into(),
        ),
        (
            &["--mangel=cut"],
            "unknown setting `--mangel` (on the command line): did you mean `--mangle`?".into(),
        ),
        (
            &["--clients-mx", "3"],
            "unknown setting `--clients-mx` (on the command line): did you mean `--clients-max`?".into(),
        ),
        (
            &["clienttest"],
            "unexpected argument `clienttest`: settings are given as flags (see --help)".into(),
        ),
        (
            &["--listen=unix:/q"],
            "clienttest needs a TCP address in listen that is not only for TLS, because its proxy connects to it; \
             add one such as plain://127.0.0.1:8080"
                .into(),
        ),
    ] {
        assert_eq!(client_test(args, &[]).unwrap_err(), message);
    }
    let error = client_test_from_args(["--mangle".into(), OsStr::from_bytes(b"\xff").to_owned()], []);
    assert!(error.unwrap_err().to_string().contains("it is not valid UTF-8"));
}

#[test]
fn the_server_does_not_accept_flags_of_client_tests() {
    for flag in ["--proxy=127.0.0.1:1", "--mangle=cut"] {
        let message = action(&[flag], &[]).unwrap_err();
        assert!(message.starts_with("unknown setting `--"), "{message}");
        assert!(!message.contains("did you mean"), "{message}");
    }
    assert!(client_test(&[], &[("QUICKIO_MANGLE", "cut")]).is_err());
    assert!(of_file("mangle = 'cut'").is_err());
    for text in [settings_file(), docs()] {
        assert!(!text.contains("mangle"), "{text}");
    }
}

#[test]
fn client_tests_print_texts_too() {
    for (args, text) in [
        (&["--mangle", "cut", "-h"][..], GeneratedText::Help),
        (&["--version"], GeneratedText::Version),
        (&["--generate-config"], GeneratedText::SettingsFile),
        (&["--generate-docs"], GeneratedText::Docs),
    ] {
        assert!(matches!(client_test(args, &[]), Ok(Action::Print(printed)) if printed == text), "{args:?}");
    }
}

proptest! {
    #[test]
    fn no_command_line_panics(args in prop::collection::vec("(--)?[a-z=,-]{0,12}|\\PC{0,8}", 0..6)) {
        let _ = from_args(args.into_iter().map(OsString::from), []);
    }

    #[test]
    fn no_value_panics(row in 0..SETTINGS.len(), value in "\\PC{0,20}|[0-9]{0,25}[a-zA-Z]{0,2}") {
        let _ = run(&[&format!("--{}={value}", SETTINGS[row].name)], &[]);
    }

    #[test]
    fn no_file_panics(text in "([a-z-]{1,8} ?= ?([0-9\"'\\[{}\\],]|\\PC){0,10}\n?){0,4}|\\PC{0,40}") {
        let _ = of_file(&text);
    }

    #[test]
    fn durations_are_exact(ms in 1u64..=86_400_000) {
        let config = run(&[&format!("--clients-cb-max-age={ms}ms")], &[]).unwrap();
        prop_assert_eq!(config.clients_cb_max_age.as_millis(), u128::from(ms));
    }
}

#[test]
fn applications_are_names_and_files() {
    let apps = |text: &str| run(&["--app", text], &[]).map(|config| names(&config));
    assert_eq!(apps("relay,./a b.so,chat.so,/x/y").unwrap(), ["relay", "./a b.so", "chat.so", "/x/y"]);
    assert!(apps("a b").is_err() && apps("chat.").is_err(), "neither names nor files");
    assert!(apps(&"/x".repeat(3000)).is_err(), "longer than a path can be");
    assert!(apps("./a.so,./a.so").is_err(), "twice");
}

#[test]
fn applications_have_options() {
    let apps = |text: &str| run(&["--app", text], &[]).map(|config| names(&config));
    assert_eq!(apps("relay,a.py, instances=4 ,b").unwrap(), ["relay", "a.py,instances=4", "b"]);
    assert_eq!(apps("./x=1.so,./y=2").unwrap(), ["./x=1.so", "./y=2"], "files may have any name");
    let of_file = of_file("app = ['a.py,instances=2', 'b.mjs']").unwrap();
    assert_eq!(names(&of_file), ["a.py,instances=2", "b.mjs"]);
    for (text, expected) in [
        ("a.py,instance=4", "`instance=4` is not a valid option"),
        ("a.py,instances=0", "instances must be 1 to 256"),
        ("a.py,instances=257", "instances must be 1 to 256"),
        ("a.py,instances=many", "it does not begin with a whole number"),
        ("a.py,instances=1,instances=2", "once"),
        ("instances=1", "A-Z a-z 0-9"),
    ] {
        let error = apps(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}

#[test]
fn a_switch_needs_no_value() {
    let reload = |args: &[&str]| run(args, &[]).map(|config| config.reload);
    assert!(!reload(&[]).unwrap() && reload(&["--reload"]).unwrap() && reload(&["--reload=on"]).unwrap());
    assert!(!reload(&["--reload", "--reload=off"]).unwrap());
    assert!(reload(&["--reload=maybe"]).is_err() && reload(&["--reload", "off"]).is_err());
    assert!(run(&[], &[("QUICKIO_RELOAD", "on")]).unwrap().reload);
    assert!(of_file("reload = true").unwrap().reload && !of_file("reload = false").unwrap().reload);
    assert!(of_file("reload = 'on'").unwrap().reload && of_file("reload = 1").is_err());
}

/// Returns the applications as a flag accepts them.
fn names(config: &Config) -> Vec<String> {
    config.app.iter().map(App::to_string).collect()
}

#[test]
fn settings_of_the_server_in_the_section_of_an_application_cause_a_warning() {
    let warnings = |text: &str| of_file(text).unwrap().warnings;
    let found = warnings(
        "[app-settings.relay]\n\nlisten = \"1.2.3.4:5\"\ncolour = 1\ntimeout = 3\n[app-settings.b]\nadmin='x'",
    );
    assert_eq!(found.len(), 3, "{found:?}");
    for (warning, words) in found.iter().zip([
        ["`listen`", "q.toml:3:1", "application relay", "above the first section"],
        ["`timeout`", "q.toml:5:1", "application relay", "[app-settings.relay]"],
        ["`admin`", "q.toml:7:1", "application b", "`b = { ... }`"],
    ]) {
        assert!(words.iter().all(|word| warning.contains(word)), "{words:?}: {warning}");
    }
    for text in [
        "listen = \"1.2.3.4:5\"\n[app-settings.relay]\ncolour = 1",
        // These cannot have swallowed a line that was meant for the server.
        "[app-settings]\nrelay = { timeout = 5 }",
        "app-settings.relay.timeout = 5",
    ] {
        assert_eq!(warnings(text), [""; 0], "{text:?}");
    }
    let error = of_file("[app-settings]\nrelay.a = 1\nlisten = \"1.2.3.4:5\"\n").unwrap_err();
    assert!(error.contains("`listen`") && error.contains("above the first section"), "{error}");
}

#[test]
fn applications_have_sections_of_their_own() {
    let text = "app = [\"chat\"]\n[app-settings.chat]\ntext = \"a\\nb\"\nnumber = 1_000\nis = true\npart = 0.50 # half\n\
        [app-settings.other]\na = 'b'\n";
    let config = of_file(text).unwrap();
    let chat: Vec<(&str, &str)> =
        config.app_settings["chat"].iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(chat, [("is", "true"), ("number", "1_000"), ("part", "0.50"), ("text", "a\nb")]);
    assert_eq!(config.app_settings["other"]["a"], "b");
    assert_eq!(names(&config), ["chat"]);
    for (text, expected) in [
        ("app-settings = 1", "`app-settings` is not a table"),
        ("[app-settings]\nchat = 1", "`chat` is not a table"),
        ("app-settings.chat.a = { b = 1 }", "the setting `a` of the application chat is a TOML inline table"),
        ("[app-settings.chat]\na = [1]", "the setting `a` of the application chat is a TOML array"),
        ("[app-settings.chat]\na = 1979-05-27", "datetime"),
        ("[app-setting.chat]\na = 1", "unknown setting `app-setting`"),
        ("[chat]\na = 1", "unknown setting `chat`"),
    ] {
        let error = of_file(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}

#[test]
fn an_address_may_have_a_share_of_what_the_server_can_hold() {
    let share = |max: Option<usize>, clients_max, places| {
        let config = Config { connections_per_address_max: max, clients_max, ..Config::default() };
        config.connections_per_address(places)
    };
    assert_eq!(share(None, 1 << 20, 1 << 21), 1 << 16);
    assert_eq!(share(None, 1 << 20, 40_000), 2500, "the limit on open files counts");
    assert_eq!(share(None, 1000, 40_000), 1024, "many people may share an address");
    assert_eq!((share(Some(7), 1 << 20, 40_000), share(Some(0), 1 << 20, 40_000)), (7, 0));
}

#[test]
fn trusted_proxies_are_networks() {
    let proxies = |text: &str| run(&["--trusted-proxies", text], &[]).map(|config| config.trusted_proxies);
    let network = |text: &str| TrustedProxy::Network(text.parse().unwrap());
    let expected =
        vec![network("127.0.0.1/32"), network("10.0.0.0/8"), network("2001:db8::/32"), TrustedProxy::Unix];
    assert_eq!(proxies("127.0.0.1, 10.9.8.7/8,2001:db8::1/32,unix").unwrap(), expected);
    assert_eq!(proxies("::ffff:192.0.2.1").unwrap(), [network("192.0.2.1/32")]);
    assert_eq!(proxies("").unwrap(), []);
    for wrong in ["localhost", "10.0.0.0/33", "10.0.0/8", "*", "127.0.0.1:80", "10.0.0.0/8,,::1", "unix:/a"] {
        assert!(proxies(wrong).is_err(), "{wrong}");
    }
}

/// Returns the API keys that a settings file has, or the error.
fn api_keys(text: &str) -> Result<Vec<ApiKeySetting>, String> {
    of_file(text).map(|config| config.api_keys)
}

#[test]
fn api_keys_are_sections() {
    let text = "[[api-keys]]\nname = 'shop'\nsecret-file = '/k'\nscopes = ['send', 'broadcast']\n\n[[api-keys]]\n\
                name = 'blog'\nsecret-file = 'l'\nscopes = ['read']\n";
    let key = |name: &str, file: &str, scopes: &[Scope]| ApiKeySetting {
        name: name.into(),
        secret_file: file.into(),
        scopes: scopes.to_vec(),
    };
    let expected = [key("shop", "/k", &[Scope::Broadcast, Scope::Send]), key("blog", "l", &[Scope::Read])];
    assert_eq!(api_keys(text).unwrap(), expected);
    for (text, expected) in [
        (
            "name = 'a b'\nsecret-file = 'l'\nscopes = ['read']",
            "name of [[api-keys]] number 1 cannot be `a b`",
        ),
        ("name = 'a'\nsecret-file = 'l'\nscopes = []", "a key without a scope permits nothing"),
        ("name = 'a'\nsecret-file = 'l'\nscopes = ['all']", "it is not one of the choices"),
        ("name = 'a'\nscopes = ['read']", "[[api-keys]] number 1 has no secret-file"),
        (
            "name = 'a'\nsecret-file = 'l'\nscopes = ['read']\n[[api-keys]]\nname = 'a'\nsecret-file = 'm'\n\
             scopes = ['read']",
            "another API key has this name",
        ),
    ] {
        let error = api_keys(&format!("[[api-keys]]\n{text}\n")).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
    for scope in Scope::ALL {
        assert_eq!(Scope::NAMES[Scope::ALL.iter().position(|other| other == scope).unwrap()], scope.name());
    }
}

fn rules(text: &str) -> Result<Vec<String>, String> {
    let show = |rule: &crate::rules::Rule| {
        let rates = [("rate", rule.rate), ("address-rate", rule.address_rate)];
        let rates = rates.iter().filter_map(|(key, rate)| rate.map(|rate| format!(" {key} {rate}")));
        let (on, send) = (rule.on.name(), rule.send.name());
        format!("{}: {} {on} {send}{}", rule.line, rule.pattern, rates.collect::<String>())
    };
    Ok(of_file(text)?.rules.iter().map(show).collect())
}

#[test]
fn entries_of_arrays_are_read_in_their_order() {
    let text = "app = 'relay'\n\n[[rules]]\npath = \"/user/{user}/**\"\non = 'owner'\nsend = 'nobody'\n\n[[rules]]\n\
                rate = '10/s'\nburst = 50\naddress-rate = '600/m'\npath = '/chat/*'\n\n[app-settings.a]\nx = 1\n";
    let expected = [
        "3: /user/{user}/** owner nobody",
        "8: /chat/* anyone anyone rate 10/s, burst 50 address-rate 600/m",
    ];
    assert_eq!(rules(text).unwrap(), expected);
    let inline = "rules = [\n  { path = '/a', on = 'user' },\n  { path = '/b', send = 'granted' },\n]\n";
    assert_eq!(rules(inline).unwrap(), ["2: /a user anyone", "3: /b anyone granted"]);
    assert_eq!(rules("rules = []").unwrap(), [""; 0]);
    assert_eq!(of_file(text).unwrap().app_settings["a"]["x"], "1");
}

#[test]
fn errors_of_entries_name_the_line_the_entry_and_the_key() {
    for (text, message) in [
        (
            "[[rules]]\npath = '/a'\n\n[[rules]]\npath = '/b'\nom = 'user'\n",
            "unknown key `om` in [[rules]] number 2 (q.toml:6:1): did you mean `on`?",
        ),
        (
            "[[rules]]\npath = '/a'\ncolour = 100\n",
            "unknown key `colour` in [[rules]] number 1 (q.toml:3:1): a rule has the keys path, on, send, rate, burst, \
             address-rate, history, history-ttl, members",
        ),
        (
            "[[rules]]\npath = '/a'\nhistory = 0\n",
            "history of [[rules]] number 1 cannot be `0`: it is out of range; allowed: 1 to 10000 events (q.toml:3:11)",
        ),
        (
            "[[rules]]\npath = '/a'\nhistory-ttl = '5m'\n",
            "history-ttl of [[rules]] number 1 cannot be `5m`: the entry has no history, to which it belongs; allowed: 1s to \
             24h (q.toml:3:15)",
        ),
        (
            "[[rules]]\npath = '/a'\ntimeout = '3s'\n",
            "unknown key `timeout` in [[rules]] number 1 (q.toml:3:1): it is a setting of the server; move it above the \
             first section",
        ),
        (
            "\n[[rules]]\non = 'user'\n",
            "[[rules]] number 1 has no path: add a line `path = ...`; allowed: a path such as /user/{user}/*/** \
             (q.toml:2:1)",
        ),
        (
            "[[rules]]\npath = '/a'\n  on = \"users\"\n",
            "on of [[rules]] number 1 cannot be `users`: it is not one of the choices; allowed: anyone, user, owner, \
             granted or nobody (q.toml:3:8)",
        ),
        (
            "[[rules]]\npath = '/a/**/b'\n",
            "path of [[rules]] number 1 cannot be `/a/**/b`: ** stands for the rest of the path, so nothing may follow it; \
             * is any one segment; allowed: a path such as /user/{user}/*/** (q.toml:2:8)",
        ),
        (
            "[[rules]]\npath = 7\n",
            "path of [[rules]] number 1 cannot be `7`: it must be a string in quotes, but it is a TOML integer; allowed: \
             a path such as /user/{user}/*/** (q.toml:2:8)",
        ),
        (
            "[[rules]]\npath = ''\n",
            "path of [[rules]] number 1 cannot be ``: it must not be empty; allowed: a path such as /user/{user}/*/** \
             (q.toml:2:8)",
        ),
        (
            "[[rules]]\npath = '/user/*'\nsend = 'owner'\n",
            "send of [[rules]] number 1 cannot be `owner`: no segment of the path /user/* is {user}, so it has no owner; \
             allowed: anyone, user, owner, granted or nobody (q.toml:3:8)",
        ),
        (
            "[[rules]]\npath = '/a'\n[[rules]]\npath = '/a'\n",
            "path of [[rules]] number 2 cannot be `/a`: rule 1 has the same path and decides; allowed: a path such as \
             /user/{user}/*/** (q.toml:4:8)",
        ),
        (
            "[[rules]]\npath = '/a'\nrate = '10/d'\n",
            "rate of [[rules]] number 1 cannot be `10/d`: the unit of time must be s, m or h; allowed: a number of events \
             and a unit of time, such as 10/s, 600/m or 5/h (q.toml:3:8)",
        ),
        (
            "[[rules]]\npath = '/a'\nburst = 3\n",
            "burst of [[rules]] number 1 cannot be `3`: the entry has no rate, to which it belongs; allowed: 1 to 1000000 \
             events (q.toml:3:9)",
        ),
        (
            "[[rules]]\npath = '/a'\nrate = '1/s'\nburst = 0\n",
            "burst of [[rules]] number 1 cannot be `0`: it is out of range; allowed: 1 to 1000000 events (q.toml:4:9)",
        ),
        ("rules = 'x'\n", "`rules` is a TOML string; write rules as sections [[rules]] (q.toml:1:9)"),
        ("rules = ['x']\n", "`rules` is a TOML string; write rules as sections [[rules]] (q.toml:1:10)"),
        ("[rules]\npath = '/a'\n", "`rules` is a TOML table; write rules as sections [[rules]] (q.toml:1:1)"),
        ("[[rule]]\npath = '/a'\n", "unknown setting `rule` (q.toml:1:3): did you mean `rules`?"),
    ] {
        assert_eq!(of_file(text).unwrap_err(), message, "{text}");
    }
    let many = "[[rules]]\npath = '/a'\n".repeat(crate::limits::RULES_MAX + 1);
    assert!(of_file(&many).unwrap_err().contains("the same path"), "the first problem is reported");
    let many: Vec<String> =
        (0..=crate::limits::RULES_MAX).map(|number| format!("[[rules]]\npath = '/{number}'\n")).collect();
    assert_eq!(
        of_file(&many.concat()).unwrap_err(),
        "there are more than 1000 sections [[rules]] (q.toml:2001:1)"
    );
    for (args, env) in [(&["--rules", "x"][..], &[][..]), (&[], &[("QUICKIO_RULES", "x")])] {
        let error = run(args, env).unwrap_err();
        assert!(
            error.ends_with("write rules into the settings file, a section [[rules]] for each"),
            "{error}"
        );
    }
}

#[test]
fn rows_of_entries_are_well_formed_and_shown() {
    let (help, file, docs) = (help(), settings_file(), docs());
    for setting in ENTRY_SETTINGS {
        assert!(Setting::find(setting.name).is_none(), "{} is a setting too", setting.name);
        assert!(setting.doc.ends_with('.') && !setting.doc.contains("  "), "{}", setting.name);
        let example = format!("[[{}]]\n{}", setting.name, setting.example);
        let config = of_file(&example).unwrap();
        assert!((setting.differs)(&config, &Config::default()), "{}: the example adds nothing", setting.name);
        assert_eq!(changed(&config, &Config::default()), [setting.name]);
        for key in setting.keys {
            assert!(key.doc.ends_with('.') && !key.doc.contains("  "), "{}", key.name);
            assert!(std::ptr::eq(setting.key(key.name).unwrap(), key), "{} appears twice", key.name);
            let row = format!("| `{}` |", key.name);
            assert!(docs.contains(&row) && file.contains(&format!("#   {}: ", key.name)), "{}", key.name);
        }
        let head = format!("[[{}]]", setting.name);
        assert!(help.contains(&head) && file.contains(&head) && docs.contains(&example), "{head}");
    }
}

/// The keys of a settings file, or the error.
fn auth_keys(text: &str) -> Result<Vec<AuthKeyEntry>, String> {
    of_file(text).map(|config| config.auth_keys)
}

#[test]
fn keys_come_from_files_and_addresses() {
    let text = "auth = 'required'\nauth-issuer = 'https://id.example/'\n\n[[auth-keys]]\nid = 'a'\nalgorithm = 'HS256'\n\
                secret-file = '/s'\n[[auth-keys]]\nid = 'b'\nalgorithm = 'EdDSA'\npublic-key-file = 'p.pem'\n[[auth-keys]]\n\
                id = 'c'\nalgorithm = 'RS256'\njwks-url = 'https://id.example/keys'\n";
    let config = of_file(text).unwrap();
    assert_eq!(
        (config.auth, config.auth_issuer.as_slice()),
        (AuthMode::Required, &["https://id.example/".to_owned()][..])
    );
    let sources: Vec<_> =
        config.auth_keys.iter().map(|key| (key.algorithm.name(), key.source.clone())).collect();
    let expected = [
        ("HS256", AuthKeySource::SecretFile("/s".into())),
        ("EdDSA", AuthKeySource::PublicKeyFile("p.pem".into())),
        ("RS256", AuthKeySource::JwksUrl("https://id.example/keys".into())),
    ];
    assert_eq!(sources, expected);
    assert_ne!(config, of_file(&text.replace("required", "optional")).unwrap());
    let unused = of_file(&text.replace("auth = 'required'", "")).unwrap();
    assert!(unused.warnings[0].contains("[[auth-keys]] has no effect"), "{:?}", unused.warnings);
    for host in ["127.0.0.1:8000", "[::1]", "localhost:80"] {
        let text = format!("[[auth-keys]]\nid = 'a'\nalgorithm = 'ES256'\njwks-url = 'http://{host}/keys'\n");
        assert!(auth_keys(&text).is_ok(), "{host}");
    }
}

#[test]
fn wrong_keys_are_explained() {
    let key = |rest: &str| format!("[[auth-keys]]\nid = 'a'\n{rest}\n");
    for (text, part) in [
        ("[[auth-keys]]\nalgorithm = 'HS256'".to_owned(), "has no id: add a line `id = ...`"),
        (key("secret-file = '/s'"), "has no algorithm"),
        (key("algorithm = 'none'"), "allowed: HS256, HS384, HS512"),
        (key("algorithm = 'HS256'"), "HS256 needs secret-file"),
        (key("algorithm = 'ES256'"), "ES256 needs public-key-file or jwks-url"),
        (key("algorithm = 'HS256'\npublic-key-file = 'p'"), "HS256 needs secret-file instead"),
        (key("algorithm = 'HS256'\njwks-url = 'https://x/'"), "HS256 needs secret-file instead"),
        (key("algorithm = 'RS256'\nsecret-file = 's'"), "RS256 needs public-key-file or jwks-url instead"),
        (
            key("algorithm = 'RS256'\npublic-key-file = 'p'\njwks-url = 'https://x/'"),
            "a key comes from one place",
        ),
        (key("algorithm = 'RS256'\njwks-url = 'http://id.example/'"), "without TLS could be anybody's"),
        (key("algorithm = 'RS256'\njwks-url = 'ftp://id.example/'"), "does not begin with https://"),
        (key("algorithm = 'RS256'\njwks-url = '/keys'"), "it has no host"),
        (key("algorithm = 'RS256'\njwks-url = 'https://me:secret@id.example/'"), "a name and a password"),
        (key("algorithm = 'HS256'\nsecret-file = 's'").repeat(2), "key 1 has the same name"),
    ] {
        let error = auth_keys(&text).unwrap_err();
        assert!(error.contains(part), "{text}\n{error}");
    }
}

#[test]
fn headers_for_applications_are_names_in_lower_case() {
    assert_eq!(run(&["--app-headers", "Cookie,X-Thing"], &[]).unwrap().app_headers, ["cookie", "x-thing"]);
    for (name, part) in
        [("a b", "not the name"), ("Authorization", "secrets of clients"), ("a:", "not the name")]
    {
        let error = run(&["--app-headers", name], &[]).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}
