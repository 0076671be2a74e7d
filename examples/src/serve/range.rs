//! `Range` (RFC 9110, section 14): one range of bytes. A request for several is
//! answered with everything, as the RFC permits.

/// What a `Range` field asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// Everything: the field is of another unit, malformed, or a list.
    Everything,
    /// These bytes.
    Part {
        /// The first.
        offset: u64,
        /// How many; at least one.
        len: u64,
    },
    /// Bytes that do not exist.
    Unsatisfiable,
}

/// Reads the `field` as a wish about a body of `total` bytes.
#[must_use]
pub fn wanted(field: &[u8], total: u64) -> Wanted {
    let Some(range) = std::str::from_utf8(field).ok().and_then(|field| {
        let (unit, range) = field.split_once('=')?;
        unit.trim().eq_ignore_ascii_case("bytes").then_some(range.trim())
    }) else {
        return Wanted::Everything;
    };
    let Some((first, last)) = range.split_once('-') else {
        return Wanted::Everything;
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => part(first, last, total),
        (Some(first), None) if last.trim().is_empty() => part(first, u64::MAX, total),
        (None, Some(suffix)) if first.trim().is_empty() => match suffix.min(total) {
            0 => Wanted::Unsatisfiable,
            len => Wanted::Part { offset: total - len, len },
        },
        _ => Wanted::Everything,
    }
}

fn part(first: u64, last: u64, total: u64) -> Wanted {
    if first >= total {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part { offset: first, len: last.min(total - 1) - first + 1 }
}

/// A decimal number; one too large for 64 bits is as good as the largest.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_is_understood() {
        let part = |offset, len| Wanted::Part { offset, len };
        for (field, meant) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=0-100", part(0, 100)),
            ("bytes=10-", part(10, 90)),
            ("bytes=99-", part(99, 1)),
            ("bytes=-1", part(99, 1)),
            ("bytes=-1000", part(0, 100)),
            ("Bytes = 5-6", part(5, 2)),
            ("bytes=0-99999999999999999999999", part(0, 100)),
            ("bytes=100-", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=2-1", Wanted::Everything),
            ("bytes=0-1,3-4", Wanted::Everything),
            ("bytes=-", Wanted::Everything),
            ("bytes=a-b", Wanted::Everything),
            ("bytes=+1-2", Wanted::Everything),
            ("bytes=1", Wanted::Everything),
            ("lines=1-2", Wanted::Everything),
            ("", Wanted::Everything),
        ] {
            assert_eq!(wanted(field.as_bytes(), 100), meant, "{field}");
        }
        assert_eq!(wanted(b"bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(b"bytes=-5", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(b"bytes=\xff-", 10), Wanted::Everything);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_body(field in "bytes=[0-9]{0,21}-[0-9]{0,21}", total in any::<u64>()) {
            if let Wanted::Part { offset, len } = wanted(field.as_bytes(), total) {
                prop_assert!(len > 0 && offset.checked_add(len).is_some_and(|end| end <= total));
            }
        }
    }
}
