//! A hash for stream ids.
//!
//! A peer may choose the ids (they need only increase), so it must not be able to foresee the
//! hash. An id is mixed with one random key and multiplied by another, and the two halves of the
//! product are folded into each other. This is done twice, because after one round ids in steps
//! are clustered for some keys. Each table has its own keys.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

/// The hash of a table of streams, with random keys of its own.
///
/// For tables whose keys are [`StreamId`](crate::StreamId)s, including those of a binding. Much
/// cheaper than the standard library's hash, and a peer cannot choose ids that collide.
///
/// ```
/// use std::collections::HashMap;
/// use tunnel_core::{StreamId, StreamIdHash};
///
/// let calls: HashMap<StreamId, &str, StreamIdHash> = HashMap::default();
/// # let _ = calls;
/// ```
#[derive(Clone)]
pub struct StreamIdHash {
    mix: u64,
    factor: u64,
}

impl Default for StreamIdHash {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            mix: random.hash_one(0u8),
            // Odd, so that no id loses bits by it.
            factor: random.hash_one(1u8) | 1,
        }
    }
}

impl BuildHasher for StreamIdHash {
    type Hasher = StreamIdHasher;

    fn build_hasher(&self) -> StreamIdHasher {
        StreamIdHasher {
            state: self.mix,
            factor: self.factor,
        }
    }
}

fn fold(n: u64, factor: u64) -> u64 {
    let product = u128::from(n) * u128::from(factor);
    (product >> 64) as u64 ^ product as u64
}

/// The keys are nobody's business.
impl fmt::Debug for StreamIdHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamIdHash").finish_non_exhaustive()
    }
}

/// Hashes one id; from [`StreamIdHash`].
#[derive(Clone)]
pub struct StreamIdHasher {
    state: u64,
    factor: u64,
}

impl fmt::Debug for StreamIdHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamIdHasher").finish_non_exhaustive()
    }
}

impl Hasher for StreamIdHasher {
    fn finish(&self) -> u64 {
        fold(self.state, self.factor.rotate_left(32) | 1)
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.state = fold(self.state ^ n, self.factor);
    }

    fn write_i64(&mut self, n: i64) {
        self.write_u64(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_spread_over_a_table_however_they_are_chosen() {
        let keys = StreamIdHash::default();
        for step in [1, 2, 3, 128, 1 << 16, 1 << 32, 1 << 50, 0x9e37_79b9] {
            let hashes = (0..4096_i64).map(|i| keys.hash_one(i * step));
            // A table takes its place from the low bits, and a mark from the seven highest. Of
            // 4,096 balls thrown at as many places, some 2,589 places are hit.
            let places: HashSet<_> = hashes.clone().map(|hash| hash % 4096).collect();
            assert!(places.len() > 2000, "step {step}: {}", places.len());
            let marks: HashSet<_> = hashes.map(|hash| hash >> 57).collect();
            assert!(marks.len() > 100, "step {step}: {}", marks.len());
        }
    }

    #[test]
    fn two_tables_hash_differently() {
        let (a, b) = (StreamIdHash::default(), StreamIdHash::default());
        let same = (0..64i64).filter(|id| a.hash_one(id) == b.hash_one(id));
        assert!(same.count() < 4);
    }
}
