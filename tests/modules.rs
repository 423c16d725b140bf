//! Tests of the source tree: which modules and files may name which, where `unsafe` may stand, that no two types share
//! a name, and how comments open.

use prose::{Comment, Language};
use source::{SourceFile, Tree};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

#[path = "modules/graph.rs"]
mod graph;
#[path = "modules/prose.rs"]
mod prose;
#[path = "modules/source.rs"]
mod source;

// The rules.

/// The top modules that each top module may name. Each may also name itself. `bin` is the load generator, whose
/// clients use the same ring.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("main", &["cli", "server"]),
    ("cli", &["server", "mangler", "identity", "protocol", "event", "config", "rules", "log"]),
    ("bin", &["qev"]),
    (
        "server",
        &[
            "shard", "admin", "api", "app", "tls", "client", "qev", "config", "identity", "inspect", "rules",
            "log",
        ],
    ),
    (
        "shard",
        &[
            "api", "app", "protocol", "tls", "client", "event", "history", "members", "qev", "config",
            "identity", "inspect", "rules", "web", "log",
        ],
    ),
    ("app", &["client", "event", "history", "qev", "identity", "inspect", "log"]),
    ("client", &["event", "qev"]),
    ("protocol", &["event"]),
    ("tls", &[]),
    ("admin", &["client", "inspect", "qev", "log"]),
    ("inspect", &["client", "event"]),
    ("api", &["app", "client", "config", "event", "history", "qev", "log"]),
    ("mangler", &["config", "qev", "log"]),
    ("metrics", &["qev"]),
    ("log", &["config"]),
    ("config", &["history", "identity", "rules"]),
    ("rules", &["event", "history"]),
    ("history", &["event"]),
    ("members", &["client", "event", "identity", "qev"]),
    ("event", &[]),
    ("identity", &["rules"]),
    ("qev", &[]),
    ("web", &[]),
    ("limits", &[]),
];

/// The top modules that every module may name. `qev`, which is to become a crate of its own, may name only the first.
const ALL_MAY_NAME: &[&str] = &["limits", "metrics"];

/// The leaves of modules. A leaf may name, of its siblings, only those in its list; all other files of the module may name
/// it. A leaf that is a folder stands for all files in it.
///
/// The files of a module that have no row are its steps and compositions: they may name any sibling, but not in a circle.
const LEAVES: &[(&str, &[Leaf])] = &[
    (
        "shard",
        &[
            // Plain types.
            ("ending", &[]),
            ("frames", &[]),
            ("receive_shares", &[]),
            ("refusal_texts", &[]),
            ("kernel", &["receive_shares"]),
            ("connection", &["frames"]),
            ("messages", &["addresses", "auth", "presence", "pubsub", "replays", "sessions"]),
            // Owners of a piece of state.
            ("access", &["addresses"]),
            ("grant_checks", &[]),
            ("acceptor", &[]),
            ("addresses", &[]),
            ("api_queue", &[]),
            ("client_facts", &[]),
            ("directory", &["client_facts", "connections", "identities"]),
            ("identities", &[]),
            ("drops", &[]),
            ("busiest", &[]),
            ("apps", &[]),
            ("auth", &["addresses", "connection"]),
            ("codecs", &[]),
            ("connections", &["connection", "ending", "frames"]),
            ("link_table", &["connection", "kernel"]),
            ("listeners", &[]),
            ("held", &["sessions"]),
            ("recoveries", &[]),
            ("questions", &[]),
            ("replays", &["questions"]),
            ("presence", &["questions"]),
            ("incomplete", &[]),
            ("mesh", &["kernel", "messages"]),
            ("proxy_headers", &[]),
            ("numbered", &[]),
            ("pubsub", &["connections", "frames", "numbered"]),
            ("refused", &["addresses", "connection"]),
            ("sessions", &["addresses", "connection", "connections", "ending", "frames"]),
            ("stalls", &[]),
            ("tls", &[]),
            ("lost_time", &[]),
            ("time", &["connection", "lost_time"]),
            // Their composition. The files that have no row are steps of a turn, on that composition.
            (
                "state",
                &[
                    "access",
                    "acceptor",
                    "api_queue",
                    "addresses",
                    "apps",
                    "auth",
                    "busiest",
                    "client_facts",
                    "codecs",
                    "connection",
                    "connections",
                    "drops",
                    "grant_checks",
                    "held",
                    "identities",
                    "incomplete",
                    "kernel",
                    "link_table",
                    "listeners",
                    "mesh",
                    "messages",
                    "presence",
                    "proxy_headers",
                    "pubsub",
                    "recoveries",
                    "replays",
                    "refused",
                    "sessions",
                    "stalls",
                    "time",
                    "tls",
                ],
            ),
        ],
    ),
    (
        "app",
        &[
            ("client_info", &[]),
            ("event", &[]),
            ("json", &[]),
            ("paths", &[]),
            ("shares", &[]),
            ("threads", &[]),
            ("types", &["client_info", "event", "json"]),
            ("server", &["json", "types"]),
            ("later", &["event", "server", "types"]),
        ],
    ),
    ("app/c", &[("abi", &[]), ("elf", &[])]),
    (
        "app/worker",
        &[
            ("backoff", &[]),
            ("config", &[]),
            ("counters", &[]),
            ("ends", &[]),
            ("lines", &["text"]),
            ("manifest", &["text"]),
            ("requests", &[]),
            ("text", &[]),
            ("timers", &[]),
            ("wire", &[]),
        ],
    ),
    (
        "api",
        &[
            ("budget", &[]),
            ("keys", &[]),
            ("refusal", &[]),
            ("batch", &["budget"]),
            ("messages", &["batch"]),
            ("bodies", &["batch", "refusal"]),
            ("commands", &["bodies", "messages", "refusal"]),
            ("query", &["refusal"]),
            ("reply", &["refusal"]),
            ("idempotency", &["reply"]),
        ],
    ),
    (
        "admin",
        &[
            ("access", &["reply"]),
            ("certificates", &[]),
            ("documents", &["reply"]),
            ("process", &[]),
            ("reply", &[]),
        ],
    ),
    ("mangler", &[("edits", &[]), ("refusal", &[]), ("exchange", &["refusal"])]),
    (
        "cli",
        &[
            ("command", &[]),
            ("help", &["command"]),
            ("outcome", &["command", "help"]),
            ("args", &["command"]),
            ("lines", &[]),
            ("progress", &[]),
            ("signing", &[]),
            ("wait", &[]),
            ("peer", &["wait"]),
            ("connect", &["args", "command", "outcome", "peer", "wait"]),
            ("received", &["connect"]),
        ],
    ),
    (
        "config",
        &[
            ("foreign", &[]),
            ("secret", &[]),
            ("suggest", &[]),
            ("value", &[]),
            ("table", &["value"]),
            ("error", &["table"]),
            ("entries", &["error", "table", "value"]),
        ],
    ),
    (
        "log",
        &[("escape", &[]), ("throttle", &[]), ("panics", &["throttle"]), ("streams", &[]), ("writer", &[])],
    ),
    ("protocol", &[("opening", &[]), ("origin", &[]), ("utf8", &[])]),
    (
        "identity",
        &[
            ("algorithm", &[]),
            ("error", &["algorithm"]),
            ("claims", &["error"]),
            ("keys", &["algorithm", "claims", "error"]),
            ("jwks", &["algorithm", "error", "keys"]),
            ("seen", &["keys"]),
            ("token", &["claims", "error", "keys"]),
        ],
    ),
    (
        "tls",
        &[
            ("failure", &[]),
            ("subject", &[]),
            ("secrets", &[]),
            ("record", &["failure"]),
            ("keys", &["secrets"]),
            ("session", &["failure", "keys", "secrets"]),
            ("seal", &["keys", "record", "session"]),
            ("open", &["failure", "keys", "record", "seal", "session"]),
            ("handshake", &["failure", "record", "seal", "secrets", "session"]),
        ],
    ),
    (
        "qev",
        &[
            ("affinity", &[]),
            ("bell", &[]),
            ("blocks", &[]),
            ("clock", &[]),
            ("fair", &[]),
            ("pairs", &[]),
            ("shrink", &[]),
            ("slots", &[]),
            ("stats", &[]),
            ("timer", &["slots"]),
            ("buffers", &["clock"]),
            ("inbox", &["bell"]),
        ],
    ),
    (
        "server",
        &[
            ("left_over", &[]),
            ("open", &[]),
            ("unix_socket", &[]),
            ("listen", &["left_over", "unix_socket"]),
            ("mailboxes", &[]),
            ("memory", &[]),
            ("resources", &[]),
            ("tls", &[]),
            ("api_keys", &[]),
            ("auth", &["mailboxes"]),
            ("error", &["api_keys", "auth", "listen", "resources", "tls"]),
            ("admin_password", &["error"]),
            ("signals", &["error"]),
            ("services", &["error", "resources"]),
            ("inspections", &["mailboxes"]),
            ("statistics", &["inspections", "mailboxes"]),
            ("notify", &[]),
            ("reload", &[]),
            ("report", &["mailboxes", "statistics"]),
            ("watchdog", &["mailboxes", "notify", "statistics"]),
        ],
    ),
    (
        "bin/quickio-load",
        &[("clock", &[]), ("error", &[]), ("plan", &[]), ("process", &[]), ("results", &[])],
    ),
];

/// A file or folder, and the siblings that it may name.
type Leaf = (&'static str, &'static [&'static str]);

/// Circles of siblings that name each other, and the reason why each may stay. There are no others.
const CIRCLES: &[(&[&str], &str)] = &[(
    &["protocol/http", "protocol/reason", "protocol/websocket"],
    "a WebSocket begins as an HTTP request, and the reasons to close a connection are those of both protocols",
)];

/// The files in which `unsafe` may stand.
const UNSAFE_FILES: &[&str] = &[
    // The settings of the allocator.
    "main.rs",
    "qev/affinity.rs",
    "qev/ring.rs",
    "qev/buffers.rs",
    // The pointers of applications in C.
    "app/c/mod.rs",
    "app/c/api.rs",
    "app/c/scope.rs",
    "app/c/user.rs",
];

/// The crates that are interfaces to the kernel, and the folder whose files may name them.
const KERNEL_CRATES: &[&str] = &["glommio", "io_uring", "tokio"];
const KERNEL_FOLDER: &str = "qev/";

/// Names that two types or more share, the files that define them, and the reason.
const SHARED_NAMES: &[(&str, &[&str], &str)] = &[
    ("Answer", &["app/c/abi.rs", "app/types.rs"], C_FORM),
    ("Callback", &["app/c/abi.rs", "app/types.rs"], C_FORM),
    ("ClientId", &["app/c/abi.rs", "client/mod.rs"], C_FORM),
    ("Event", &["app/c/abi.rs", "app/event.rs"], C_FORM),
    ("Handler", &["app/c/abi.rs", "app/registrar.rs"], C_FORM),
    ("OffHook", &["app/c/abi.rs", "app/registrar.rs"], C_FORM),
    ("OnHook", &["app/c/abi.rs", "app/registrar.rs"], C_FORM),
    ("Reply", &["app/c/abi.rs", "app/event.rs"], C_FORM),
    ("Subscription", &["app/c/abi.rs", "app/event.rs"], C_FORM),
    ("Unsubscribed", &["app/c/abi.rs", "app/event.rs"], C_FORM),
];

const C_FORM: &str = "a type of the application API, and its C form";

/// The modules in which peers can cause every line of the log: such lines are throttled (`log::throttle`), unless their
/// level is below info.
const THROTTLED_MODULES: &[&str] = &["shard", "protocol", "client", "event", "admin", "mangler", "web"];

/// Folders with source text of any language, below the repository's root.
const FOLDERS: &[&str] = &["src", "tests", "benches", "examples", "scripts"];

/// How many of a hundred comments of a language may open with one of [`prose::AVOIDED`].
const AVOIDED_PERCENT_MAX: &[(Language, f64)] = &[
    (Language::RustDoc, 2.9),
    (Language::Rust, 2.9),
    (Language::Python, 2.9),
    (Language::JavaScript, 2.9),
    (Language::C, 2.9),
    (Language::Shell, 2.9),
];

// The tests.

static TREE: LazyLock<Tree> =
    LazyLock::new(|| Tree::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")));

#[test]
fn modules_name_only_those_below_them() {
    assert_none(upward_names(&TREE));
}

#[test]
fn every_file_is_a_module() {
    assert_none(undeclared_files(&TREE));
}

#[test]
fn only_qev_names_the_kernel_crates() {
    assert_none(kernel_names(&TREE));
}

/// The reason of each block is tested by the lint `clippy::undocumented_unsafe_blocks`.
#[test]
fn unsafe_stands_only_in_the_listed_files() {
    assert_none(misplaced_unsafe(&TREE));
    for listed in UNSAFE_FILES {
        let has_unsafe = TREE.files.iter().any(|file| file.path == *listed && !file.unsafe_lines.is_empty());
        assert!(has_unsafe, "UNSAFE_FILES lists src/{listed}, which has no `unsafe`");
    }
}

#[test]
fn leaves_name_no_other_file_of_their_module() {
    assert_none(LEAVES.iter().flat_map(|(module, leaves)| leaf_names(&TREE, module, leaves)).collect());
}

#[test]
fn siblings_do_not_name_each_other_in_a_circle() {
    assert_none(sibling_circles(&TREE, CIRCLES));
}

#[test]
fn lines_that_peers_can_cause_are_throttled() {
    assert_none(unthrottled_lines(&TREE, THROTTLED_MODULES));
}

#[test]
fn no_two_types_share_a_name() {
    assert_none(shared_names(&TREE, SHARED_NAMES));
}

#[test]
fn comments_open_with_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut failures = Vec::new();
    for &(language, percent_max) in AVOIDED_PERCENT_MAX {
        let mut total = 0;
        let mut avoided: BTreeMap<String, Vec<Comment>> = BTreeMap::new();
        for path in FOLDERS.iter().flat_map(|folder| source::files_below(&root.join(folder))) {
            let extension = path.extension().unwrap_or_default().to_str().unwrap_or_default();
            if !Language::of(extension).contains(&language) {
                continue;
            }
            let comments = language.comments(&fs::read_to_string(&path).expect("a source file in UTF-8"));
            total += comments.len();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            avoided.insert(name, comments.into_iter().filter(Comment::opens_badly).collect());
        }
        let count: usize = avoided.values().map(Vec::len).sum();
        let percent = 100.0 * count as f64 / total.max(1) as f64;
        println!("{language:?}: {count} of {total} comments, {percent:.1} %");
        if percent > percent_max {
            failures.push(format!(
                "{language:?}: {count} of {total} comments, {percent:.1} %; at most {percent_max} %"
            ));
            let mut worst = Vec::from_iter(avoided);
            worst.sort_by_key(|(_, comments)| Reverse(comments.len()));
            for (file, comments) in worst.iter().take(20).filter(|(_, comments)| !comments.is_empty()) {
                let lines =
                    Vec::from_iter(comments.iter().map(|comment| comment.line.to_string())).join(", ");
                failures.push(format!("  {file}: {} (lines {lines})", comments.len()));
            }
        }
    }
    assert_none(failures);
}

#[test]
fn the_allowed_names_have_no_circle() {
    let place =
        |module: &str| MAY_NAME.iter().position(|(name, _)| *name == module).expect("a module of the table");
    let edges: Vec<Vec<usize>> =
        MAY_NAME.iter().map(|(_, names)| names.iter().map(|name| place(name)).collect()).collect();
    assert!(graph::circles(&edges).is_empty());
}

fn assert_none(found: Vec<String>) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

// The checks. Each returns lines of `FILE:LINE: description`.

fn upward_names(tree: &Tree) -> Vec<String> {
    let mut found = BTreeSet::new();
    for file in tree.files.iter().filter(|file| file.path != "lib.rs") {
        let own = top_module(file);
        let allowed = MAY_NAME.iter().find(|(module, _)| *module == own).map(|(_, names)| *names);
        let Some(allowed) = allowed else {
            found.insert(format!("src/{}: `{own}` has no row in MAY_NAME", file.path));
            continue;
        };
        let common = if own == "qev" { &ALL_MAY_NAME[..1] } else { ALL_MAY_NAME };
        for named in &file.named {
            let Some(target) = tree.file_of(named) else { continue };
            let name = top_module(target);
            if name != own && name != "lib" && !allowed.contains(&name) && !common.contains(&name) {
                found.insert(format!("src/{}:{}: `{own}` names `{name}`", file.path, named.line));
            }
        }
    }
    Vec::from_iter(found)
}

/// Files that no `mod` declares, and that are not compiled.
fn undeclared_files(tree: &Tree) -> Vec<String> {
    let files = tree.files.iter().filter(|file| !tree.is_declared(&file.module));
    files.map(|file| format!("src/{}: no `mod` declares this file", file.path)).collect()
}

fn kernel_names(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| !file.path.starts_with(KERNEL_FOLDER)) {
        for named in file.named.iter().filter(|named| KERNEL_CRATES.contains(&named.segments[0].as_str())) {
            found.push(format!(
                "src/{}:{}: `{}` is named outside {KERNEL_FOLDER}",
                file.path, named.line, named.segments[0]
            ));
        }
    }
    found
}

fn misplaced_unsafe(tree: &Tree) -> Vec<String> {
    let files = tree.files.iter().filter(|file| !UNSAFE_FILES.contains(&file.path.as_str()));
    files
        .flat_map(|file| file.unsafe_lines.iter().map(|line| format!("src/{}:{line}: `unsafe`", file.path)))
        .collect()
}

fn unthrottled_lines(tree: &Tree, modules: &[&str]) -> Vec<String> {
    let files = tree.files.iter().filter(|file| modules.contains(&top_module(file)) && !file.is_test);
    let lines = files.flat_map(|file| file.log_lines.iter().map(|line| (&file.path, line)));
    lines.map(|(path, line)| format!("src/{path}:{line}: logs without `throttle!`")).collect()
}

/// Leaves of `module` that name a sibling which is not in their list. Tests may name anything.
fn leaf_names(tree: &Tree, module: &str, leaves: &[Leaf]) -> Vec<String> {
    let sibling = |file: &SourceFile| -> Option<String> {
        let below = file.path.strip_prefix(module)?.strip_prefix('/')?;
        // The root of the module is no sibling: it gives the files below it its own types.
        (below != "mod.rs").then_some(())?;
        Some(below.split('/').next().unwrap().trim_end_matches(".rs").to_string())
    };
    let mut found = Vec::new();
    for (leaf, _) in leaves {
        if !tree.files.iter().any(|file| sibling(file).as_deref() == Some(leaf)) {
            found.push(format!("src/{module}: there is no `{leaf}`, which LEAVES names"));
        }
    }
    for file in tree.files.iter().filter(|file| !file.is_test) {
        let Some(own) = sibling(file) else { continue };
        let Some((_, allowed)) = leaves.iter().find(|(leaf, _)| *leaf == own) else { continue };
        for named in file.named.iter().filter(|named| !named.is_test) {
            let Some(name) = tree.file_of(named).and_then(sibling) else { continue };
            if name != own && !allowed.contains(&name.as_str()) {
                found.push(format!("src/{}:{}: the leaf `{own}` names `{name}`", file.path, named.line));
            }
        }
    }
    found
}

/// Circles of siblings that are not in `allowed`, and entries of `allowed` that are no circle. Tests do not count.
///
/// The siblings are the files and folders of one module; what any file of a folder names, the folder names. A module's
/// root file is no sibling: it composes the files below it and gives them its own types.
fn sibling_circles(tree: &Tree, allowed: &[(&[&str], &str)]) -> Vec<String> {
    let names = sibling_names(tree);
    let siblings: Vec<&String> =
        Vec::from_iter(names.keys().flat_map(|(from, to)| [from, to]).collect::<BTreeSet<_>>());
    let place = |name: &String| siblings.binary_search(&name).unwrap();
    let mut edges = vec![Vec::new(); siblings.len()];
    for (from, to) in names.keys() {
        edges[place(from)].push(place(to));
    }
    let mut unused: Vec<&[&str]> = allowed.iter().map(|(names, _)| *names).collect();
    let mut found = Vec::new();
    for circle in graph::circles(&edges) {
        let circle: BTreeSet<&str> = circle.iter().map(|&at| siblings[at].as_str()).collect();
        if let Some(at) = unused.iter().position(|allowed| circle == allowed.iter().copied().collect()) {
            unused.remove(at);
            continue;
        }
        found.push(format!(
            "these name each other in a circle: {}",
            Vec::from_iter(circle.iter().copied()).join(", ")
        ));
        let within =
            |(from, to): &(String, String)| circle.contains(from.as_str()) && circle.contains(to.as_str());
        found.extend(
            names.iter().filter(|(ends, _)| within(ends)).map(|((_, to), at)| format!("  {at}, of {to}")),
        );
    }
    found.extend(unused.iter().map(|names| format!("CIRCLES has an entry that is no circle: {names:?}")));
    found
}

/// The pairs of siblings of which the first names the second, and the first place where it does so.
fn sibling_names(tree: &Tree) -> BTreeMap<(String, String), String> {
    let mut names = BTreeMap::new();
    for file in tree.files.iter().filter(|file| !file.is_test) {
        for named in file.named.iter().filter(|named| !named.is_test) {
            let Some(target) = tree.file_of(named) else { continue };
            let common =
                file.module.iter().zip(&target.module).take_while(|(own, other)| own == other).count();
            if file.module.len() == common || target.module.len() == common || common == 0 {
                continue; // one of the two is the root of a module around the other
            }
            let sibling = |file: &SourceFile| {
                let is_library = file.module[0] == source::LIBRARY;
                file.module[usize::from(is_library)..=common].join("/")
            };
            names.entry((sibling(file), sibling(target))).or_insert_with(|| {
                format!("src/{}:{}: `{}`", file.path, named.line, named.segments.join("::"))
            });
        }
    }
    names
}

/// Names of more than one type that `listed` does not have with these files, and entries of `listed` without such types.
/// The types of tests do not count. A program may have a type of the library's name: it is another crate.
fn shared_names(tree: &Tree, listed: &[(&str, &[&str], &str)]) -> Vec<String> {
    let mut types: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for file in tree.files.iter().filter(|file| !file.is_test) {
        for defined in file.types.iter().filter(|defined| !defined.is_test) {
            types
                .entry((&defined.name, &file.module[0]))
                .or_default()
                .push(format!("{}:{}", file.path, defined.line));
        }
    }
    let mut found = Vec::new();
    for ((name, _), places) in types.iter().filter(|(_, places)| places.len() > 1) {
        let files = Vec::from_iter(places.iter().map(|place| place.split(':').next().unwrap()));
        if !listed.iter().any(|(shared, of, _)| shared == name && *of == files) {
            found.push(format!("`{name}`: {}", places.join(", ")));
        }
    }
    for (name, _, _) in listed {
        if !types.iter().any(|((shared, _), places)| shared == name && places.len() > 1) {
            found.push(format!("SHARED_NAMES lists `{name}`, which no two types share"));
        }
    }
    found
}

/// The first module of a file's path: `client` for `client/callbacks.rs`, `limits` for `limits.rs`.
fn top_module(file: &SourceFile) -> &str {
    file.path.split('/').next().unwrap().trim_end_matches(".rs")
}

// The checks' own tests.

fn tree(files: &[(&str, &str)]) -> Tree {
    Tree::parse(&Vec::from_iter(files.iter().map(|(path, text)| (path.to_string(), text.to_string()))))
}

/// Each way to name a module is found, in a tree in which `a`, `a/b`, `a/b/c` and others are modules.
#[test]
fn every_way_to_name_a_module_is_found() {
    let rest = [
        (
            "lib.rs",
            "mod a; mod event; mod limits; mod qev; mod shard; pub use shard::Shard; pub struct Type;",
        ),
        ("event/mod.rs", "pub mod path;"),
        ("event/path.rs", "pub struct Path;"),
        ("limits.rs", "pub const X: u8 = 1;"),
        ("qev/mod.rs", "pub mod ring;"),
        ("qev/ring.rs", "pub struct Ring; pub use crate::event::path::Path as Way;"),
        ("shard/mod.rs", "pub struct Shard;"),
    ];
    let table: &[(&str, &str, &[&str])] = &[
        ("a.rs", "use crate::qev::ring;", &["qev/ring.rs"]),
        (
            "a.rs",
            "use crate::{event::path, qev::{self, ring::Ring}, limits};",
            &["event/path.rs", "limits.rs", "qev/mod.rs", "qev/ring.rs"],
        ),
        ("a.rs", "pub(crate) use crate::event;", &["event/mod.rs"]),
        ("a.rs", "fn f(x: &Vec<crate::shard::Shard>) {}", &["shard/mod.rs"]),
        ("a.rs", "use ::std::mem; const Y: u8 = crate::limits::X;", &["limits.rs"]),
        ("a.rs", "// use crate::shard;\n/* crate::shard */ const X: &str = \"crate::shard\";", &[]),
        ("a.rs", "use super::shard;", &["shard/mod.rs"]),
        ("a.rs", "use super::shard::*;", &["shard/mod.rs"]),
        ("a/mod.rs", "use super::shard as other;", &["shard/mod.rs"]),
        (
            "a.rs",
            "mod b { use super::super::shard; mod c { use super::super::super::qev; } }",
            &["qev/mod.rs", "shard/mod.rs"],
        ),
        ("a.rs", "mod b {} use b::x; fn f() { b::y(); self::b::z() }", &[]),
        // Re-exports and imports.
        ("a.rs", "use crate::Shard;", &["shard/mod.rs"]),
        ("a.rs", "use crate::qev::ring::Way;", &["event/path.rs"]),
        ("a.rs", "use crate::qev; mod b { use super::qev::ring::Ring; }", &["qev/mod.rs", "qev/ring.rs"]),
        ("a.rs", "use crate::Type;", &["lib.rs"]),
        // In macros.
        (
            "a.rs",
            "fn f() { assert!(crate::limits::X > 1, \"{}\", { x(::std::y); super::qev::z }); }",
            &["limits.rs", "qev/mod.rs"],
        ),
        (
            "a.rs",
            "macro_rules! m { () => { use $crate::{event, limits::X}; } }",
            &["event/mod.rs", "limits.rs"],
        ),
        ("a.rs", "fn f() { shard::x(); let crate_ = 1; crate_::qev::x(); }", &[]),
        (
            "main.rs",
            "fn main() { quickio::limits::x(quickio::qev::ring::y()) }",
            &["limits.rs", "qev/ring.rs"],
        ),
        (
            "bin/load/a.rs",
            "use crate::plan; use super::qev; use quickio::{qev::ring, limits};",
            &["bin/load/main.rs", "limits.rs", "qev/ring.rs"],
        ),
    ];
    for (file, text, expected) in table {
        let tree = tree(&[&rest[..], &[(*file, *text)], &[("bin/load/main.rs", "mod a;")]].concat());
        let read = tree.files.iter().find(|read| read.path == *file).unwrap();
        let named =
            read.named.iter().filter_map(|named| tree.file_of(named)).filter(|target| target.path != *file);
        let named = BTreeSet::from_iter(named.map(|target| target.path.as_str()));
        assert_eq!(named, BTreeSet::from_iter(expected.iter().copied()), "{file}: {text}");
    }
}

#[test]
fn names_that_are_not_allowed_are_found() {
    let check = |file: &str, text: &str| {
        let all = "mod client; mod event; mod limits; mod metrics; mod protocol; mod qev; mod unheard_of;";
        let rest = ["client.rs", "event.rs", "limits.rs", "metrics.rs", "protocol.rs", "qev.rs"];
        let rest = rest.into_iter().filter(|other| *other != file).map(|other| (other, ""));
        upward_names(&tree(&Vec::from_iter(rest.chain([("lib.rs", all), (file, text)]))))
    };
    assert_eq!(check("event.rs", "\nuse crate::qev::clock;"), ["src/event.rs:2: `event` names `qev`"]);
    assert_eq!(
        check("protocol.rs", "use crate::client::A;"),
        ["src/protocol.rs:1: `protocol` names `client`"]
    );
    assert_eq!(check("qev.rs", "use crate::metrics::Counter;"), ["src/qev.rs:1: `qev` names `metrics`"]);
    assert_eq!(check("unheard_of.rs", ""), ["src/unheard_of.rs: `unheard_of` has no row in MAY_NAME"]);
    assert!(check("qev.rs", "use crate::limits; const X: u8 = crate::qev::Y;").is_empty());
    assert!(check("client.rs", "use crate::{event, limits, metrics};").is_empty());
}

#[test]
fn files_without_a_module_are_found() {
    let files = [
        ("lib.rs", "mod a; mod b { mod c; }"),
        ("a.rs", ""),
        ("a/d.rs", ""),
        ("b/c.rs", ""),
        ("main.rs", ""),
        ("bin/load/main.rs", "mod e;"),
        ("bin/load/e.rs", ""),
        ("bin/load/f.rs", ""),
    ];
    let found = undeclared_files(&tree(&files));
    let expected = ["a/d.rs", "bin/load/f.rs"].map(|file| format!("src/{file}: no `mod` declares this file"));
    assert_eq!(found, expected);
}

#[test]
fn names_of_the_kernel_crates_are_found() {
    let check = |file: &str, text: &str| kernel_names(&tree(&[("lib.rs", ""), (file, text)])).len();
    let named = [
        "use glommio::x;",
        "use glommio;",
        "fn f() { let x = io_uring::opcode(); }",
        "use io_uring as ring;",
        "fn f() { println!(\"{}\", glommio::x()) }",
    ];
    for text in named {
        assert_eq!(check("shard/mod.rs", text), 1, "{text}");
        assert_eq!(check("qev/ring.rs", text), 0, "{text}");
    }
    assert_eq!(check("shard/mod.rs", "// glommio::x\nfn f() { let io_uring = \"io_uring::\"; }"), 0);
}

#[test]
fn unsafe_in_the_wrong_file_is_found() {
    let check = |file: &str, text: &str| misplaced_unsafe(&tree(&[("lib.rs", ""), (file, text)])).len();
    let found = ["fn f() { unsafe { x() } }", "unsafe impl Send for X {}", "fn f() { m!(unsafe { x() }) }"];
    for text in found {
        assert_eq!(check("shard/mod.rs", text), 1, "{text}");
        assert_eq!(check("qev/ring.rs", text), 0, "{text}");
    }
    assert_eq!(
        check("shard/mod.rs", "#![allow(unsafe_code)] // nothing unsafe\nconst X: &str = \"unsafe\";"),
        0
    );
}

#[test]
fn lines_that_are_not_throttled_are_found() {
    let check = |text: &str| {
        let files = [("lib.rs", "mod a; mod b;"), ("a/mod.rs", "mod c;"), ("a/c.rs", text), ("b.rs", text)];
        unthrottled_lines(&tree(&files), &["a"])
    };
    for text in [
        "",
        "fn f() { tracing::debug!(x, \"y\"); tracing::trace!(x); }",
        "fn f() { throttle!(warn, \"kind\", x, \"y\"); crate::log::throttle!(error, \"kind\", \"y\") }",
        "#[cfg(test)] mod tests { fn f() { tracing::info!(x); } }",
    ] {
        assert!(check(text).is_empty(), "{text}");
    }
    for text in ["tracing::info!(x)", "warn!(x)", "::tracing::error!(x)", "event!(Level::INFO, x)"] {
        let text = format!("fn f() {{\n match x {{ _ => {text} }} }}");
        assert_eq!(check(&text), ["src/a/c.rs:2: logs without `throttle!`"], "{text}");
    }
}

#[test]
fn leaves_that_name_others_are_found() {
    let leaves: &[Leaf] = &[("time", &[]), ("table", &["time"])];
    let check = |table: &str| {
        let modules = "mod state; mod steps; mod table; mod time; pub use state::State;";
        let (steps, time) = ("use super::state; use super::table;", "pub struct Time; mod wheel;");
        let files = [
            ("lib.rs", "mod shard;"),
            ("shard/mod.rs", modules),
            ("shard/state.rs", "pub struct State;"),
            ("shard/steps/mod.rs", steps),
            ("shard/time/mod.rs", time),
            ("shard/table.rs", table),
        ];
        leaf_names(&tree(&files), "shard", leaves)
    };
    for text in [
        "",
        "use super::time;",
        "use crate::shard::time::Time;",
        "#[cfg(test)] mod x { use crate::shard::State; }",
    ] {
        assert!(check(text).is_empty(), "{text}");
    }
    for text in ["use super::state;", "use super::State;", "fn f(state: &crate::shard::State) {}"] {
        assert_eq!(check(text), ["src/shard/table.rs:1: the leaf `table` names `state`"], "{text}");
    }
    assert_eq!(check("\nuse super::steps;"), ["src/shard/table.rs:2: the leaf `table` names `steps`"]);
    let none = leaf_names(&tree(&[("lib.rs", "")]), "shard", &leaves[..1]);
    assert_eq!(none, ["src/shard: there is no `time`, which LEAVES names"]);
}

#[test]
fn circles_of_siblings_are_found() {
    let check = |b: &str, c: &str, allowed: &[(&[&str], &str)]| {
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; mod c; use b::B; use c::d::D;"),
            ("a/b.rs", b),
            ("a/c/mod.rs", "pub mod d; use super::Above;"),
            ("a/c/d.rs", c),
        ];
        sibling_circles(&tree(&files), allowed)
    };
    assert!(check("use super::c::d;", "use crate::a::Above;", &[]).is_empty());
    assert!(check("use super::c::d;", "#[cfg(test)] mod tests { use crate::a::b; }", &[]).is_empty());
    let found = check("\nuse super::c::d;", "use crate::a::b::B;", &[]);
    let expected = [
        "these name each other in a circle: a/b, a/c",
        "  src/a/b.rs:2: `super::c::d`, of a/c",
        "  src/a/c/d.rs:1: `crate::a::b::B`, of a/b",
    ];
    assert_eq!(found, expected);
    let allowed: &[(&[&str], &str)] = &[(&["a/c", "a/b"], "a reason")];
    assert!(check("use super::c::d;", "use crate::a::b::B;", allowed).is_empty());
    assert_eq!(check("", "", allowed), ["CIRCLES has an entry that is no circle: [\"a/c\", \"a/b\"]"]);
}

#[test]
fn types_that_share_a_name_are_found() {
    let check = |listed: &[(&str, &[&str], &str)]| {
        let b = "enum A {} fn f() { struct B; } #[cfg(test)] struct C;";
        shared_names(
            &tree(&[
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "struct A; trait B {} type C = u8;"),
                ("b.rs", b),
                ("main.rs", "struct A;"),
            ]),
            listed,
        )
    };
    assert_eq!(check(&[]), ["`A`: a.rs:1, b.rs:1", "`B`: a.rs:1, b.rs:1"]);
    let both: &[&str] = &["a.rs", "b.rs"];
    assert_eq!(check(&[("A", both, "twins")]), ["`B`: a.rs:1, b.rs:1"]);
    assert!(check(&[("A", both, "twins"), ("B", both, "twins")]).is_empty());
    let listed = check(&[("A", both, "twins"), ("B", both, "twins"), ("C", both, "twins")]);
    assert_eq!(listed, ["SHARED_NAMES lists `C`, which no two types share"]);
}
