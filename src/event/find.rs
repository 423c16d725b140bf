//! The search for a byte in short texts. `docs/benchmarks.md` compares it with `memchr`.

/// Returns the position of the first occurrence of a byte. Eight bytes are examined at a time.
#[inline]
pub fn find_byte(bytes: &[u8], wanted: u8) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    let searched = bytes.len() - rest.len();
    for (index, word) in words.enumerate() {
        let word = u64::from_le_bytes(word.try_into().expect("a chunk has eight bytes"));
        // A byte of `differing` is zero if it is the wanted byte. The lowest zero byte is the first one to borrow from
        // its top bit.
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

    /// The other bytes differ from the wanted byte by one bit, or borrow where it would.
    #[test]
    fn a_byte_is_found_at_every_position() {
        for wanted in [b':', b'\n'] {
            let others = [0, 1, wanted - 1, wanted + 1, 0x7f, 0x80, 0xff];
            let fillers = (0..8).map(|bit| wanted ^ (1 << bit)).chain(others);
            for filler in fillers {
                assert_found_among(filler, wanted);
            }
        }
    }

    fn assert_found_among(filler: u8, wanted: u8) {
        for length in 0..40 {
            let mut bytes = vec![filler; length];
            assert_eq!(find_byte(&bytes, wanted), None);
            for at in (0..length).rev() {
                bytes[at] = wanted; // the occurrences behind it stay
                assert_eq!(find_byte(&bytes, wanted), Some(at), "among {filler:#x}, {length} bytes");
                assert_eq!(find_byte(&bytes[at..], wanted), Some(0));
            }
        }
    }
}
