//! Parses the text of one value: counts, durations, addresses, names. An error is a phrase that states the problem.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::{App, Listen, ListenAddress, ListenKind, TrustedProxy};
use crate::limits::WORKERS_MAX;
use ipnet::IpNet;

/// The reason why a text is not a valid value: a phrase for the middle of a sentence.
pub(super) type Problem = String;

/// The units that may follow the digits of a count.
const COUNT_UNITS: &[(&str, u64)] =
    &[("", 1), ("k", 1000), ("M", 1_000_000), ("Ki", 1 << 10), ("Mi", 1 << 20), ("Gi", 1 << 30)];

/// The units that must follow the digits of a duration, in milliseconds.
const DURATION_UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

/// The maximum length of a Unix socket's path: `sun_path` has 108 bytes, including the terminating NUL byte.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// The maximum length of a free text: a DNS name has at most 253 bytes, and a port may follow.
const TEXT_BYTES_MAX: usize = 260;

/// The maximum length of a DNS name, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// The maximum length of a file's path: `PATH_MAX` of Linux includes the terminating NUL byte.
const FILE_BYTES_MAX: usize = 4095;

/// The maximum length of an application's name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Parses a whole number: `4096`, `64k` (thousands), `1Mi` (powers of 1024).
pub fn count(text: &str) -> Result<u64, Problem> {
    number(text, COUNT_UNITS)?.ok_or_else(|| "its unit must be k, M, Ki, Mi or Gi".into())
}

/// Parses a duration: a whole number and its unit, `500ms`, `10s`, `15m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, Problem> {
    let ms = number(text, DURATION_UNITS)?.ok_or("its unit must be ms, s, m or h")?;
    Ok(Duration::from_millis(ms))
}

/// Parses a number and multiplies it by its unit. Returns `None` if the unit is unknown.
fn number(text: &str, units: &[(&str, u64)]) -> Result<Option<u64>, Problem> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 {
        return Err("it does not begin with a whole number".into());
    }
    let (digits, unit) = text.split_at(digits);
    let Some(&(_, factor)) = units.iter().find(|(name, _)| *name == unit) else { return Ok(None) };
    let number: Option<u64> = digits.parse().ok();
    match number.and_then(|number| number.checked_mul(factor)) {
        Some(value) => Ok(Some(value)),
        None => Err("it does not fit in 64 bits".into()),
    }
}

/// Parses a listener: `ip:port`, `[ip6]:port`, `name:port` or `unix:/path`, behind `plain://`, `tls://`, `either://` or
/// nothing. A name may have several addresses.
pub(super) fn listen(text: &str) -> Result<Vec<Listen>, Problem> {
    let (kind, address) = match text.split_once("://") {
        Some((name, address)) => (Some(listen_kind(name)?), address),
        None => (None, text),
    };
    let addresses = match address.strip_prefix("unix:") {
        Some(path) => vec![ListenAddress::Unix(unix_path(path)?)],
        None => socket_addresses(address)?.into_iter().map(ListenAddress::Tcp).collect(),
    };
    Ok(addresses.into_iter().map(|address| Listen { address, kind }).collect())
}

fn listen_kind(name: &str) -> Result<ListenKind, Problem> {
    let kind = ListenKind::ALL.into_iter().find(|kind| kind.name() == name);
    kind.ok_or_else(|| "the word before :// must be plain, tls or either".into())
}

/// Parses the address of a service that is plain or takes TLS: as for [`socket_addresses`], behind `plain://`, `tls://` or
/// nothing, which means plain. Returns the addresses, and whether they take TLS.
pub(super) fn service_addresses(text: &str) -> Result<(Vec<SocketAddr>, bool), Problem> {
    let (is_tls, address) = match text.split_once("://") {
        Some(("tls", address)) => (true, address),
        Some(("plain", address)) => (false, address),
        Some(_) => return Err("the word before :// must be plain or tls".into()),
        None => (false, text),
    };
    Ok((socket_addresses(address)?, is_tls))
}

fn unix_path(path: &str) -> Result<PathBuf, Problem> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
        return Err("the path after `unix:` must be the absolute path of a file".into());
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!("the path has more than {UNIX_PATH_BYTES_MAX} bytes"));
    }
    Ok(PathBuf::from(path))
}

/// Parses `ip:port`, `[ip6]:port`, or the name of this host with a port, such as `localhost:8080`. A name is looked up,
/// and stands for all its addresses that this host can bind.
pub(super) fn socket_addresses(text: &str) -> Result<Vec<SocketAddr>, Problem> {
    if let Ok(address) = text.parse() {
        return Ok(vec![address]);
    }
    let Some((name, digits)) = text.rsplit_once(':') else {
        return Err("it has no port; write it behind a colon".into());
    };
    let port = port(digits)?;
    if name.is_empty() {
        return Err(format!(
            "it has no IP address; 0.0.0.0:{port} and [::]:{port} are all addresses of this host"
        ));
    }
    if name.contains(':') {
        return Err("it is not an IP address; an IPv6 address stands in brackets".into());
    }
    host(name)?;
    let looked_up = (name, port).to_socket_addrs();
    let found = looked_up.map_err(|error| format!("the name `{name}` cannot be looked up ({error})"))?;
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    // A name such as localhost often has an IPv6 address on hosts without IPv6. If no address can be bound, the error
    // of binding them is the better one.
    if addresses.iter().any(|address| can_bind(*address)) {
        addresses.retain(|address| can_bind(*address));
    }
    if addresses.is_empty() { Err(format!("the name `{name}` has no address")) } else { Ok(addresses) }
}

fn port(digits: &str) -> Result<u16, Problem> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("the part after the last colon is not a port".into());
    }
    digits.parse().map_err(|_| format!("the port {digits} is too large: ports are 0 to 65535"))
}

/// Returns whether an address belongs to this host, whatever its port.
fn can_bind(mut address: SocketAddr) -> bool {
    address.set_port(0);
    std::net::TcpListener::bind(address).is_ok()
}

/// Returns whether two sockets cannot listen on these addresses at the same time. `0.0.0.0` includes all IPv4 addresses,
/// and `[::]` all IPv6 addresses.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let includes =
        |all: SocketAddr, ip: SocketAddr| all.ip().is_unspecified() && all.is_ipv4() == ip.is_ipv4();
    let same_ip = one.ip() == other.ip() || includes(one, other) || includes(other, one);
    one.port() != 0 && one.port() == other.port() && same_ip
}

/// Parses a switch: `on` or `off`, as TOML also `true` or `false`.
pub(super) fn switch(text: &str) -> Result<bool, Problem> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("it must be on or off".into()),
    }
}

/// Parses the permissions of a file: one to four octal digits, `660` or `0660`.
pub(super) fn file_mode(text: &str) -> Result<u32, Problem> {
    let is_octal = (1..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or_else(|| "it is not the octal number of a file's permissions, such as 0660".into())
}

/// Parses an application: its name or its file, and the options of its workers.
pub(super) fn app(text: &str) -> Result<App, Problem> {
    let mut parts = text.split(',').map(str::trim);
    let named = parts.next().unwrap_or_default();
    let named = if is_file(named) { file(named) } else { name(named) }?;
    let mut app = App { name: named, instances: None };
    for part in parts {
        match part.split_once('=') {
            Some(("instances", count)) if app.instances.is_none() => app.instances = Some(instances(count)?),
            _ => {
                return Err(format!(
                    "`{part}` is not a valid option of an application; the only one is instances=N, given once"
                ));
            }
        }
    }
    Ok(app)
}

fn instances(text: &str) -> Result<usize, Problem> {
    let count = count(text)?;
    let count = usize::try_from(count).ok().filter(|count| (1..=WORKERS_MAX).contains(count));
    count.ok_or_else(|| format!("instances must be 1 to {WORKERS_MAX}"))
}

/// Returns whether an entry in a list of applications is an option of the application before it.
pub(super) fn is_app_option(text: &str) -> bool {
    let key = text.split_once('=').map(|(key, _)| key.trim());
    key.is_some_and(|key| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase()))
}

/// Returns whether an application is given by its file.
pub(super) fn is_file(app: &str) -> bool {
    app.contains('/') || [".so", ".py", ".js", ".mjs", ".cjs"].iter().any(|ending| app.ends_with(ending))
}

/// Parses the path of a file or directory.
pub(super) fn file(text: &str) -> Result<String, Problem> {
    if text.len() > FILE_BYTES_MAX || text.contains('\0') {
        return Err(format!("a path has at most {FILE_BYTES_MAX} bytes and no NUL byte"));
    }
    Ok(text.to_owned())
}

/// Parses the name of an application.
pub(super) fn name(text: &str) -> Result<String, Problem> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(allowed) {
        return Err(format!("a name consists of 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 - _"));
    }
    Ok(text.to_owned())
}

/// Parses a free text of visible characters.
pub(super) fn visible_text(text: &str) -> Result<String, Problem> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("it has more than {TEXT_BYTES_MAX} bytes"));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("it contains a space or a control character".into());
    }
    Ok(text.to_owned())
}

/// Parses the name of a header (RFC 9110, 5.1), which is returned in lower case.
pub(super) fn header(text: &str) -> Result<String, Problem> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || !text.bytes().all(is_token) {
        return Err("it is not the name of a header".into());
    }
    let name = text.to_ascii_lowercase();
    if name == "authorization" {
        return Err(
            "it has secrets of clients, which applications must not see; use the claims of the token".into(),
        );
    }
    Ok(name)
}

/// Parses `*`, or an origin as browsers write it (RFC 6454, 6.2): `http://host` or `https://host`, and the port if it
/// is not the scheme's default. The input may have capital letters and the default port; browsers write neither.
///
/// Local files and sandboxed pages have the origin `null` or `file://`. Apps and extensions have schemes of their own:
/// `capacitor://localhost`, `chrome-extension://ID`. Their hosts are compared as they are written.
pub(super) fn origin(text: &str) -> Result<String, Problem> {
    if matches!(text, "*" | "null" | "file://") {
        return Ok(text.to_owned());
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("it has more than {TEXT_BYTES_MAX} bytes"));
    }
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").unwrap_or(("", &lower));
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        "ws" | "wss" => return Err("an origin is the address of a page: write http:// or https://".into()),
        // Pages of these schemes have no origin of their own.
        "" | "ftp" | "file" | "data" | "blob" | "about" | "javascript" => {
            return Err(
                "it must be *, null or file://, or begin with http:// or https://, or with the scheme of \
                        an app or extension"
                    .into(),
            );
        }
        _ => return app_origin(text),
    };
    let (host, port) = split_port(rest)?;
    let host = origin_host(host)?;
    match port {
        Some(port) if port != default_port => Ok(format!("{scheme}://{host}:{port}")),
        _ => Ok(format!("{scheme}://{host}")),
    }
}

/// Parses the origin of an app or extension: a scheme (RFC 3986, 3.1), which browsers write in lower case, and a host.
fn app_origin(text: &str) -> Result<String, Problem> {
    let (scheme, host) = text.split_once("://").expect("the text has a scheme");
    let scheme = scheme.to_ascii_lowercase();
    let is_scheme = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    if !is_scheme {
        return Err("the part before :// is not a scheme".into());
    }
    Ok(format!("{scheme}://{}", origin_host(host)?))
}

/// Splits an origin without its scheme into host and port. A colon in brackets belongs to an IPv6 address.
fn split_port(text: &str) -> Result<(&str, Option<u16>), Problem> {
    let Some((host, port)) = text.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) else {
        return Ok((text, None));
    };
    match port.parse() {
        Ok(number @ 1..) if port.bytes().all(|b| b.is_ascii_digit()) => Ok((host, Some(number))),
        _ => Err("the part after the colon is not a port".into()),
    }
}

fn origin_host(host: &str) -> Result<String, Problem> {
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().map_err(|_| "the part in brackets is not an IPv6 address")?;
        return Ok(format!("[{address}]"));
    }
    if host.contains('/') {
        return Err("an origin has no path, not even a final slash".into());
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if host.is_empty() || !host.bytes().all(allowed) {
        return Err("its host may only have the characters A-Z a-z 0-9 - . _ (write other letters as punycode, xn--...)".into());
    }
    Ok(host.to_owned())
}

/// Parses `unix`, an IP address, or a network: `10.0.0.0/8`, `2001:db8::/32`. The bits behind the prefix do not matter.
pub(super) fn proxy(text: &str) -> Result<TrustedProxy, Problem> {
    if text == "unix" {
        return Ok(TrustedProxy::Unix);
    }
    let address = text.parse().map(|ip: IpAddr| IpNet::from(ip.to_canonical()));
    match address.or_else(|_| text.parse::<IpNet>()) {
        Ok(network) => Ok(TrustedProxy::Network(network.trunc())),
        Err(_) => Err("it is neither unix, nor an IP address, nor a network such as 10.0.0.0/8".into()),
    }
}

/// Parses the name of a host, without a port. It may have capitals and the final dot of the DNS root; the result has
/// neither.
pub(super) fn host(text: &str) -> Result<String, Problem> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_suffix('.').unwrap_or(&lower);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if name.is_empty() || name.len() > HOST_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(format!(
            "a host name has 1 to {HOST_BYTES_MAX} of the characters A-Z a-z 0-9 - . _ and no port (write other letters \
             as punycode, xn--...)"
        ));
    }
    Ok(name.to_owned())
}

/// Formats a duration as a setting accepts it, in the largest unit that is exact.
pub(super) fn duration_text(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let fits = |(_, factor): &&(&str, u64)| ms % factor == 0;
    let (unit, factor) = DURATION_UNITS.iter().rev().find(fits).unwrap_or(&DURATION_UNITS[0]);
    format!("{}{unit}", ms / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (text, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("4096", Some(4096)),
            ("64k", Some(64_000)),
            ("2M", Some(2_000_000)),
            ("64Ki", Some(65_536)),
            ("1Mi", Some(1_048_576)),
            ("4Gi", Some(4 << 30)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("17179869184Gi", None),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("1 k", None),
            ("1K", None),
            ("k", None),
            ("1kB", None),
            ("٣", None),
            ("1é", None),
        ] {
            assert_eq!(count(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected_ms) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("15m", Some(900_000)),
            ("1h", Some(3_600_000)),
            ("10", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("1d", None),
            ("1h30m", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            let got = duration(text).ok().map(|duration| duration.as_millis());
            assert_eq!(got, expected_ms, "{text:?}");
        }
    }

    #[test]
    fn durations_are_shown_as_they_are_typed() {
        for text in ["0s", "1ms", "500ms", "1500ms", "10s", "90s", "15m", "1h", "24h"] {
            let shown = duration_text(duration(text).unwrap());
            assert_eq!(shown, text);
        }
    }

    #[test]
    fn addresses() {
        for text in [
            "0.0.0.0:8080",
            "[::1]:0",
            "[fe80::1%2]:80",
            "unix:/run/quickio.sock",
            "plain://0.0.0.0:8080",
            "tls://[::1]:0",
            "either://unix:/run/quickio.sock",
        ] {
            let parsed = listen(text).unwrap();
            assert_eq!(parsed.iter().map(Listen::to_string).collect::<Vec<_>>(), [text]);
        }
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        for text in ["", "8080", ":8080", "1.2.3.4", "1.2.3.4:65536", "::1:80", &long] {
            assert!(listen(text).is_err(), "{text:?}");
        }
        for text in ["unix:", "unix:/", "unix:/run/", "unix:run/q.sock", "unix:/a\0b"] {
            assert!(listen(text).is_err(), "{text:?}");
        }
        for text in [
            "https://1.2.3.4:80",
            "TLS://1.2.3.4:80",
            "://1.2.3.4:80",
            "tls://",
            "tls://tls://1.2.3.4:80",
            "unix:tls://a",
        ] {
            assert!(listen(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn addresses_of_services() {
        let address: SocketAddr = "127.0.0.1:8081".parse().unwrap();
        for (text, is_tls) in
            [("127.0.0.1:8081", false), ("plain://127.0.0.1:8081", false), ("tls://127.0.0.1:8081", true)]
        {
            assert_eq!(service_addresses(text), Ok((vec![address], is_tls)));
        }
        for text in [
            "either://127.0.0.1:8081",
            "https://127.0.0.1:8081",
            "tls://unix:/run/socket",
            "tls:127.0.0.1:8081",
        ] {
            assert!(service_addresses(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_stand_for_all_their_addresses() {
        let parsed = socket_addresses("localhost:8080").unwrap();
        assert!(parsed.contains(&"127.0.0.1:8080".parse().unwrap()), "{parsed:?}");
        let has_ipv6 = can_bind("[::1]:0".parse().unwrap());
        let in_hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        let named = in_hosts.lines().any(|line| line.starts_with("::1") && line.contains("localhost"));
        assert_eq!(parsed.contains(&"[::1]:8080".parse().unwrap()), has_ipv6 && named, "{parsed:?}");
    }

    #[test]
    fn addresses_that_are_wrong_are_explained() {
        for (text, problem) in [
            ("8080", "no port"),
            ("1.2.3.4", "no port"),
            (":8080", "0.0.0.0:8080 and [::]:8080"),
            ("1.2.3.4:99999", "the port 99999 is too large"),
            ("localhost:99999", "0 to 65535"),
            ("1.2.3.4:http", "not a port"),
            ("1.2.3.4:", "not a port"),
            ("1.2.3.4:-1", "not a port"),
            ("::1:80", "in brackets"),
            ("no-such-host.invalid:80", "`no-such-host.invalid` cannot be looked up"),
            ("a b:80", "A-Z"),
        ] {
            let error = socket_addresses(text).unwrap_err();
            assert!(error.contains(problem), "{text:?}: {error}");
        }
    }

    #[test]
    fn addresses_overlap() {
        for (one, other, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "127.0.0.1:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
        ] {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((overlap(one, other), overlap(other, one)), (expected, expected), "{one} {other}");
        }
    }

    #[test]
    fn file_modes() {
        for (text, expected) in
            [("0660", Some(0o660)), ("660", Some(0o660)), ("0777", Some(0o777)), ("0", Some(0))]
        {
            assert_eq!(file_mode(text).ok(), expected, "{text:?}");
        }
        for text in ["", "0o660", "u=rw", "0888", "01777", "1777", "00660", "+660", "-1", " 660", "rw-rw----"]
        {
            assert!(file_mode(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn hosts() {
        for (text, expected) in [
            ("admin.example", "admin.example"),
            ("Admin.EXAMPLE.", "admin.example"),
            ("quickio_1", "quickio_1"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(expected));
        }
        for text in ["", ".", "a:80", "http://a", "a/b", "[::1]", "b\u{fc}cher", "*", "a b"] {
            assert!(host(text).is_err(), "{text:?}");
        }
        assert!(host(&"a".repeat(HOST_BYTES_MAX)).is_ok());
        assert!(host(&"a".repeat(HOST_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn origins() {
        for (text, expected) in [
            ("*", "*"),
            ("http://localhost:8080", "http://localhost:8080"),
            ("HTTPS://Example.COM", "https://example.com"),
            ("https://a.example:443", "https://a.example"),
            ("https://a.example:80", "https://a.example:80"),
            ("http://a.example:080", "http://a.example"),
            ("http://[::1]", "http://[::1]"),
            ("http://[0:0::0:1]:81", "http://[::1]:81"),
            ("http://10.0.0.1:65535", "http://10.0.0.1:65535"),
            ("null", "null"),
            ("file://", "file://"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("ionic://localhost", "ionic://localhost"),
            ("tauri://localhost", "tauri://localhost"),
            ("Chrome-Extension://aBc", "chrome-extension://aBc"),
            ("moz-extension://9a8b-7c", "moz-extension://9a8b-7c"),
            ("app+1.x://obsidian.md", "app+1.x://obsidian.md"),
        ] {
            assert_eq!(origin(text).as_deref(), Ok(expected));
        }
        for text in [
            "",
            "NULL",
            "file:///tmp",
            "file://host",
            "ws://a.example",
            "wss://a.example",
            "data://x",
            "1app://x",
            "a_p://x",
            "app://",
            "app://x/",
            "app://x:1",
            "app://x y",
            "**",
            "a.example",
            "//a.example",
            "ftp://a.example",
            "http://",
            "http://:80",
            "http://a.example/",
            "http://a.example/path",
            "http://a.example:",
            "http://a.example:0",
            "http://a.example:+1",
            "http://a.example:65536",
            "http://a.example:1:2",
            "http://*.example",
            "http://user@a.example",
            "http://bücher.example",
            "http://a b",
            "http://[::1",
            "http://::1",
            "http://[1.2.3.4]",
            &format!("http://{}", "x".repeat(TEXT_BYTES_MAX)),
        ] {
            assert!(origin(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_and_texts() {
        assert!(name("client-test_2").is_ok());
        for text in ["", "a b", "a/b", "é", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(name(text).is_err(), "{text:?}");
        }
        assert!(visible_text("example.org:8080").is_ok());
        for text in ["a b", "a\nb", "a\u{0}", &"x".repeat(TEXT_BYTES_MAX + 1)] {
            assert!(visible_text(text).is_err(), "{text:?}");
        }
    }
}
