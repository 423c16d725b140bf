//! The headers compile without warnings in the oldest standard that they support, with strict compiler flags.

use super::cc::{self, HEADERS};
use std::fs;
use std::process::Command;

fn compiles(compiler: &str, standard: &str, extension: &str, text: &str) {
    let source =
        cc::temporary(&format!("header-{}-{}.{extension}", standard.replace("++", "pp"), std::process::id()));
    fs::write(&source, text).unwrap();
    let mut command = Command::new(compiler);
    command.args([
        &format!("-std={standard}"),
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        "-Wconversion",
        "-Wshadow",
    ]);
    if extension == "cpp" {
        command.args(["-Wold-style-cast", "-Wnon-virtual-dtor"]);
    }
    command.args(["-fsyntax-only", "-I", HEADERS]).arg(&source);
    cc::run(&mut command);
}

/// Uses each macro, and each inline function.
const USES: &str = r#"
#include "quickio.h"
qio_str use(char *out);
qio_str use(char *out) {
    qio_answer answer = QIO_ANSWER;
    qio_event_spec spec = QIO_EVENT_SPEC;
    qio_client client = {0, 0, 0};
    answer.data = QIO_STR("x");
    answer.message = QIO_NO_STR;
    spec.path = qio_cstr("/a");
    return qio_same_client(client, client) && qio_equal(answer.data, spec.path)
        ? qio_full_path(out, spec.path, spec.path) : qio_text("a", 1);
}
static int32_t init(const qio_api *api, qio_server server) { (void)api; (void)server; return QIO_OK; }
static int32_t events(qio_registrar registrar) { (void)registrar; return QIO_OK; }
const qio_app_info qio_app = {QIO_APP_HEAD, "a", init, events, NULL, NULL, NULL};
"#;

#[test]
fn the_header_is_c99_and_later() {
    for standard in ["c99", "c11", "c17"] {
        compiles("cc", standard, "c", USES);
    }
}

#[test]
fn the_header_is_cpp17_and_later() {
    for standard in ["c++17", "c++20"] {
        compiles("c++", standard, "cpp", USES);
    }
}
