//! What names a server: the value of a `Host` field (RFC 9110, section 7.2), and
//! the authority of a target (section 4.2).

use std::net::Ipv6Addr;

/// Whether `value` may be that of a `Host` field: a host, which may be empty, and
/// a port or none.
#[must_use]
pub fn is_host(value: &[u8]) -> bool {
    let port = match value {
        [b'[', rest @ ..] => match rest.iter().position(|&byte| byte == b']') {
            Some(end) if is_literal(&rest[..end]) => &rest[end + 1..],
            _ => return false,
        },
        _ => after_name(value),
    };
    port.is_empty() || port[0] == b':' && port[1..].iter().all(u8::is_ascii_digit)
}

/// Whether `value` may be the authority of an `http` URI: no host is none (section
/// 4.2.1), and a user has no place in a request (section 4.2.4).
#[must_use]
pub fn is_authority(value: &[u8]) -> bool {
    !matches!(value, [] | [b':', ..]) && is_host(value)
}

/// What follows a name or an IPv4 address, which may be empty: `reg-name` of RFC
/// 3986, section 3.2.2.
fn after_name(mut rest: &[u8]) -> &[u8] {
    loop {
        let plain = rest.iter().take_while(|&&byte| is_plain(byte)).count();
        rest = match &rest[plain..] {
            [b'%', high, low, others @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                others
            }
            others => return others,
        }
    }
}

/// What stands between brackets: an IPv6 address, or `IPvFuture` of RFC 3986,
/// section 3.2.2.
fn is_literal(literal: &[u8]) -> bool {
    let Some(future) = literal.strip_prefix(b"v").or_else(|| literal.strip_prefix(b"V")) else {
        let text = std::str::from_utf8(literal);
        return text.is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    };
    let dot = future.iter().position(|&byte| byte == b'.').unwrap_or(0);
    let (version, address) = future.split_at(dot);
    !version.is_empty()
        && version.iter().all(u8::is_ascii_hexdigit)
        && address.len() > 1
        && address[1..].iter().all(|&byte| byte == b':' || is_plain(byte))
}

/// `unreserved` or `sub-delims` of RFC 3986, section 2. Every request has a host, so
/// this is looked up.
const fn is_plain(byte: u8) -> bool {
    const PLAIN: [bool; 256] = {
        let mut plain = [false; 256];
        let mut byte = 0_u8;
        while byte < 128 {
            plain[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let (others, mut index) = (b"-._~!$&'()*+,;=", 0);
        while index < others.len() {
            plain[others[index] as usize] = true;
            index += 1;
        }
        plain
    };
    PLAIN[byte as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hosts_are_told_from_what_is_none() {
        for host in [
            "",
            ":",
            ":80",
            "h",
            "h:",
            "a-b_c.example:8080",
            "127.0.0.1:65536",
            "%41!$&'()*+,;=~",
            "[::]",
            "[::1]:8080",
            "[2001:db8::192.0.2.1]:",
            "[v1.a:b]",
            "[VF.x]:1",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for other in [
            "a b",
            "a/b",
            "a?",
            "a#",
            "user@h",
            "h:80a",
            "h:+1",
            "a:80:80",
            "::1",
            "[",
            "[]",
            "[::1",
            "[::1]x",
            "[::1]]",
            "[h]",
            "[1.2.3.4]",
            "[:::]",
            "[v.x]",
            "[v1.]",
            "[v1]",
            "%",
            "%4",
            "%zz",
            "h\x00",
            "é",
            "a\\b",
            "\"h\"",
            "<h>",
        ] {
            assert!(!is_host(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn an_authority_has_a_host() {
        assert!(is_authority(b"h") && is_authority(b"h:80") && is_authority(b"[::1]"));
        assert!(!is_authority(b"") && !is_authority(b":80") && !is_authority(b"user@h"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(value in prop::collection::vec(any::<u8>(), 0..12)) {
            let _ = is_authority(&value);
        }

        #[test]
        fn every_address_is_a_host(address in any::<std::net::Ipv6Addr>(), port in any::<u16>()) {
            let value = format!("[{}]:{}", address, port);
            prop_assert!(is_host(value.as_bytes()));
        }
    }
}
