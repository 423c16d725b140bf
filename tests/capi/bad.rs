//! Files that are not applications, and applications that fail: each stops the server before it listens, with a message.

use super::support::server::{self, BINARY, command};
use super::support::{Conversation, Server};
use super::{all, cc, object};
use std::fs;
use std::os::unix::process::ExitStatusExt;

/// Compiles an application with these functions, which replace the plain ones, and returns its path.
fn app(name: &str, functions: &str, exported: &str) -> String {
    let text = format!(
        r#"#include "quickio.h"
static const qio_api *qio;
static qio_server self;
static int32_t init(const qio_api *api, qio_server server) {{ qio = api; self = server; return QIO_OK; }}
static int32_t nothing(qio_registrar registrar) {{ (void)registrar; return QIO_OK; }}
int32_t (*const plain_init)(const qio_api *, qio_server) = init;
int32_t (*const plain_register)(qio_registrar) = nothing;
{functions}
{exported}
"#
    );
    object(&cc::shared_object_of(name, &text))
}

fn plain(name: &str) -> String {
    app(
        name,
        "",
        &format!(
            r#"const qio_app_info qio_app = {{QIO_APP_HEAD, "{name}", init, nothing, NULL, NULL, NULL}};"#
        ),
    )
}

/// Expects that the server does not start with these applications, with this exit code and these words in its log.
#[track_caller]
fn refused(apps: &[&str], code: i32, words: &[&str]) {
    let arguments: Vec<&str> = apps.iter().flat_map(|app| ["--app", app]).collect();
    let (exit, stdout, log) = server::run(command(BINARY, &arguments));
    assert_eq!(exit, Some(code), "{log}");
    assert!(!stdout.contains("ready"), "{stdout}");
    for word in words {
        assert!(log.contains(word), "{word:?} is not in {log}");
    }
}

fn file(name: &str, bytes: &[u8]) -> String {
    let file = cc::temporary(&format!("{name}-{}.so", std::process::id()));
    fs::write(&file, bytes).unwrap();
    object(&file)
}

#[test]
fn files_that_are_not_shared_objects_are_refused() {
    refused(&["./no/such.so"], 2, &["./no/such.so", "No such file"]);
    refused(&["/"], 2, &["not a shared object"]);
    refused(&[&file("empty", b"")], 2, &["it is not a shared object"]);
    refused(&[&file("text", b"#!/bin/sh\necho hello, and some more\n")], 2, &["it is not a shared object"]);
    let source = cc::temporary(&format!("unlinked-{}.c", std::process::id()));
    fs::write(&source, "int x;").unwrap();
    let unlinked = source.with_extension("so");
    cc::run(std::process::Command::new("cc").arg("-c").arg("-o").arg(&unlinked).arg(&source));
    refused(&[&object(&unlinked)], 2, &["link it with -shared"]);
    let mut other = fs::read(all()).unwrap();
    other[18] = 22; // s390x
    refused(
        &[&file("other-machine", &other)],
        2,
        &["it was built for s390x (64 bits)", std::env::consts::ARCH],
    );
    let mut cut = fs::read(all()).unwrap();
    cut.truncate(200);
    refused(&[&file("cut", &cut)], 2, &["the dynamic linker refused it"]);
    refused(
        &[&object(&cc::shared_object_of(
            "unresolved",
            "void nobody(void); void f(void); void f(void) { nobody(); }",
        ))],
        2,
        &["the dynamic linker refused it", "nobody"],
    );
}

#[test]
fn libraries_that_are_not_applications_are_refused() {
    let library = |name: &str, text: &str| object(&cc::shared_object_of(name, text));
    refused(&[&library("no-symbol", "int x;")], 2, &["exports neither `qio_app`"]);
    refused(&[&library("other-symbol", "int qio_app = 5;")], 2, &["does not begin with QIO_APP_HEAD"]);
    let version = |version: &str, size: &str, name: &str| {
        format!(
            "const qio_app_info qio_app = {{QIO_MAGIC, {version}, {size}, 0, {name}, init, nothing, NULL, NULL, NULL}};"
        )
    };
    let next = app("next-version", "", &version("QIO_ABI_VERSION + 1", "sizeof(qio_app_info)", "\"a\""));
    refused(&[&next], 2, &["compiled for ABI version 2, and this server has version 1"]);
    let small = app("small", "", &version("QIO_ABI_VERSION", "20", "\"a\""));
    refused(&[&small], 2, &["its size is too small"]);
    let long = format!("\"{}\"", "x".repeat(65));
    for (nth, name) in ["NULL", "\"\"", "\"a b\"", "\"\\xc3\\xa9\"", &long].iter().enumerate() {
        let bad = app(&format!("name-{nth}"), "", &version("QIO_ABI_VERSION", "sizeof(qio_app_info)", name));
        refused(&[&bad], 2, &["its name is not"]);
    }
    let empty = "const qio_app_info qio_app = {QIO_APP_HEAD, \"a\", NULL, nothing, NULL, NULL, NULL};";
    refused(&[&app("no-init", "", empty)], 2, &["init or register_events is NULL"]);
    let none = "const qio_app_info *qio_app_get(void) { return NULL; }";
    refused(&[&app("getter-of-none", "", none)], 2, &["is not an application"]);
}

#[test]
fn names_are_unique() {
    let (one, other) = (
        plain("twin"),
        app(
            "twin-2",
            "",
            r#"const qio_app_info qio_app = {QIO_APP_HEAD, "twin", init, nothing, NULL, NULL, NULL};"#,
        ),
    );
    refused(&[&one, &other], 2, &["two applications have the name twin"]);
    refused(&[&plain("qio")], 2, &["two applications have the name qio"]);
    refused(&[&plain("relay")], 2, &["two applications have the name relay"]);
}

#[test]
fn errors_of_the_start_are_reported() {
    let stop = "static void stop(void);\n#include <stdio.h>\nstatic void stop(void) { fprintf(stderr, \"it was stopped\\n\"); }\n";
    let failing = |name: &str, functions: &str, listed: &str| {
        let exported = format!("const qio_app_info qio_app = {{QIO_APP_HEAD, \"{name}\", {listed}}};");
        app(name, &format!("{stop}{functions}"), &exported)
    };
    let init = r#"static int32_t bad(const qio_api *api, qio_server server) {
        (void)stop; api->fail(server, QIO_STR("no database")); return QIO_FAILED; }"#;
    refused(
        &[&failing("bad-init", init, "bad, nothing, NULL, stop, NULL")],
        2,
        &["init failed: no database"],
    );
    let init =
        "static int32_t bad(const qio_api *api, qio_server server) { (void)api, (void)server; return 77; }";
    refused(
        &[&failing("bare-init", init, "bad, nothing, NULL, stop, NULL")],
        2,
        &["init failed: it returned 77"],
    );
    let start =
        "static int32_t bad(void) { qio->fail(self, QIO_STR(\"no \\xff port\")); return QIO_FAILED; }";
    let start = failing("bad-start", start, "init, nothing, bad, stop, NULL");
    refused(&[&start], 1, &["bad-start cannot start: start failed: no \u{fffd} port", "it was stopped"]);
    let register = "static int32_t bad(qio_registrar r) { (void)r; return QIO_FAILED; }";
    let register = failing("bad-register", register, "init, bad, NULL, stop, NULL");
    refused(&[&register], 1, &["bad-register cannot start: register_events failed", "it was stopped"]);
}

#[test]
fn invalid_events_stop_the_server() {
    let registering = |name: &str, paths: &[&str], more: &str| {
        let calls: String = paths
            .iter()
            .map(|path| format!("spec.path = qio_text({path}, sizeof({path}) - 1); {more} qio->register_event(registrar, &spec);"))
            .collect();
        // The application ignores the status of `register_event`, and the server does not.
        let functions = format!(
            "static int32_t register_events(qio_registrar registrar) {{
                 qio_event_spec spec = QIO_EVENT_SPEC; {calls} return QIO_OK; }}"
        );
        let exported = format!(
            "const qio_app_info qio_app = {{QIO_APP_HEAD, \"{name}\", init, register_events, NULL, NULL, NULL}};"
        );
        app(name, &functions, &exported)
    };
    for (nth, path, words) in [
        (0, r#""/qio/mine""#, "/qio is the server's own namespace"),
        (1, r#""/qio""#, "/qio is the server's own namespace"),
        (2, r#""""#, "the path is empty"),
        (3, r#""mine""#, "it must begin with a slash"),
        (4, "\"/\\xff\"", "a path that is not UTF-8"),
    ] {
        refused(&[&registering(&format!("path-{nth}"), &[path], "")], 1, &[words]);
    }
    refused(
        &[&registering("twice", &["\"/a\"", "\"/a\""], "")],
        1,
        &["the path /a is already registered by twice"],
    );
    refused(
        &[&registering("taken", &["\"/relay\""], "")],
        1,
        &["the path /relay is already registered by relay"],
    );
    refused(&[&registering("flags", &["\"/a\""], "spec.flags = 64;")], 1, &["it has unknown flags"]);
}

#[test]
fn self_tests_are_run_and_reported() {
    let failing = app(
        "unfit",
        "static int32_t self_test(void) { qio->fail(self, QIO_STR(\"no template\")); return QIO_FAILED; }",
        "const qio_app_info qio_app = {QIO_APP_HEAD, \"unfit\", init, nothing, NULL, NULL, self_test};",
    );
    let test = |apps: &[&str]| {
        let mut command = std::process::Command::new(BINARY);
        let output = command.arg("test-app").args(apps).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, report, log) = test(&["relay", &all()]);
    assert_eq!((code, report), (Some(0), format!("ok relay\nok {}\n2 passed, 0 failed\n", all())));
    super::assert_all_freed(&log);
    let (code, report, _) = test(&[&failing, "nobody", "/no/such.so", "relay"]);
    assert_eq!(code, Some(1));
    let lines: Vec<&str> = report.lines().collect();
    assert_eq!(lines[0], format!("FAILED {failing}: no template"));
    assert!(lines[1].starts_with("FAILED nobody: there is no application"), "{report}");
    assert!(lines[2].starts_with("FAILED /no/such.so: it cannot be read"), "{report}");
    assert_eq!(lines[3..], ["ok relay", "1 passed, 3 failed"]);
    let (code, _, log) = test(&[]);
    assert_eq!(code, Some(2));
    assert!(log.contains("test-app needs the name or the file of an application"), "{log}");
}

#[test]
fn an_application_can_export_a_function_instead_of_data() {
    let getter = app(
        "getter",
        "static const qio_app_info info = {QIO_APP_HEAD, \"getter\", init, nothing, NULL, NULL, NULL};",
        "const qio_app_info *qio_app_get(void) { return &info; }",
    );
    let server = super::Server::start(&["--app", &getter]);
    assert!(server.greeting.iter().any(|line| line.ends_with("getter")), "{:?}", server.greeting);
}

#[test]
fn an_application_with_a_hanging_handler_is_not_stopped() {
    let hanging = app(
        "hanging",
        r#"#include <stdio.h>
        extern int pause(void);
        static void hang(qio_cx cx, const qio_event *event, void *user) {
            (void)cx, (void)event, (void)user;
            qio->log(self, QIO_LOG_INFO, QIO_STR("it hangs"));
            for (;;) pause();
        }
        static int32_t register_events(qio_registrar registrar) {
            qio_event_spec spec = QIO_EVENT_SPEC;
            spec.path = QIO_STR("/hang");
            spec.handler = hang;
            return qio->register_event(registrar, &spec);
        }
        static void stop(void) { fprintf(stderr, "it was stopped\n"); }"#,
        r#"const qio_app_info qio_app = {QIO_APP_HEAD, "hanging", init, register_events, NULL, stop, NULL};"#,
    );
    let mut server =
        super::Server::start(&["--app", &hanging, "--shards", "1", "--shutdown-timeout", "100ms"]);
    let mut client = server.client(super::Transport::Raw);
    client.ask("/hang", "");
    server.log_with("it hangs");
    server.signal("TERM");
    server.exit();
    let log = server.log_with("its stop function is not called");
    assert!(!log.contains("it was stopped"), "{log}");
}

/// A C++ exception that leaves a handler of the C API aborts the process with a message, before it can do harm.
#[test]
fn an_exception_that_leaves_a_handler_aborts_the_process() {
    let source = cc::temporary(&format!("throws-{}.cpp", std::process::id()));
    let text = r#"#include "quickio.h"
#include <stdexcept>
static const qio_api *qio;
static void throws(qio_cx, const qio_event *, void *) { throw std::runtime_error("out of here"); }
static int32_t init(const qio_api *api, qio_server) { qio = api; return QIO_OK; }
static int32_t events(qio_registrar registrar) {
    qio_event_spec spec = QIO_EVENT_SPEC;
    spec.path = QIO_STR("/throws");
    spec.handler = throws;
    return qio->register_event(registrar, &spec);
}
extern "C" const qio_app_info qio_app;
const qio_app_info qio_app = {QIO_APP_HEAD, "throws", init, events, NULL, NULL, NULL};
"#;
    fs::write(&source, text).unwrap();
    let mut server = Server::start(&["--app", &object(&cc::shared_object(&source))]);
    let mut client = server.websocket();
    client.ask("/throws", "");
    assert_eq!(server.exit().signal(), Some(6), "SIGABRT");
    server.log_with("foreign exception");
}
