//! Deployments: a symbolic link leads to another release, the old one is deleted, and a fault is repaired in a file that
//! no running worker has loaded.

use super::support::{Client, Conversation, Server, server};
use super::{Folder, eventually, wait_for_log};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// An application that answers with the release in its own file, the one in a module beside it, and its directory.
fn python(release: u32) -> String {
    format!(
        "import os\nfrom quickio import app\nimport helper\n\n@app.event('/release')\n\
         async def release(event):\n    return [{release}, helper.release, os.path.basename(os.getcwd())]\n"
    )
}

fn node(release: u32) -> String {
    format!(
        "import {{ app }} from 'quickio'\nimport path from 'node:path'\nimport {{ release }} from './helper.mjs'\n\
         app.event('/release', () => [{release}, release, path.basename(process.cwd())])\n"
    )
}

/// Writes a release to a folder.
fn write(folder: &Path, app: &str, release: u32) {
    fs::create_dir_all(folder).unwrap();
    let (text, helper) = match app {
        "app.py" => (python(release), ("helper.py", format!("release = {release}\n"))),
        _ => (node(release), ("helper.mjs", format!("export const release = {release}\n"))),
    };
    fs::write(folder.join(app), text).unwrap();
    fs::write(folder.join(helper.0), helper.1).unwrap();
}

/// Waits until the workers are of a release, and returns the directory in which they run.
#[track_caller]
fn wait_for_release(client: &mut Client, release: u32) -> String {
    eventually(&format!("release {release}"), || {
        let data = client.request_code("/release", "", 200).body["data"].take();
        assert_eq!(data[0], data[1], "the application and its module are of one release");
        (data[0] == release).then(|| data[2].as_str().unwrap().to_owned())
    })
}

/// Has `current` lead to another release, in one step as deployment tools do.
fn flip(folder: &Folder, release: &str) {
    symlink(folder.file(release), folder.file("next")).unwrap();
    fs::rename(folder.file("next"), folder.file("current")).unwrap();
}

#[test]
fn a_reload_follows_a_symbolic_link_to_the_new_release() {
    for app in ["app.py", "app.mjs"] {
        let folder = Folder::new();
        for (name, release) in [("one", 1), ("two", 2), ("three", 3)] {
            write(Path::new(&folder.file(name)), app, release);
        }
        symlink(folder.file("one"), folder.file("current")).unwrap();
        let file = format!("{}/{app}", folder.file("current"));
        // A shell that has changed to the link names it in `PWD`.
        let mut command = server::command(server::BINARY, &["--app", &file]);
        command.current_dir(folder.file("current")).env("PWD", folder.file("current"));
        let server = Server::launch(command);
        let mut client = server.websocket();
        assert_eq!(wait_for_release(&mut client, 1), "one");
        flip(&folder, "two");
        server.signal("HUP");
        assert_eq!(wait_for_release(&mut client, 2), "two");
        // The server's own directory is deleted with the oldest release.
        fs::remove_dir_all(folder.file("one")).unwrap();
        flip(&folder, "three");
        server.signal("HUP");
        assert_eq!(wait_for_release(&mut client, 3), "three");
    }
}

#[test]
fn a_server_whose_directory_was_deleted_starts_workers() {
    let folder = Folder::new();
    write(Path::new(&folder.file("one")), "app.mjs", 1);
    fs::create_dir(folder.file("directory")).unwrap();
    let file = format!("{}/app.mjs", folder.file("one"));
    let mut command = server::command(server::BINARY, &["--app", &file]);
    command.current_dir(folder.file("directory")).env_remove("PWD");
    let server = Server::launch(command);
    let mut client = server.websocket();
    assert_eq!(wait_for_release(&mut client, 1), "directory");
    fs::remove_dir(folder.file("directory")).unwrap();
    write(Path::new(&folder.file("one")), "app.mjs", 2);
    server.signal("HUP");
    assert_eq!(wait_for_release(&mut client, 2), "one", "the folder of the application");
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change() {
    let folder = Folder::new();
    write(Path::new(&folder.file("one")), "app.py", 1);
    write(Path::new(&folder.file("two")), "app.py", 2);
    symlink(folder.file("one"), folder.file("current")).unwrap();
    let server = Server::start(&["--reload", "--app", &format!("{}/app.py", folder.file("current"))]);
    let mut client = server.websocket();
    wait_for_release(&mut client, 1);
    flip(&folder, "two");
    wait_for_release(&mut client, 2);
}

/// Breaks an application that is running by `break_it`, waits until its reload has failed, and repairs it in a file that
/// the running worker has not loaded.
#[track_caller]
fn check_repair(app: &str, break_it: impl Fn(&Path), repair: impl Fn(&Path)) {
    let folder = Folder::new();
    let release = folder.file("release");
    let release = Path::new(&release);
    write(release, app, 1);
    let file = release.join(app);
    let server = Server::start(&["--reload", "--app", file.to_str().unwrap()]);
    let mut client = server.websocket();
    wait_for_release(&mut client, 1);
    break_it(release);
    wait_for_log(&server, "gave up replacing the workers", 1);
    wait_for_release(&mut client, 1);
    repair(release);
    wait_for_release(&mut client, 2);
}

/// Writes a release whose module beside the application imports another one, with this text. Without a text, the module
/// does not exist.
fn write_with_inner(release: &Path, app: &str, inner: Option<&str>) {
    let (helper, name, import) = match app {
        "app.py" => ("helper.py", "inner.py", "from inner import release\n"),
        _ => ("helper.mjs", "inner.mjs", "export { release } from './inner.mjs'\n"),
    };
    if let Some(text) = inner {
        fs::write(release.join(name), text).unwrap();
    }
    fs::write(release.join(helper), import).unwrap();
    let text = if app == "app.py" { python(2) } else { node(2) };
    fs::write(release.join(app), text).unwrap();
}

#[test]
fn a_repair_in_an_imported_module_is_noticed() {
    for (app, inner, broken, repaired) in [
        ("app.py", "inner.py", "release = (\n", "release = 2\n"),
        ("app.py", "inner.py", "release = 1 / 0\n", "release = 2\n"),
        ("app.mjs", "inner.mjs", "export const release = (\n", "export const release = 2\n"),
        ("app.mjs", "inner.mjs", "export const release = nothing\n", "export const release = 2\n"),
    ] {
        check_repair(
            app,
            |release| write_with_inner(release, app, Some(broken)),
            |release| fs::write(release.join(inner), repaired).unwrap(),
        );
    }
}

#[test]
fn a_missing_module_that_appears_is_noticed() {
    for (app, inner, text) in
        [("app.py", "inner.py", "release = 2\n"), ("app.mjs", "inner.mjs", "export const release = 2\n")]
    {
        check_repair(
            app,
            |release| write_with_inner(release, app, None),
            |release| fs::write(release.join(inner), text).unwrap(),
        );
    }
    // A module that the application requires, by a name without its ending.
    check_repair(
        "app.mjs",
        |release| {
            let text = "import { createRequire } from 'node:module'\n\
                        export const { release } = createRequire(import.meta.url)('./inner')\n";
            fs::write(release.join("helper.mjs"), text).unwrap();
            fs::write(release.join("app.mjs"), node(2)).unwrap();
        },
        |release| fs::write(release.join("inner.js"), "exports.release = 2\n").unwrap(),
    );
}

/// Returns the ids of the processes whose parent is `parent`, with their states.
fn children(parent: u32) -> Vec<(u32, String)> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let stats = processes.filter_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.to_owned();
        (fields.next()? == parent.to_string()).then_some((pid, state))
    });
    stats.collect()
}

/// In a container without an init process, the server is the parent of all orphans.
#[test]
fn orphans_are_reaped_by_the_first_process_of_a_container() {
    let arguments = ["--app", super::RAW, "--log-level", "info"];
    let inner = server::command(server::BINARY, &arguments);
    let mut command = Command::new("unshare");
    // As root, a user namespace is not needed.
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(server::BINARY)
        .args(inner.get_args());
    let mut server = Server::launch(command);
    let [(init, _)] = children(server.pid())[..] else { panic!("unshare has one child") };
    let mut client = server.websocket();
    super::request_code(&mut client, serde_json::json!([["orphans", {"count": 20}]]), 200);
    eventually("no process but the server", || (children(init).len() == 1).then_some(()));
    // The server still learns how its workers end.
    let [(process, _)] = children(init)[..] else { panic!("the server is the only child") };
    let workers = children(process);
    let [(worker, _)] = workers[..] else { panic!("the server has one worker: {workers:?}") };
    super::signal(worker, "KILL");
    wait_for_log(&server, "signal: 9 (SIGKILL)", 1);
    // Signals reach the server, and its exit code is that of the container.
    super::signal(init, "TERM");
    assert_eq!(server.exit().code(), Some(0));
}
