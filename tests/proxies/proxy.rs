//! A proxy in front of servers: nginx or HAProxy of the system, in the foreground, with the configuration that
//! docs/operations.md gives. Only addresses and files are replaced.

use crate::support::DEADLINE;
use crate::support::tls::OF_TESTS;
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
    /// nginx that ends TLS.
    NginxTls,
    /// The same of HAProxy.
    HaproxyTls,
    /// nginx that passes connections on as they are, with a header of the PROXY protocol, version 1.
    NginxStream,
    /// The same of HAProxy, with the header that these words of its configuration ask for.
    HaproxyTcp(&'static str),
}

impl Program {
    /// Those that speak HTTP.
    pub const ALL: [Program; 2] = [Program::Nginx, Program::Haproxy];

    /// Those that speak HTTPS.
    pub const WITH_TLS: [Program; 2] = [Program::NginxTls, Program::HaproxyTls];

    /// Those that pass connections on as they are.
    pub const PASSING_ON: [Program; 4] = [
        Program::NginxStream,
        Program::HaproxyTcp("send-proxy"),
        Program::HaproxyTcp("send-proxy-v2"),
        Program::HaproxyTcp("send-proxy-v2 proxy-v2-options crc32c"),
    ];

    fn is_nginx(self) -> bool {
        matches!(self, Program::Nginx | Program::NginxTls | Program::NginxStream)
    }
}

/// A proxy that runs. Dropping it ends the process, and prints its log if the test fails.
pub struct Proxy {
    child: Child,
    folder: Folder,
    /// The address for HTTP/1.1 and WebSocket, which begins with `tls://` if clients have to speak TLS.
    pub address: String,
    /// The address for HTTP/2, without TLS or with it, as the other one.
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
        let is_tls =
            Program::WITH_TLS.contains(&program) || servers.iter().any(|server| server.starts_with("tls://"));
        let servers: Vec<&str> =
            servers.iter().map(|server| server.strip_prefix("tls://").unwrap_or(server)).collect();
        let file = folder.path().join("proxy.conf");
        let text = match program {
            Program::Nginx => {
                nginx(folder.path(), &format!("listen {address}; listen {h2} http2;"), &servers)
            }
            Program::NginxTls => {
                let [chain, key] = OF_TESTS;
                let files = format!("ssl_certificate {chain}; ssl_certificate_key {key};");
                let listen = format!("listen {address} ssl; listen {h2} ssl http2; {files}");
                nginx(folder.path(), &listen, &servers)
            }
            Program::Haproxy => haproxy(&format!("bind {address}\n    bind {h2} proto h2"), &servers),
            Program::HaproxyTls => {
                let pair = folder.path().join("site.pem");
                let [chain, key] =
                    OF_TESTS.map(|file| fs::read_to_string(file).expect("a file of the tests"));
                fs::write(&pair, chain + &key).expect("a file in a temporary folder");
                let with = format!("ssl crt {}", pair.display());
                let bind = format!("bind {address} {with}\n    bind {h2} {with} alpn h2");
                haproxy(&bind, &servers)
            }
            Program::NginxStream => nginx_stream(&address, &h2, &servers),
            Program::HaproxyTcp(send) => haproxy_tcp(send, &address, &h2, &servers),
        };
        fs::write(&file, text).expect("a file in a temporary folder");
        let log = fs::File::create(folder.path().join("output")).expect("a file in a temporary folder");
        let mut command = if program.is_nginx() {
            let mut command = Command::new("nginx");
            command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
            command
        } else {
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(&file);
            command
        };
        let errors = log.try_clone().expect("a second handle of the file");
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{program:?} does not start ({error}): install the packages nginx and haproxy")
        });
        let urls = [&address, &h2].map(|address| format!("{}{address}", if is_tls { "tls://" } else { "" }));
        let [url, h2_url] = urls;
        let mut proxy = Proxy { child, folder, address: url, h2: h2_url };
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(&address).is_err() || TcpStream::connect(&h2).is_err() {
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

/// Returns a configuration of nginx. `listen` are its lines about addresses.
fn nginx(folder: &Path, listen: &str, servers: &[&str]) -> String {
    let servers: String = servers.iter().map(|server| format!("server {server};\n")).collect();
    let site = documented("nginx", "upstream quickio");
    let site = replace(&site, "listen 443 ssl;", listen);
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

fn haproxy_tcp(send: &str, address: &str, second: &str, servers: &[&str]) -> String {
    let site = documented("haproxy", "send-proxy-v2");
    let site = replace(&site, "    bind :443\n", &format!("    bind {address}\n    bind {second}\n"));
    let server = format!("server one {} {send}\n", servers[0].replace("unix:", "unix@"));
    replace(&site, "server one 127.0.0.1:8080 send-proxy-v2\n", &server)
}

/// Returns a configuration of HAProxy. `bind` are its lines about addresses.
fn haproxy(bind: &str, servers: &[&str]) -> String {
    let servers: String = servers
        .iter()
        .zip(1..)
        .map(|(server, number)| format!("    server s{number} {}\n", server.replace("unix:", "unix@")))
        .collect();
    let site = documented("haproxy", "backend quickio");
    let site = replace(&site, "bind :443 ssl crt /etc/haproxy/site.pem", bind);
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
