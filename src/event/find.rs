//! Where a byte first stands, in texts that are short: too short for a search that has to be set up.

/// Where the first such byte is, eight bytes at a time.
#[inline]
pub fn find_byte(bytes: &[u8], wanted: u8) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    let searched = bytes.len() - rest.len();
    for (index, word) in words.enumerate() {
        let word = u64::from_le_bytes(word.try_into().expect("a chunk has eight bytes"));
        // Where a byte is the wanted one, this one is zero; the lowest zero byte is the first to borrow from its top bit.
        let differing = word ^ (ONES * u64::from(wanted));
        let zeros = differing.wrapping_sub(ONES) & !differing & (ONES << 7);
        if zeros != 0 {
            return Some(index * 8 + zeros.trailing_zeros() as usize / 8);
        }
    }
    rest.iter().position(|byte| *byte == wanted).map(|at| searched + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside every byte that differs from it by one bit, or borrows where it would.
    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for wanted in [b':', b'\n'] {
            let others = [0, 1, wanted - 1, wanted + 1, 0x7f, 0x80, 0xff];
            let fillers = (0..8).map(|bit| wanted ^ (1 << bit)).chain(others);
            for filler in fillers {
                is_found_among(filler, wanted);
            }
        }
    }

    fn is_found_among(filler: u8, wanted: u8) {
        for length in 0..40 {
            let mut bytes = vec![filler; length];
            assert_eq!(find_byte(&bytes, wanted), None);
            for at in (0..length).rev() {
                bytes[at] = wanted; // those behind stay
                assert_eq!(find_byte(&bytes, wanted), Some(at), "among {filler:#x}, {length} bytes");
                assert_eq!(find_byte(&bytes[at..], wanted), Some(0));
            }
        }
    }
}
