//! The masking of RFC 6455, section 5.3: each byte of a client's payload is XORed with one of four key bytes.

/// XORs a piece of a payload with the key, in place. Masking and unmasking are the same operation.
///
/// `offset` is the position of the piece in its frame's payload, which decides with which byte of the key it begins.
///
/// Eight bytes are processed at a time, as one integer. The compiler turns this into vector instructions for any
/// alignment. Unsafe code that aligns first was not faster when it was measured.
#[inline]
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    let key = from_offset(key, offset);
    let pair = (u64::from(key) << 32) | u64::from(key);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let bytes = <[u8; 8]>::try_from(&*word).expect("chunks of 8 are 8 long");
        word.copy_from_slice(&(u64::from_le_bytes(bytes) ^ pair).to_le_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(pair.to_le_bytes()) {
        *byte ^= key;
    }
}

/// Returns the key as it applies from the offset on. Its first byte is the lowest.
fn from_offset(key: [u8; 4], offset: usize) -> u32 {
    u32::from_le_bytes(key).rotate_right(8 * (offset % 4) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 5.3: "j = i MOD 4; transformed-octet-i = original-octet-i XOR masking-key-octet-j".
    fn naive(payload: &mut [u8], key: [u8; 4], offset: usize) {
        for (i, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[(offset % 4 + i) % 4];
        }
    }

    #[test]
    fn the_rfcs_hello() {
        let mut payload = [0x7F, 0x9F, 0x4D, 0x51, 0x58];
        unmask(&mut payload, [0x37, 0xFA, 0x21, 0x3D], 0);
        assert_eq!(&payload, b"Hello");
    }

    #[test]
    fn every_alignment_length_and_offset() {
        let key = [0x01, 0x20, 0x44, 0x88];
        for start in 0..16 {
            for len in 0..100 {
                for offset in [0, 1, 2, 3, 4, 5, usize::MAX - 3, usize::MAX] {
                    let mut fast: Vec<u8> = (0..start + len).map(|i| i as u8).collect();
                    let mut slow = fast.clone();
                    unmask(&mut fast[start..], key, offset);
                    naive(&mut slow[start..], key, offset);
                    assert_eq!(fast, slow, "{len} bytes from {start}, offset {offset}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn behaves_like_the_naive_twin(mut bytes: Vec<u8>, key: [u8; 4], offset: usize) {
            let mut expected = bytes.clone();
            naive(&mut expected, key, offset);
            unmask(&mut bytes, key, offset);
            prop_assert_eq!(bytes, expected);
        }

        #[test]
        fn pieces_are_unmasked_like_the_whole(bytes: Vec<u8>, key: [u8; 4], split: prop::sample::Index) {
            let split = split.index(bytes.len() + 1);
            let (mut whole, mut pieces) = (bytes.clone(), bytes);
            unmask(&mut whole, key, 0);
            unmask(&mut pieces[..split], key, 0);
            unmask(&mut pieces[split..], key, split);
            prop_assert_eq!(pieces, whole);
        }
    }
}
