//! The header of the PROXY protocol, versions 1 and 2, with which a proxy tells for whom it has opened a connection. It
//! comes before everything else, also before TLS.
//!
//! The specification is `doc/proxy-protocol.txt` of HAProxy, here in its revision of 2020/03/05; sections are its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use crc32c::{crc32c, crc32c_append};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// The beginning of a header of version 1 (2.1).
const SIGNATURE_1: &[u8] = b"PROXY ";

/// The beginning of a header of version 2 (2.2).
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length of the longest header of version 1, with its line end (2.1).
const LINE_BYTES_MAX: usize = 107;

/// The length of a header of version 2 before its addresses (2.2).
const FIXED_BYTES: usize = 16;

/// The length of the type and the length before a value that follows the addresses (2.2).
const VALUE_HEAD_BYTES: usize = 3;

/// The type of the value that is a checksum of the header, CRC-32C (2.2.3).
const CHECKSUM: u8 = 3;

/// The outcome of looking at the first bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProxyHeader {
    /// The bytes may be the beginning of a header.
    Incomplete,
    /// The bytes begin with something else.
    Missing,
    /// The bytes begin like a header, but are none.
    Invalid,
    /// A header of `len` bytes.
    Complete {
        len: usize,
        /// The client for which the proxy has opened the connection. `None`: the connection is the proxy's own, such as a
        /// check of the server's health, or the proxy does not know the client's address.
        client: Option<SocketAddr>,
    },
}

impl ProxyHeader {
    /// Looks at the first bytes of a connection. At most [`PROXY_HEADER_BYTES_MAX`] of them decide.
    pub fn parse(input: &[u8]) -> ProxyHeader {
        if input.starts_with(SIGNATURE_1) {
            return version_1(input);
        }
        if input.starts_with(SIGNATURE_2) {
            return version_2(input).unwrap_or(ProxyHeader::Invalid);
        }
        let is_prefix = SIGNATURE_1.starts_with(input) || SIGNATURE_2.starts_with(input);
        if is_prefix { ProxyHeader::Incomplete } else { ProxyHeader::Missing }
    }

    /// Returns whether the bytes begin like a header.
    pub fn begins(input: &[u8]) -> bool {
        input.starts_with(SIGNATURE_1) || input.starts_with(SIGNATURE_2)
    }
}

/// Parses a line such as `PROXY TCP4 192.0.2.1 192.0.2.2 56324 443` (2.1).
fn version_1(input: &[u8]) -> ProxyHeader {
    let line = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < LINE_BYTES_MAX { ProxyHeader::Incomplete } else { ProxyHeader::Invalid };
    };
    let text = std::str::from_utf8(&line[SIGNATURE_1.len()..end]).ok();
    match text.and_then(client_of_line) {
        Some(client) => ProxyHeader::Complete { len: end + 2, client },
        None => ProxyHeader::Invalid,
    }
}

/// Returns the client that a line names, behind the signature; `None` if the line is malformed.
fn client_of_line(text: &str) -> Option<Option<SocketAddr>> {
    let mut words = text.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever follows has to be ignored.
        return Some(None);
    }
    let addresses = [words.next()?, words.next()?];
    let ports = [port(words.next()?)?, port(words.next()?)?];
    let [source, _] = match family {
        "TCP4" => both::<Ipv4Addr>(addresses)?,
        "TCP6" => both::<Ipv6Addr>(addresses)?,
        _ => return None,
    };
    words.next().is_none().then(|| Some(SocketAddr::new(source, ports[0])))
}

/// Parses the addresses of the source and the destination, which have the same family.
fn both<T: FromStr + Into<IpAddr>>(texts: [&str; 2]) -> Option<[IpAddr; 2]> {
    let [source, destination] = texts.map(|text| text.parse::<T>().ok().map(Into::into));
    Some([source?, destination?])
}

/// Parses a port: decimal, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_shortest = text == "0" || !text.starts_with('0');
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_shortest && is_decimal)
}

/// Parses a binary header (2.2); `None` if it is malformed or too long. Of what follows the addresses, only the checksum
/// matters.
fn version_2(input: &[u8]) -> Option<ProxyHeader> {
    let Some(fixed) = input.first_chunk::<FIXED_BYTES>() else { return Some(ProxyHeader::Incomplete) };
    let [command, family, len_high, len_low] = *fixed.last_chunk().expect("the fixed part is longer");
    let len = FIXED_BYTES + usize::from(u16::from_be_bytes([len_high, len_low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return None,
    };
    // Unassigned families and transports are invalid (2.2).
    let (is_inet, is_stream) = (matches!(family >> 4, 1 | 2), family & 15 == 1);
    if family >> 4 > 3 || family & 15 > 2 || len > PROXY_HEADER_BYTES_MAX {
        return None;
    }
    let Some(header) = input.get(..len) else { return Some(ProxyHeader::Incomplete) };
    let addresses = &header[FIXED_BYTES..];
    let client = match family {
        _ if is_local || !is_inet || !is_stream => None,
        0x11 => Some(source::<4>(addresses, addresses_len(family))?),
        _ => Some(source::<16>(addresses, addresses_len(family))?),
    };
    // The receiver discards the rest of a header without addresses.
    if !is_local && family >> 4 != 0 {
        check_values(header, FIXED_BYTES + addresses_len(family))?;
    }
    Some(ProxyHeader::Complete { len, client })
}

/// The length of the addresses of a family: IPv4, IPv6 or Unix (2.2).
fn addresses_len(family: u8) -> usize {
    match family >> 4 {
        1 => 12,
        2 => 36,
        _ => 216,
    }
}

/// Checks the values behind the addresses, which begin at `at`. Returns `None` if they do not fill the header, or if it has
/// another checksum than one of them says: a receiver that knows checksums must check them (2.2.3).
fn check_values(header: &[u8], mut at: usize) -> Option<()> {
    let mut has_checksum = false;
    while at < header.len() {
        let [kind, len_high, len_low] = *header[at..].first_chunk::<VALUE_HEAD_BYTES>()?;
        let begin = at + VALUE_HEAD_BYTES;
        at = begin + usize::from(u16::from_be_bytes([len_high, len_low]));
        let value = header.get(begin..at)?;
        if kind == CHECKSUM {
            let sent = u32::from_be_bytes(value.try_into().ok()?);
            // The checksum is that of the header with zeros in its place.
            let sum = [&[0; 4], &header[at..]].into_iter().fold(crc32c(&header[..begin]), crc32c_append);
            if sum != sent || std::mem::replace(&mut has_checksum, true) {
                return None;
            }
        }
    }
    Some(())
}

/// Returns the source in a block of addresses: two addresses of `N` bytes each, then two ports. `None` if the block is
/// shorter than it must be.
fn source<const N: usize>(addresses: &[u8], len: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let addresses = addresses.get(..len)?;
    let ip: [u8; N] = *addresses.first_chunk()?;
    let port: [u8; 2] = *addresses[2 * N..].first_chunk()?;
    Some(SocketAddr::new(ip.into(), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::testing;

    fn complete(len: usize, client: &str) -> ProxyHeader {
        ProxyHeader::Complete { len, client: Some(client.parse().unwrap()) }
    }

    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let len = (addresses.len() as u16).to_be_bytes();
        [SIGNATURE_2, &[command, family], &len, addresses].concat()
    }

    /// The addresses of a connection from 192.0.2.1:4711 to 192.0.2.2:443.
    const FOUR: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 1, 187];

    fn six() -> Vec<u8> {
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        [&ip("2001:db8::1")[..], &ip("2001:db8::2"), &[0x12, 0x67, 1, 187]].concat()
    }

    #[test]
    fn lines_name_the_client() {
        for (line, client) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 4711 443", "192.0.2.1:4711"),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 0", "255.255.255.255:65535"),
            ("PROXY TCP6 2001:db8::1 ::1 4711 443", "[2001:db8::1]:4711"),
        ] {
            let bytes = format!("{line}\r\n/qio/ohai");
            assert_eq!(ProxyHeader::parse(bytes.as_bytes()), complete(line.len() + 2, client), "{line}");
        }
        for line in ["PROXY UNKNOWN", "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535"] {
            let header = ProxyHeader::parse(format!("{line}\r\n").as_bytes());
            assert_eq!(header, ProxyHeader::Complete { len: line.len() + 2, client: None }, "{line}");
        }
    }

    #[test]
    fn lines_that_are_not_exact_are_invalid() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(LINE_BYTES_MAX));
        for line in [
            "PROXY ",
            "PROXY TCP4",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 443 1",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 443 ",
            "PROXY TCP4  192.0.2.1 192.0.2.2 4711 443",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 65536",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +471 443",
            "PROXY TCP4 192.0.2.1 192.0.2.2 04711 443",
            "PROXY TCP4 192.0.2.1 192.0.2.2 -1 443",
            "PROXY TCP4 192.0.2.1 192.0.2.2  443",
            "PROXY TCP4 192.0.2 192.0.2.2 4711 443",
            "PROXY TCP4 2001:db8::1 ::1 4711 443",
            "PROXY TCP4 192.0.2.1 ::1 4711 443",
            "PROXY TCP6 192.0.2.1 192.0.2.2 4711 443",
            "PROXY TCP6 [2001:db8::1] ::1 4711 443",
            "PROXY UDP4 192.0.2.1 192.0.2.2 4711 443",
            "PROXY tcp4 192.0.2.1 192.0.2.2 4711 443",
            "PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\n",
            "PROXY TCP4 example.org 192.0.2.2 4711 443",
            "PROXY \u{e9}",
            &long,
        ] {
            let bytes = format!("{line}\r\n");
            assert_eq!(ProxyHeader::parse(bytes.as_bytes()), ProxyHeader::Invalid, "{line}");
        }
        assert_eq!(ProxyHeader::parse(b"PROXY \xff\xff\r\n"), ProxyHeader::Invalid);
        // A line that never ends is not waited for.
        assert_eq!(ProxyHeader::parse(long.as_bytes()), ProxyHeader::Invalid);
    }

    #[test]
    fn binary_headers_name_the_client() {
        let four = binary(0x21, 0x11, &FOUR);
        assert_eq!(ProxyHeader::parse(&four), complete(28, "192.0.2.1:4711"));
        assert_eq!(ProxyHeader::parse(&binary(0x21, 0x21, &six())), complete(52, "[2001:db8::1]:4711"));
        // Additional values (2.2.x) are skipped, and so is everything of the proxy's own connections.
        let with_values = binary(0x21, 0x11, &[&FOUR[..], b"\x02\0\x0bexample.org"].concat());
        assert_eq!(ProxyHeader::parse(&with_values), complete(with_values.len(), "192.0.2.1:4711"));
        for (command, family, addresses) in [
            (0x20, 0x00, &[][..]),
            (0x20, 0x11, &FOUR),
            (0x20, 0x11, &[1, 2, 3]),
            (0x21, 0x00, &[9; 40]),
            (0x21, 0x12, &FOUR),
            (0x21, 0x31, &[b'/'; 216]),
            (0x21, 0x02, &[]),
        ] {
            let header = binary(command, family, addresses);
            let expected = ProxyHeader::Complete { len: header.len(), client: None };
            assert_eq!(ProxyHeader::parse(&header), expected, "{header:?}");
        }
    }

    #[test]
    fn binary_headers_that_are_not_exact_are_invalid() {
        for (command, family, addresses) in [
            (0x22, 0x11, &FOUR[..]),
            (0x11, 0x11, &FOUR),
            (0x01, 0x11, &FOUR),
            (0x31, 0x11, &FOUR),
            (0x21, 0x13, &FOUR),
            (0x21, 0x41, &FOUR),
            (0x21, 0x11, &FOUR[..11]),
            (0x21, 0x11, &[]),
            (0x21, 0x21, &FOUR),
            (0x21, 0x21, &six()[..35]),
            (0x21, 0x11, &[0; PROXY_HEADER_BYTES_MAX]),
        ] {
            let header = binary(command, family, addresses);
            assert_eq!(ProxyHeader::parse(&header), ProxyHeader::Invalid, "{header:?}");
        }
        // A length that is too large is not waited for.
        let too_long = binary(0x21, 0x11, &[0; PROXY_HEADER_BYTES_MAX]);
        assert_eq!(ProxyHeader::parse(&too_long[..FIXED_BYTES]), ProxyHeader::Invalid);
        let longest = binary(0x20, 0, &[0; PROXY_HEADER_BYTES_MAX - FIXED_BYTES]);
        let expected = ProxyHeader::Complete { len: PROXY_HEADER_BYTES_MAX, client: None };
        assert_eq!(ProxyHeader::parse(&longest), expected);
    }

    /// A header from HAProxy 2.6 (`send-proxy-v2 proxy-v2-options crc32c`), for 127.0.0.1:45764.
    const WITH_CHECKSUM: [u8; 35] = [
        13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 33, 17, 0, 19, 127, 0, 0, 1, 127, 0, 0, 1, 178, 196,
        78, 32, 3, 0, 4, 169, 73, 169, 110,
    ];

    #[test]
    fn checksums_are_checked() {
        let whole = ProxyHeader::parse(&WITH_CHECKSUM);
        assert_eq!(whole, complete(35, "127.0.0.1:45764"));
        for at in FIXED_BYTES..WITH_CHECKSUM.len() {
            let mut changed = WITH_CHECKSUM;
            changed[at] ^= 4;
            // With another type it is no checksum.
            let expected = if at == 28 { whole } else { ProxyHeader::Invalid };
            assert_eq!(ProxyHeader::parse(&changed), expected, "{at}");
        }
    }

    #[test]
    fn values_fill_the_header() {
        let value = |kind: u8, len: u8, bytes: &[u8]| [&[kind, 0, len], bytes].concat();
        for (family, addresses) in [(0x11, FOUR.to_vec()), (0x21, six()), (0x31, vec![b'/'; 216])] {
            for (values, is_valid) in [
                (value(4, 0, b""), true),
                ([value(4, 2, b"\0\0"), value(2, 3, b"abc")].concat(), true),
                (vec![4], false),
                (vec![4, 0], false),
                (value(4, 3, b"\0\0"), false),
                ([value(4, 0, b""), vec![0]].concat(), false),
                (value(CHECKSUM, 3, b"\0\0\0"), false),
                (value(CHECKSUM, 4, b"\0\0\0\0"), false),
            ] {
                let header = binary(0x21, family, &[&addresses[..], &values].concat());
                assert_eq!(ProxyHeader::parse(&header) != ProxyHeader::Invalid, is_valid, "{header:?}");
            }
        }
    }

    #[test]
    fn other_protocols_have_no_header() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"/qio/ohai",
            b"POST / ",
            b"proxy ",
            b"PROXYX",
            b"\r\n\r\nGET ",
            b"\x16\x03\x01",
        ] {
            assert_eq!(ProxyHeader::parse(bytes), ProxyHeader::Missing, "{bytes:?}");
            assert!(!ProxyHeader::begins(bytes));
        }
        for bytes in [&b""[..], b"P", b"PROXY", b"PROXY ", b"\r", b"\r\n\r\n\0\r\nQUIT", SIGNATURE_2] {
            assert_eq!(ProxyHeader::parse(bytes), ProxyHeader::Incomplete, "{bytes:?}");
        }
    }

    /// Each piece of a header is incomplete, and what follows a header does not matter.
    #[test]
    fn headers_may_come_in_pieces() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 4711 443\r\n".to_vec();
        for header in [line, binary(0x21, 0x11, &FOUR), binary(0x21, 0x21, &six())] {
            for len in 0..header.len() {
                assert_eq!(ProxyHeader::parse(&header[..len]), ProxyHeader::Incomplete, "{len}");
            }
            let whole = ProxyHeader::parse(&header);
            assert!(matches!(whole, ProxyHeader::Complete { len, .. } if len == header.len()));
            let followed = [&header[..], b"\r\nPROXY "].concat();
            assert_eq!(ProxyHeader::parse(&followed), whole);
        }
    }

    /// Whatever comes, the outcome for a longer input is that for a shorter one, once it is decided; and it is decided
    /// within the limit.
    #[test]
    fn fuzz_what_is_decided_stays() {
        testing::fuzz(|random| {
            let pieces: [&[u8]; 12] = [
                b"PROXY ",
                b"TCP4 ",
                b"TCP6 ",
                b"UNKNOWN",
                b"192.0.2.1 ",
                b"::1 ",
                b"1 ",
                b"\r\n",
                SIGNATURE_2,
                b"\x21\x11\0\x0c",
                b"\x20\0\0\0",
                b"\x0f\xff",
            ];
            let bytes: Vec<u8> = (0..random.below(9)).flat_map(|_| random.pick(&pieces).to_vec()).collect();
            let mut decided = None;
            for len in 0..=bytes.len() {
                let header = ProxyHeader::parse(&bytes[..len]);
                match decided {
                    None if header != ProxyHeader::Incomplete => decided = Some(header),
                    None => {}
                    Some(decided) => assert_eq!(header, decided, "{bytes:?} {len}"),
                }
            }
            let padded = [&bytes[..], &[b'x'; PROXY_HEADER_BYTES_MAX]].concat();
            assert_ne!(ProxyHeader::parse(&padded[..PROXY_HEADER_BYTES_MAX]), ProxyHeader::Incomplete);
        });
    }
}
