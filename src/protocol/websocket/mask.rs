//! The masking of RFC 6455, section 5.3: every byte of a client's payload is XORed with one of four key bytes.

/// XORs a piece of a payload with the key, in place. Masking and unmasking are the same.
///
/// `offset` is where in its frame's payload the piece begins: the key goes on from there.
///
/// Eight bytes are taken at a time, as one integer. The compiler makes vector instructions of that, at any alignment;
/// unsafe code that aligns first was measured no faster.
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

/// The key as it applies from the offset on, its first byte lowest.
fn from_offset(key: [u8; 4], offset: usize) -> u32 {
    u32::from_le_bytes(key).rotate_right(8 * (offset % 4) as u32)
}
