//! The code samples in Python and JavaScript of the guide and of README.md: each passes its self-test, and does what the
//! text says.

#[path = "support/cc.rs"]
#[allow(dead_code, reason = "other tests need the rest")]
mod cc;
#[allow(dead_code, unused_imports, reason = "other tests need the rest")]
mod support;

use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use support::server::BINARY;
use support::{Client, Conversation, Server};

const GUIDE: &str = "docs/applications.md";

/// The samples of a language, each in a file of its own. The first is named `hello`.
struct Samples {
    folder: PathBuf,
    files: Vec<String>,
}

/// The number of the next folder.
static NTH: AtomicUsize = AtomicUsize::new(0);

impl Samples {
    /// Writes the samples of a document to files. `ending` is the language of their fences and the extension of the files.
    fn of(document: &str, ending: &str) -> Samples {
        let guide = fs::read_to_string(cc::in_tree(document)).unwrap();
        let nth = NTH.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("quickio-guide-{}-{nth}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let fence = format!("```{ending}\n");
        let samples =
            guide.split(&fence).skip(1).map(|rest| rest.split("```\n").next().expect("the end of the fence"));
        let write = |(nth, text): (usize, &str)| {
            let name = if nth == 0 { "hello".to_owned() } else { format!("sample{nth}") };
            let file = folder.join(format!("{name}.{ending}"));
            fs::write(&file, text).unwrap();
            file.to_str().unwrap().to_owned()
        };
        let files: Vec<String> = samples.enumerate().map(write).collect();
        for file in &files {
            let output = Command::new(BINARY).args(["test-app", file]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        Samples { folder, files }
    }

    /// Returns the file of the sample with this text, for example the path of its event.
    fn with(&self, event: &str) -> &str {
        let has = |file: &&String| fs::read_to_string(file).unwrap().contains(event);
        self.files.iter().find(has).unwrap_or_else(|| panic!("no sample has {event}"))
    }

    /// Starts a server that runs the sample with this text.
    fn serve(&self, event: &str) -> Server {
        Server::start_with_clock(&["--app", self.with(event)])
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder); // a folder that remains harms no other test
    }
}

fn data(client: &mut Client, path: &str, data: &str) -> Value {
    client.request_code(path, data, 200).body["data"].clone()
}

/// Checks the samples that both languages have.
fn the_samples_do_what_the_guide_says(samples: &Samples) {
    let server = Server::start(&["--app", &samples.files[0]]);
    assert!(server.greeting.contains(&"applications: relay, clienttest, hello".to_owned()));
    assert_eq!(data(&mut server.websocket(), "/hello", ""), json!("hello"));

    let server = samples.serve("/add");
    let mut client = server.websocket();
    assert_eq!(data(&mut client, "/add", r#"{"a":1,"b":2}"#), json!(3));
    client.request_code("/add", "{}", 400);
    client.request_code("/add", "nonsense", 400);
    client.request_code("/qio/on", r#"["/room/a","please"]"#, 404);
    client.request_code("/qio/on", r#"["/room/a","open sesame"]"#, 200);
    client.request_code("/room/a/b", "1", 404);
    client.request_code("/room/a", "1", 200);
    assert_eq!(client.event().data, r#"{"said":1}"#);
    client.subscribe("/news");
    client.request_code("/qio/on", r#""/void""#, 401);
    client.request_code("/news", "", 500);
    server.advance(Duration::from_secs(1));
    assert_eq!(client.event().path, "/news");
    let mut other = server.websocket();
    other.request_code("/qio/on", r#"["/room/a","open sesame"]"#, 200);
    other.unsubscribe("/room/a");
    assert_eq!(client.event().data, "\"somebody left\"");

    let server = samples.serve("/visits");
    let mut client = server.websocket();
    assert_eq!(data(&mut client, "/visits", ""), json!(1));
    assert_eq!(data(&mut client, "/visits", ""), json!(2));
    let answer = client.request_code("/order", "\"a book\"", 200);
    let bought = data(&mut client, &format!("/qio/callback/{}", answer.callback), "true");
    assert_eq!(bought, json!({"bought": "a book"}));
    let id = client.ask("/poke", "");
    let poked = client.event();
    client.request_code(&format!("/qio/callback/{}", poked.callback), "\"yes\"", 200);
    assert_eq!(client.answer(id).body["data"], json!({"you said": "yes"}));
    let id = client.ask("/poke", "");
    client.event();
    server.advance(Duration::from_secs(16));
    assert_eq!(client.answer(id).body["data"], json!("you said nothing"));
    client.ask("/leave", "");
    assert_eq!(client.event().path, "/bye");
    server.log_with("gone after 2 visits");

    let server = samples.serve("greeting");
    assert_eq!(data(&mut server.websocket(), "/greet", ""), json!("hello"));
    server.log_with("instance 0 of 1");
}

#[test]
fn samples_of_the_readme() {
    for ending in ["py", "mjs"] {
        let samples = Samples::of("README.md", ending);
        let server = samples.serve("/greet");
        assert_eq!(data(&mut server.websocket(), "/greet", "\"you\""), json!("hello you"));
    }
}

#[test]
fn samples_of_python() {
    let samples = Samples::of(GUIDE, "py");
    the_samples_do_what_the_guide_says(&samples);
    let server = samples.serve("/slow/async");
    let mut client = server.websocket();
    for path in ["/slow/async", "/slow/plain", "/slow/later"] {
        assert_eq!(data(&mut client, path, ""), json!("done"));
    }
}

#[test]
fn samples_of_javascript() {
    let samples = Samples::of(GUIDE, "mjs");
    the_samples_do_what_the_guide_says(&samples);
    let server = samples.serve("/slow");
    let mut client = server.websocket();
    for path in ["/slow", "/later"] {
        assert_eq!(data(&mut client, path, ""), json!("done"));
    }
}
