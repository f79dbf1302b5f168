//! Payloads that show when they were damaged or mixed up.

use std::sync::LazyLock;

use bytes::Bytes;

/// Prime, so that no power of two hides a shift.
const PERIOD: usize = 251;

/// How large payloads are that need no memory of their own.
const PREPARED: usize = 4 << 20;

static TABLE: LazyLock<Bytes> = LazyLock::new(|| cycle(PREPARED + PERIOD));

fn cycle(size: usize) -> Bytes {
    (0..=250).cycle().take(size).collect::<Vec<u8>>().into()
}

/// So many bytes of the pattern with a number.
pub(crate) fn of(number: u32, size: u32) -> Bytes {
    let start = number as usize % PERIOD;
    let end = start + size as usize;
    if size as usize > PREPARED {
        return cycle(end).slice(start..);
    }
    TABLE.slice(start..end)
}

/// Whether a payload is the pattern with a number.
pub(crate) fn is(number: u32, payload: &[u8]) -> bool {
    u32::try_from(payload.len()).is_ok_and(|size| of(number, size) == payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_what_the_proto_says() {
        for (number, size) in [(0, 0), (3, 1000), (250, 600), (251, 5), (u32::MAX, 300)] {
            let payload = of(number, size);
            let expected = (0..size).map(|i| ((u64::from(number) + u64::from(i)) % 251) as u8);
            assert!(payload.iter().copied().eq(expected), "{number}, {size}");
            assert!(is(number, &payload));
        }
        let large = PREPARED as u32 + 1;
        assert_eq!(of(7, large).len(), large as usize);
        assert!(!is(8, &of(7, 10)) && is(8, &[]));
    }
}
