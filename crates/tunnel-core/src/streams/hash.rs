//! A hash for stream ids.
//!
//! A peer may choose the ids (they need only increase), so it must not be able to foresee the hash.
//! The seeds come from the standard library's random keys, and each table has one of its own.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;

use foldhash::SharedSeed;
use foldhash::quality::{FoldHasher, SeedableRandomState};

/// The hash of a table of streams, with a random seed of its own.
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
pub struct StreamIdHash(SeedableRandomState);

/// The seeds are not shown.
impl fmt::Debug for StreamIdHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamIdHash").finish_non_exhaustive()
    }
}

impl Default for StreamIdHash {
    fn default() -> Self {
        static SHARED: LazyLock<SharedSeed> = LazyLock::new(|| SharedSeed::from_u64(random()));
        Self(SeedableRandomState::with_seed(random(), &SHARED))
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}

impl BuildHasher for StreamIdHash {
    type Hasher = StreamIdHasher;

    #[inline]
    fn build_hasher(&self) -> StreamIdHasher {
        StreamIdHasher(self.0.build_hasher())
    }
}

/// Hashes one id; from [`StreamIdHash`].
#[derive(Clone)]
pub struct StreamIdHasher(FoldHasher<'static>);

/// The seeds are not shown.
impl fmt::Debug for StreamIdHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamIdHasher").finish_non_exhaustive()
    }
}

impl Hasher for StreamIdHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    #[inline]
    fn write_i64(&mut self, n: i64) {
        self.0.write_i64(n);
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
