//! README.md's way from settings with users and rules to a request of a back end: each command does what the text says.

use super::folder::{Folder, blocks, document};
use super::support::Server;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// A subscriber, and the lines behind the one that says that it has subscribed.
fn subscribed(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("subscribed to "), "{line}");
    child
}

#[test]
fn the_way_through_the_readme_works() {
    let readme = document("README.md");
    let from = readme.split("### 3. Users and rules").nth(1).expect("the section with the settings");
    let section = from.split("### 5.").next().unwrap();
    let folder = Folder::new();
    let [settings] = blocks(section, "toml")[..] else { panic!("the settings are one block") };
    let [start, sign_and_subscribe, explain, publish] = blocks(section, "sh")[..] else {
        panic!("four blocks of commands: start, sign and subscribe, explain, publish")
    };
    let [explanation] = blocks(section, "text")[..] else { panic!("one output: that of explain") };

    folder.write("quickio.toml", settings);
    let (secrets, server) = start.split_once('\n').unwrap();
    assert_eq!(server, "quickio --config quickio.toml\n");
    assert!(folder.run(secrets).status.success());
    let moved = settings
        .replace("auth.secret", &folder.path("auth.secret"))
        .replace("api.secret", &folder.path("api.secret"));
    let server = Server::start(&["--config", &folder.write("moved.toml", moved), "--api", "127.0.0.1:0"]);

    let (sign, subscribe) = sign_and_subscribe.split_once('\n').unwrap();
    assert!(folder.run(sign).status.success());
    let here = format!("quickio sub --server ws://{} --count 1 --timeout 30s", server.address());
    let subscribe = subscribe.trim().replace("quickio sub", &here);
    let refused = folder.run(&subscribe.replace("--token-file token", ""));
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && error.contains("401"), "{error}");
    let explained = folder.run(explain);
    assert_eq!(String::from_utf8(explained.stdout).unwrap(), explanation);

    let mut subscriber = subscribed(folder.shell(&format!("exec {subscribe}")));
    let api = server.api();
    let published = folder.run(&publish.replace("127.0.0.1:8082", api));
    let answer = String::from_utf8(published.stdout).unwrap();
    assert!(section.contains(&format!("The answer is `{}`", answer.trim())), "{answer}");
    let mut event = String::new();
    subscriber.stdout.take().unwrap().read_to_string(&mut event).unwrap();
    assert!(subscriber.wait().unwrap().success());
    assert!(section.contains(&format!("the subscriber prints `{}`", event.trim())), "{event}");
}
