//! A hash for noticing that bytes changed, the same on every machine and in every build.
//!
//! Every eight bytes are mixed into the state by steps that can be undone (exclusive or, an odd factor, a rotation),
//! so two inputs of the same length that differ in one such word never have the same hash. It resists accidents,
//! not attacks.

/// Takes bytes in any pieces; the hash depends on their sequence alone.
#[derive(Debug, Clone)]
pub struct Checksum {
    state: u64,
    /// Bytes that do not make up a word yet.
    rest: [u8; 8],
    length: u64,
}

/// An odd number without structure: the golden ratio's bits.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

fn mixed(state: u64, word: u64) -> u64 {
    (state ^ word).wrapping_mul(FACTOR).rotate_left(29)
}

impl Default for Checksum {
    fn default() -> Self {
        Self { state: 0x7061_6365_6c69_6e65, rest: [0; 8], length: 0 }
    }
}

impl Checksum {
    /// The hash of `bytes` alone.
    pub fn of(bytes: &[u8]) -> u64 {
        let mut checksum = Self::default();
        checksum.update(bytes);
        checksum.finish()
    }

    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        let begun = (self.length % 8) as usize;
        self.length += bytes.len() as u64;
        if begun > 0 {
            let (fill, after) = bytes.split_at(bytes.len().min(8 - begun));
            self.rest[begun..begun + fill.len()].copy_from_slice(fill);
            bytes = after;
            if begun + fill.len() < 8 {
                return;
            }
            self.state = mixed(self.state, u64::from_le_bytes(self.rest));
        }
        let (words, rest) = bytes.as_chunks::<8>();
        self.state = words.iter().fold(self.state, |state, word| mixed(state, u64::from_le_bytes(*word)));
        self.rest = [0; 8];
        self.rest[..rest.len()].copy_from_slice(rest);
    }

    /// Takes a text with its length, so that neighbouring texts cannot be mistaken for others.
    pub fn text(&mut self, text: &str) {
        self.update(&(text.len() as u64).to_le_bytes());
        self.update(text.as_bytes());
    }

    /// The hash of all bytes so far.
    pub fn finish(&self) -> u64 {
        let mut last = [0; 8];
        let begun = (self.length % 8) as usize;
        last[..begun].copy_from_slice(&self.rest[..begun]);
        let state = mixed(mixed(self.state, u64::from_le_bytes(last)), self.length);
        state ^ (state >> 32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..100), cuts in prop::collection::vec(0usize..100, 0..5)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut checksum = Checksum::default();
            cuts.windows(2).for_each(|cut| checksum.update(&bytes[cut[0]..cut[1]]));
            prop_assert_eq!(checksum.finish(), Checksum::of(&bytes));
        }

        #[test]
        fn a_changed_byte_and_a_changed_length_are_noticed(bytes in prop::collection::vec(any::<u8>(), 1..100), place in 0usize..100, change in 1u8..) {
            let mut other = bytes.clone();
            other[place % bytes.len()] ^= change;
            prop_assert_ne!(Checksum::of(&bytes), Checksum::of(&other));
            prop_assert_ne!(Checksum::of(&bytes), Checksum::of(&bytes[..bytes.len() - 1]));
            prop_assert_ne!(Checksum::of(&bytes), Checksum::of(&[&bytes[..], &[0]].concat()));
        }
    }

    #[test]
    fn it_is_the_same_everywhere() {
        // Computed in Python by the description above.
        assert_eq!(Checksum::of(b"paceline drafts"), 0xf1c2_ebad_2e7e_6281);
    }
}
