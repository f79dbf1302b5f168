//! A hash for stream ids.
//!
//! An id is looked up some 25 times for each call, and the standard library's SipHash was 13 % of
//! a call's instructions. Ids are numbers that a peer may choose (they need only increase), so the
//! hash has to be one it cannot foresee: an id, mixed with one random key, is multiplied by
//! another, and the two halves of the product are folded into each other; twice, because ids in
//! steps came out clustered for some keys after the first time. The keys are a table's own and
//! never leave it.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes [`IdHasher`]s of one pair of keys.
#[derive(Clone, Debug)]
pub(crate) struct IdState {
    mix: u64,
    factor: u64,
}

impl Default for IdState {
    fn default() -> Self {
        let random = RandomState::new();
        Self {
            mix: random.hash_one(0u8),
            // Odd, so that no id loses bits by it.
            factor: random.hash_one(1u8) | 1,
        }
    }
}

impl BuildHasher for IdState {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher {
            state: self.mix,
            factor: self.factor,
        }
    }
}

fn fold(n: u64, factor: u64) -> u64 {
    let product = u128::from(n) * u128::from(factor);
    (product >> 64) as u64 ^ product as u64
}

/// Hashes one number.
#[derive(Clone, Debug)]
pub(crate) struct IdHasher {
    state: u64,
    factor: u64,
}

impl Hasher for IdHasher {
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

    /// How many different buckets of a table of 1,024 these ids fall into.
    fn buckets(ids: impl Iterator<Item = i64>) -> usize {
        let state = IdState::default();
        let low: HashSet<u64> = ids.map(|id| state.hash_one(id) % 1024).collect();
        low.len()
    }

    #[test]
    fn ids_spread_over_a_table_however_they_are_chosen() {
        // 1,024 balls thrown at random into as many buckets hit about 647 of them.
        for step in [1, 2, 1024, 1 << 20, 1 << 40, 1 << 52, 0x9e37_79b9] {
            let hit = buckets((0..1024).map(|i| i * step));
            assert!(hit > 400, "step {step}: {hit}");
        }
    }

    #[test]
    fn two_tables_hash_differently() {
        let (a, b) = (IdState::default(), IdState::default());
        let same = (0..64i64).filter(|id| a.hash_one(id) == b.hash_one(id));
        assert!(same.count() < 4);
    }
}
