//! A comparison of `quickio.h` with `abi.rs`: a C program prints the sizes, offsets and constants of the header. Tests
//! of the functions of the table.

use super::abi::{self, Fault};
use super::api::API;
use super::host::Host;
use super::promises::{ClientPromises, HeldPromise, PROMISES};
use crate::app::{Command as ShardCommand, Later, Post, ReplyTo, Server};
use crate::client::ClientId;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::mem::offset_of;
use std::path::Path;
use std::process::{self, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// The layout of a structure: its name in the header, its size, and its fields with their offsets.
struct Layout {
    name: &'static str,
    size: usize,
    fields: Vec<(&'static str, usize)>,
}

macro_rules! layout {
    ($name:literal, $type:ty, $($field:ident),+) => {
        Layout {
            name: $name,
            size: size_of::<$type>(),
            fields: vec![$((stringify!($field).trim_end_matches('_'), offset_of!($type, $field))),+],
        }
    };
}

#[rustfmt::skip]
fn layouts() -> Vec<Layout> {
    vec![
        layout!("qio_str", abi::Str, ptr, len),
        layout!("qio_cx", abi::Cx, id),
        layout!("qio_registrar", abi::RegistrarHandle, id),
        layout!("qio_promise", abi::Promise, id),
        layout!("qio_server", abi::ServerHandle, id),
        layout!("qio_client", abi::ClientId, shard, slot, generation),
        layout!("qio_event", abi::Event, client, wants_answer, path, extra, data),
        layout!("qio_reply", abi::Reply, client, wants_answer, data),
        layout!("qio_subscription", abi::Subscription, client, reserved, path, extra, data, options),
        layout!("qio_unsubscribed", abi::Unsubscribed, client, reserved, path, extra),
        layout!("qio_event_spec", abi::EventSpec, size, flags, path, handler, on, off, user, free),
        layout!("qio_callback", abi::Callback, run, user, free),
        layout!("qio_answer", abi::Answer, size, code, data, message, callback),
        layout!("qio_app_info", abi::AppInfo, magic, abi, size, reserved, name, init, register_events, start, stop, self_test),
        layout!("qio_api", abi::Api, abi, size, error_text, fail, log, log_enabled, setting, setting_nth, registrar_shard,
            register_event, every, shard, now_ms, answer, answer_error, answer_with, answer_never, later, later_decision,
            broadcast, send, close, move_, after, client_data, set_client_data, take_client_data, promise_answer,
            promise_decide, promise_drop, promise_client, server_broadcast, server_send, server_close, server_move,
            json_check, json_member, json_text, json_string, client_user, client_claims, client_header,
            client_certificate, client_address),
    ]
}

fn constants() -> Vec<(&'static str, i64)> {
    let faults = Fault::ALL.iter().map(|(fault, name, _)| (*name, *fault as i64));
    let others = [
        ("QIO_MAGIC", abi::MAGIC.into()),
        ("QIO_ABI_VERSION", abi::ABI_VERSION.into()),
        ("QIO_PATH_BYTES_MAX", crate::limits::PATH_BYTES_MAX as i64),
        ("QIO_NAME_BYTES_MAX", super::NAME_BYTES_MAX as i64),
        ("QIO_OK", abi::OK.into()),
        ("QIO_REFUSE", abi::REFUSE.into()),
        ("QIO_ACCEPT", abi::ACCEPT.into()),
        ("QIO_DECIDE_LATER", abi::DECIDE_LATER.into()),
        ("QIO_FAIL", abi::FAIL.into()),
        ("QIO_CHILDREN", abi::CHILDREN.into()),
        ("QIO_NO_SUBSCRIPTIONS", abi::NO_SUBSCRIPTIONS.into()),
        ("QIO_LOG_ERROR", abi::LOG_ERROR.into()),
        ("QIO_LOG_WARN", abi::LOG_WARN.into()),
        ("QIO_LOG_INFO", abi::LOG_INFO.into()),
        ("QIO_LOG_DEBUG", abi::LOG_DEBUG.into()),
        ("QIO_LOG_TRACE", abi::LOG_TRACE.into()),
    ];
    faults.chain(others).collect()
}

#[test]
fn the_header_and_rust_agree() {
    let mut program =
        String::from("#include \"quickio.h\"\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {\n");
    let mut expected = String::new();
    for Layout { name, size, fields } in layouts() {
        writeln!(program, "printf(\"{name} %zu\\n\", sizeof({name}));").unwrap();
        writeln!(expected, "{name} {size}").unwrap();
        for (field, offset) in fields {
            writeln!(program, "printf(\"{name}.{field} %zu\\n\", offsetof({name}, {field}));").unwrap();
            writeln!(expected, "{name}.{field} {offset}").unwrap();
        }
    }
    for (name, value) in constants() {
        writeln!(program, "printf(\"{name} %lld\\n\", (long long){name});").unwrap();
        writeln!(expected, "{name} {value}").unwrap();
    }
    program += "return 0;\n}\n";
    assert_eq!(output_of(&program), expected);
}

/// Compiles a C program with the header, runs it, and returns its output.
fn output_of(program: &str) -> String {
    let source = std::env::temp_dir().join(format!("quickio-layout-{}.c", process::id()));
    let binary = source.with_extension("bin");
    fs::write(&source, program).unwrap();
    let headers = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/app/c");
    let compiled = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I"])
        .arg(headers)
        .arg("-o")
        .args([&binary, &source])
        .output()
        .expect("there is a C compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&binary).output().expect("the program runs").stdout;
    fs::remove_file(source).unwrap();
    fs::remove_file(binary).unwrap();
    String::from_utf8(output).unwrap()
}

#[test]
fn every_fault_has_its_own_text() {
    let mut texts: Vec<_> = Fault::ALL.iter().map(|(fault, ..)| Fault::text(*fault as i32)).collect();
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), Fault::ALL.len());
    assert_eq!(Fault::ALL.len(), Fault::Failed as usize, "each is in the table");
}

/// Refuses every second command, like a full inbox, and counts the others.
#[derive(Default)]
struct BusyPost {
    calls: AtomicUsize,
    posted: AtomicUsize,
}

impl Post for BusyPost {
    fn post(&self, _: u32, command: ShardCommand) -> Result<(), ShardCommand> {
        if self.calls.fetch_add(1, Ordering::Relaxed) % 2 == 0 {
            return Err(command);
        }
        self.posted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// One thread asks for the clients of promises while another one answers. Every answer arrives, and the first thread
/// gets the client or `QIO_GONE`.
#[test]
fn promise_client_never_hinders_promise_answer() {
    const PROMISES_OF_TEST: usize = 2000;
    let post = Arc::<BusyPost>::default();
    let (host, _) = Host::add("race".into(), BTreeMap::new()).unwrap();
    let client = ClientId { shard: 1, slot: 2, generation: 3 };
    let mut clients = ClientPromises::default();
    let mut promise = || {
        let server = Server::new(Arc::clone(&post) as Arc<dyn Post>);
        let later = Later::new(server, ReplyTo { client, callback: 1 });
        let handle = PROMISES.insert(&mut clients, HeldPromise::Answer(later, host));
        handle.unwrap_or_else(|_| panic!("the table has room for the promise"))
    };
    let handles: Vec<abi::Promise> = (0..PROMISES_OF_TEST).map(|_| promise()).collect();
    let is_done = AtomicBool::new(false);
    let answer = {
        let (size, none) = (size_of::<abi::Answer>() as u32, abi::Str { ptr: std::ptr::null(), len: 0 });
        abi::Answer { size, code: 200, data: none, message: none, callback: std::ptr::null() }
    };
    let (handles, is_done) = (&handles, &is_done);
    thread::scope(|scope| {
        scope.spawn(move || {
            while !is_done.load(Ordering::Relaxed) {
                for handle in handles {
                    let mut found = abi::ClientId { shard: 0, slot: 0, generation: 0 };
                    match (API.promise_client)(*handle, &raw mut found) {
                        abi::OK => assert_eq!(ClientId::from(found), client),
                        status => assert_eq!(status, Fault::Gone as i32),
                    }
                }
            }
        });
        for handle in handles {
            let status = (API.promise_answer)(*handle, &raw const answer);
            assert_eq!(status, Fault::Busy as i32, "the promise stays under its handle");
            assert_eq!((API.promise_answer)(*handle, &raw const answer), abi::OK);
            assert_eq!((API.promise_answer)(*handle, &raw const answer), Fault::Gone as i32);
        }
        is_done.store(true, Ordering::Relaxed);
    });
    assert_eq!(post.posted.load(Ordering::Relaxed), PROMISES_OF_TEST);
}
