//! A proxy in front of servers: nginx or HAProxy of the system, in the foreground, with the configuration that
//! docs/operations.md gives. Only addresses and files are replaced.

use crate::support::DEADLINE;
use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The program of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Nginx,
    Haproxy,
    /// nginx that passes connections on as they are, with a header of the PROXY protocol, version 1.
    NginxStream,
    /// The same of HAProxy, with a header of this version.
    HaproxyTcp(u8),
}

impl Program {
    /// Those that speak HTTP.
    pub const ALL: [Program; 2] = [Program::Nginx, Program::Haproxy];

    /// Those that pass connections on as they are.
    pub const PASSING_ON: [Program; 3] =
        [Program::NginxStream, Program::HaproxyTcp(1), Program::HaproxyTcp(2)];
}

/// A proxy that runs. Dropping it ends the process, and prints its log if the test fails.
pub struct Proxy {
    child: Child,
    folder: Folder,
    /// The address for HTTP/1.1 and WebSocket.
    pub address: String,
    /// The address for HTTP/2 without TLS.
    pub h2: String,
}

impl Proxy {
    /// Starts a proxy in front of these servers, each given as QuickIO prints its address.
    pub fn start(program: Program, servers: &[&str]) -> Proxy {
        // Another process may take a port between the search for it and the start of the proxy.
        (0..5)
            .find_map(|_| Proxy::try_start(program, servers))
            .expect("the proxy starts; its output is above")
    }

    fn try_start(program: Program, servers: &[&str]) -> Option<Proxy> {
        let folder = Folder::create();
        let [address, h2] = [free_address(), free_address()];
        let file = folder.path().join("proxy.conf");
        let text = match program {
            Program::Nginx => nginx(folder.path(), &address, &h2, servers),
            Program::Haproxy => haproxy(&address, &h2, servers),
            Program::NginxStream => nginx_stream(&address, &h2, servers),
            Program::HaproxyTcp(version) => haproxy_tcp(version, &address, &h2, servers),
        };
        fs::write(&file, text).expect("a file in a temporary folder");
        let log = fs::File::create(folder.path().join("output")).expect("a file in a temporary folder");
        let mut command = match program {
            Program::Nginx | Program::NginxStream => {
                let mut command = Command::new("nginx");
                command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
                command
            }
            Program::Haproxy | Program::HaproxyTcp(_) => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(&file);
                command
            }
        };
        let errors = log.try_clone().expect("a second handle of the file");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{program:?} does not start ({error}): install the packages nginx and haproxy")
        });
        let mut proxy = Proxy { child, folder, address, h2 };
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(&proxy.address).is_err() || TcpStream::connect(&proxy.h2).is_err() {
            if proxy.child.try_wait().expect("a child").is_some() || Instant::now() > deadline {
                eprintln!("{}", proxy.log());
                return None;
            }
            thread::sleep(Duration::from_millis(5));
        }
        Some(proxy)
    }

    fn log(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("output") + &read("error.log")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the log of the proxy\n{}---", self.log());
        }
        // The workers of nginx end with their master only if it ends by itself.
        let kill = format!("kill -TERM {}", self.child.id());
        let _ = Command::new("sh").args(["-c", &kill]).status();
        let deadline = Instant::now() + Duration::from_secs(10);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the block of docs/operations.md with this language that contains a text.
fn documented(language: &str, containing: &str) -> String {
    let guide = include_str!("../../docs/operations.md");
    let start = format!("```{language}\n");
    let blocks = guide.split(&start).skip(1).filter_map(|rest| rest.split("\n```").next());
    let found: Vec<&str> = blocks.filter(|block| block.contains(containing)).collect();
    assert_eq!(found.len(), 1, "one {language} block of docs/operations.md contains {containing:?}");
    found[0].to_owned() + "\n"
}

/// Replaces a text that occurs once.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from:?} occurs once in\n{text}");
    text.replace(from, to)
}

fn nginx(folder: &Path, address: &str, h2: &str, servers: &[&str]) -> String {
    let servers: String = servers.iter().map(|server| format!("server {server};\n")).collect();
    let site = documented("nginx", "upstream quickio");
    let site = replace(&site, "listen 443 ssl;", &format!("listen {address}; listen {h2} http2;"));
    let site = replace(&site, "server 127.0.0.1:8080;", &servers);
    let site = replace(&site, "/var/log/nginx/quickio.log", "access.log");
    let user = nginx_user();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", folder.join(name).display()))
        .concat();
    format!(
        "daemon off;\n{user}\nworker_processes 1;\npid nginx.pid;\nerror_log error.log info;\n\
         events {{ worker_connections 1024; }}\nhttp {{\n{paths}\n{site}}}\n"
    )
}

/// The user of nginx's workers: without one, those of root would run as a user that the machine may not have.
fn nginx_user() -> &'static str {
    if rustix::process::getuid().is_root() { "user www-data;" } else { "" }
}

fn nginx_stream(address: &str, second: &str, servers: &[&str]) -> String {
    let site = documented("nginx", "proxy_protocol on");
    let site = replace(&site, "listen 443;", &format!("listen {address}; listen {second};"));
    let site = replace(&site, "proxy_pass 127.0.0.1:8080;", &format!("proxy_pass {};", servers[0]));
    format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\n{}\nworker_processes 1;\n\
         pid nginx.pid;\nerror_log error.log info;\nevents {{ worker_connections 1024; }}\n{site}",
        nginx_user()
    )
}

fn haproxy_tcp(version: u8, address: &str, second: &str, servers: &[&str]) -> String {
    let site = documented("haproxy", "send-proxy-v2");
    let site = replace(&site, "    bind :443\n", &format!("    bind {address}\n    bind {second}\n"));
    let send = if version == 1 { "send-proxy" } else { "send-proxy-v2" };
    let server = format!("server one {} {send}\n", servers[0].replace("unix:", "unix@"));
    replace(&site, "server one 127.0.0.1:8080 send-proxy-v2\n", &server)
}

fn haproxy(address: &str, h2: &str, servers: &[&str]) -> String {
    let servers: String = servers
        .iter()
        .zip(1..)
        .map(|(server, number)| format!("    server s{number} {}\n", server.replace("unix:", "unix@")))
        .collect();
    let site = documented("haproxy", "backend quickio");
    let site = replace(
        &site,
        "    bind :443 ssl crt /etc/haproxy/site.pem\n",
        &format!("    bind {address}\n    bind {h2} proto h2\n"),
    );
    replace(&site, "    server one 127.0.0.1:8080\n", &servers)
}

/// Returns an address with a port that is free, below those that the kernel gives to clients.
fn free_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let offset = std::process::id().wrapping_mul(101);
    loop {
        let port = 20_000 + offset.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let address = format!("127.0.0.1:{port}");
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// A temporary folder that other users may enter.
pub struct Folder(PathBuf);

impl Folder {
    pub fn create() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("quickio-proxies-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder(std::env::temp_dir().join(name));
        fs::create_dir(folder.path()).expect("a new folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("a folder of our own");
        folder
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
