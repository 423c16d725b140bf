//! `quickio pub` and `quickio sub`.

use crate::peer::FakeServer;
use crate::support::tls::Authority;
use crate::support::{Conversation, Server};
use crate::{CommandEnd, Running, quickio, run};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Returns a command with a server.
fn at(server: &str, arguments: &[&str]) -> Command {
    let mut command = quickio(arguments);
    command.env("QUICKIO_SERVER", server);
    command
}

#[track_caller]
fn assert_end(end: &CommandEnd, code: i32, stdout: &str, stderr: &str) {
    assert_eq!((end.code, end.stdout.as_str()), (Some(code), stdout), "{}", end.stderr);
    assert!(
        if stderr.is_empty() { end.stderr.is_empty() } else { end.stderr.contains(stderr) },
        "{:?}",
        end.stderr
    );
}

/// Subscribes, and waits until the server has confirmed it.
fn subscribed(server: &str, arguments: &[&str]) -> Running {
    let sub = Running::start(at(server, &[&["sub"], arguments].concat()));
    sub.expect_report("subscribed to ");
    sub
}

#[test]
fn events_arrive_over_every_transport() {
    let authority = Authority::new();
    let [cert, key] = authority.issue("server", &["localhost", "127.0.0.1"]);
    let socket = authority.path("socket");
    let listen = format!("either://127.0.0.1:0,unix:{socket}");
    let server = Server::start(&["--listen", &listen, "--tls-cert", &cert, "--tls-key", &key]);
    let port = server.address().rsplit_once(':').unwrap().1;
    let ca = authority.path("ca.pem");
    let urls = [
        format!("ws://127.0.0.1:{port}"),
        format!("tcp://localhost:{port}"),
        format!("wss://localhost:{port}"),
        format!("tls://127.0.0.1:{port}"),
        format!("unix:{socket}"),
    ];
    let mut subs: Vec<Running> =
        urls.iter().map(|url| subscribed(url, &["--count", "5", "--tls-ca", &ca, "/relay/cli"])).collect();
    for (number, url) in urls.iter().enumerate() {
        let data = number.to_string();
        assert_end(
            &run(quickio(&["pub", "--server", url, "--tls-ca", &ca, "/relay/cli", &data]), ""),
            0,
            "",
            "",
        );
    }
    for sub in &mut subs {
        let lines: Vec<String> = (0..5).map(|_| sub.line()).collect();
        assert_eq!(lines, ["/relay/cli 0", "/relay/cli 1", "/relay/cli 2", "/relay/cli 3", "/relay/cli 4"]);
        assert_eq!(sub.wait().code(), Some(0));
    }
    // The certificate of an authority that the system does not know, and one for another name.
    let unknown = run(quickio(&["pub", "--server", &urls[3], "--tls-ca", &cert, "/relay/cli", "1"]), "");
    assert_end(&unknown, 1, "", "TLS with tls://127.0.0.1");
}

#[test]
fn a_client_shows_its_certificate() {
    let authority = Authority::new();
    let [cert, key] = authority.issue("server", &["127.0.0.1"]);
    let [own, own_key] = authority.issue("client", &["client"]);
    let ca = authority.path("ca.pem");
    let server = Server::start(&["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca]);
    let url = format!("wss://{}", server.address().trim_start_matches("tls://"));
    let with = |flags: &[&str]| {
        run(quickio(&[&["pub", "--server", &url, "--tls-ca", &ca, "/relay/a", "1"], flags].concat()), "")
    };
    assert_end(&with(&["--tls-cert", &own, "--tls-key", &own_key]), 0, "", "");
    assert_eq!(with(&[]).code, Some(1));
    assert_end(&with(&["--tls-cert", &own, "--tls-key", "/nonexistent"]), 1, "", "--tls-key /nonexistent");
}

#[test]
fn answers_are_printed() {
    let server = Server::start(&[]);
    let publish =
        |arguments: &[&str], input: &str| run(at(server.address(), &[&["pub"], arguments].concat()), input);
    assert_end(&publish(&["/clienttest/echo", "[1, 2]"], ""), 0, "[1, 2]\n", "");
    assert_end(&publish(&["--text", "/clienttest/echo", "a \"b\""], ""), 0, "\"a \\\"b\\\"\"\n", "");
    assert_end(&publish(&["/clienttest/echo", "--", "-5"], ""), 0, "-5\n", "");
    let refused = publish(&["--json", "/clienttest/error/418"], "1\n2\n");
    let line = |line| {
        format!(
            "{{\"line\":{line},\"path\":\"/clienttest/error/418\",\"code\":418,\"data\":\"you requested an \
             error?\",\"err_msg\":\"418s are fun!\"}}\n"
        )
    };
    assert_end(&refused, 1, &(line(1) + &line(2)), "line 2: /clienttest/error/418: 418 418s are fun!");
    assert_end(&publish(&["/nothing", "1"], ""), 1, "", "/nothing: 404");
}

#[test]
fn lines_of_standard_input_are_events() {
    let server = Server::start(&[]);
    let sub = subscribed(server.address(), &["/relay/a", "/relay/b"]);
    let input = "/relay/a 1\n\nno path\n/relay/b {\"c\":\n/relay/b  {\"c\": 2}\r\n/relay/a";
    let end = run(at(server.address(), &["pub"]), input);
    assert_end(&end, 1, "", "line 3: `no` is not a path");
    assert!(end.stderr.contains("line 4: the data is not JSON"), "{}", end.stderr);
    assert_eq!([sub.line(), sub.line(), sub.line()], ["/relay/a 1", "/relay/b {\"c\": 2}", "/relay/a null"]);
    // More lines than wait for their answers at once.
    let many: String = (0..5000).map(|number| format!("{number}\n")).collect();
    assert_end(&run(at(server.address(), &["pub", "/relay/a"]), &many), 0, "", "");
    for number in 0..5000 {
        assert_eq!(sub.line(), format!("/relay/a {number}"));
    }
}

#[test]
fn forms_of_received_events() {
    let server = Server::start(&[]);
    let forms = [
        (&["--json", "/relay/a"][..], "{\"path\":\"/relay/a\",\"data\":{ \"x\": [1]}}"),
        (&["--data", "/relay/a"], "{ \"x\": [1]}"),
        (&["/relay/a"], "/relay/a { \"x\": [1]}"),
    ];
    let subs = forms.map(|(arguments, _)| subscribed(server.address(), arguments));
    server.websocket().request_code("/relay/a", "{\n\"x\": [1]}", 200);
    for (sub, (_, line)) in subs.iter().zip(forms) {
        assert_eq!(sub.line(), line);
    }
}

#[test]
fn a_subscription_ends_by_count_time_signal_or_reader() {
    let server = Server::start(&[]);
    let end = run(at(server.address(), &["sub", "--count", "1", "--timeout", "50ms", "/relay/a"]), "");
    assert_end(&end, 1, "", "0 of 1 events came within 50ms");
    let end = run(at(server.address(), &["sub", "--quiet", "--timeout", "50ms", "/relay/a"]), "");
    assert_end(&end, 0, "", "");
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        let mut sub = subscribed(server.address(), &["/relay/a"]);
        sub.signal(name);
        assert_eq!(sub.wait().signal(), Some(number));
    }
    // The reader takes one line and ends. Without a further event, the command notices it too.
    let pipeline =
        format!("{} sub /relay/a | head -n 1; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_quickio"));
    let mut shell = Command::new("bash");
    shell.args(["-c", &pipeline]).env("QUICKIO_SERVER", server.address());
    let shell = Running::start(shell);
    shell.expect_report("subscribed to ");
    server.websocket().request_code("/relay/a", "1", 200);
    assert_eq!([shell.line(), shell.line()], ["/relay/a 1", "0"]);
    server.eventually_is("connections", 0);
}

#[test]
fn refusals_end_a_subscription() {
    let server = Server::start(&[]);
    let end = run(at(server.address(), &["sub", "/nothing"]), "");
    assert_end(&end, 1, "", "refused the subscription to /nothing: 404. No application handles this path");
    let end = run(at(&format!("ws://{}/nothing", server.admin()), &["sub", "/a"]), "");
    assert_end(&end, 1, "", "refused the WebSocket with HTTP 404");
    let end = run(at("127.0.0.1:1", &["sub", "/a"]), "");
    assert_end(&end, 1, "", "Nothing listens there");
}

#[test]
fn wrong_arguments() {
    for (arguments, message) in [
        (&["pub", "a", "1"][..], "`a` is not a path: it does not begin with /"),
        (&["pub", "/a", "x"], "not JSON"),
        (&["pub", "/a", "1", "2"], "quote data with spaces"),
        (&["pub", "--tex"], "did you mean `--text`?"),
        (&["pub", "--token", "secret"], "did you mean `--token-file`?"),
        (&["pub", "--server", "ftp://a:1", "/a", "1"], "must be ws, wss, tcp"),
        (&["pub", "--timeout", "5", "/a", "1"], "its unit must be ms"),
        (&["pub", "--token-file", "/nonexistent", "/a", "1"], "--token-file /nonexistent"),
        (&["sub"], "sub needs a path"),
        (&["sub", "--count", "0", "/a"], "at least 1"),
        (&["sub", "/a/../b"], "would read it as `/a/b`"),
        (&["completions"], "bash, zsh or fish"),
    ] {
        let end = run(quickio(arguments), "");
        assert_end(&end, 2, "", message);
    }
    let end = run(at("nonsense", &["pub", "/a", "1"]), "");
    assert_end(&end, 2, "", "the variable QUICKIO_SERVER cannot be `nonsense`");
    // A server started from the same shell ignores the variables of the commands.
    let mut check = quickio(&["check", "--listen", "127.0.0.1:0", "--admin", "off"]);
    check.envs([("QUICKIO_SERVER", "wss://example.com"), ("QUICKIO_TOKEN", "x")]);
    assert_eq!(run(check, "").code, Some(0));
}

#[test]
fn events_without_an_answer_fail() {
    let server = FakeServer::start();
    let publish = Running::start(at(&server.url(), &["pub", "--timeout", "100ms", "/a", "1"]));
    let mut connection = server.accept();
    connection.expect("/a:1=1");
    publish.expect_report("/a: no answer within 100ms");
    assert_eq!({ publish }.wait().code(), Some(1));
    let mut publish = Running::start(at(&server.url(), &["pub"]));
    assert_eq!(server.accept().event(), None);
    assert_eq!(publish.wait().code(), Some(0), "there was nothing to send");
}

#[test]
fn a_lost_connection_is_made_again() {
    let server = FakeServer::start();
    let mut sub = Running::start(at(&server.url(), &["sub", "--count", "3", "/a", "/b"]));
    for (number, path) in [(1, "/a"), (2, "/b")] {
        let mut connection = server.accept();
        connection.expect("/qio/on:1=\"/a\"");
        connection.expect("/qio/on:2=\"/b\"");
        connection.accept(1);
        connection.accept(2);
        // A heartbeat is answered, and an event to another path is not printed.
        connection.send("/qio/heartbeat:7=null");
        connection.expect("/qio/callback/7:0=null");
        connection.send("/other:0=1");
        connection.send(&format!("{path}:0={number}"));
        assert_eq!(sub.line(), format!("{path} {number}"));
        drop(connection);
        sub.expect_report("connecting again in ");
    }
    // The server moves its clients to another.
    let other = FakeServer::start();
    let mut connection = server.accept();
    connection.send(&format!("/qio/move:0=\"{}\"", other.address()));
    let mut connection = other.accept();
    connection.expect("/qio/on:1=\"/a\"");
    connection.send("/a:0=3");
    assert_eq!(sub.line(), "/a 3");
    assert_eq!(sub.wait().code(), Some(0));

    let mut sub = Running::start(at(&server.url(), &["sub", "--no-reconnect", "/a"]));
    let mut connection = server.accept();
    connection.expect("/qio/on:1=\"/a\"");
    connection.accept(1);
    sub.expect_report("subscribed");
    drop(connection);
    sub.expect_report("the connection was lost");
    assert_eq!(sub.wait().code(), Some(1));
}

#[test]
fn tokens_come_from_a_file_or_a_variable_and_are_renewed() {
    let authority = Authority::new();
    let file = authority.write("token", "first\n");
    let server = FakeServer::start();
    let mut sub = Running::start(at(&server.url(), &["sub", "--token-file", &file, "/a"]));
    let mut connection = server.accept();
    connection.expect("/qio/auth:1=\"first\"");
    authority.write("token", "second");
    let soon = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let identified = |callback: u64, expires: &str| {
        format!(
            "/qio/callback/{callback}:0={{\"code\":200,\"data\":{{\"user\":\"7\",\"expires\":{expires}}}}}"
        )
    };
    connection.send(&identified(1, &soon.to_string()));
    connection.expect("/qio/on:2=\"/a\"");
    connection.accept(2);
    sub.expect_report("subscribed");
    connection.expect("/qio/auth:3=\"second\"");
    connection.send(&identified(3, "null"));
    connection.send("/a:0=1");
    assert_eq!(sub.line(), "/a 1");
    sub.signal("TERM");
    sub.wait();

    let mut command = at(&server.url(), &["pub", "/a", "1"]);
    command.env("QUICKIO_TOKEN", "third");
    let mut publish = Running::start(command);
    let mut connection = server.accept();
    connection.expect("/qio/auth:1=\"third\"");
    connection.send("/qio/callback/1:0={\"code\":401,\"data\":null,\"err_msg\":\"token expired\"}");
    publish.expect_report("the server refused the token: 401 token expired");
    assert_eq!(publish.wait().code(), Some(1));
}
