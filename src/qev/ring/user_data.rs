//! The user data of ring entries: the kernel returns them with the completion of an operation.

use super::Token;

/// The kind of an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum OpKind {
    Accept,
    Receive,
    Send,
    ShutDown,
    Close,
    Doorbell,
    MessageRing,
    Cancel,
    Mark,
}

const OP_KINDS: [OpKind; 9] = [
    OpKind::Accept,
    OpKind::Receive,
    OpKind::Send,
    OpKind::ShutDown,
    OpKind::Close,
    OpKind::Doorbell,
    OpKind::MessageRing,
    OpKind::Cancel,
    OpKind::Mark,
];

const KIND_BITS: u32 = 4;
pub(super) const INDEX_BITS: u32 = 28;

/// Packs the kind of an operation (4 bits), the index of its memory (28 bits) and a token (32 bits).
pub(super) fn pack(kind: OpKind, index: usize, token: Token) -> u64 {
    debug_assert!(index < 1 << INDEX_BITS, "an index must have at most {INDEX_BITS} bits");
    kind as u64 | (index as u64) << KIND_BITS | u64::from(token) << (KIND_BITS + INDEX_BITS)
}

/// Unpacks the kind, the index and the token of an operation.
pub(super) fn unpack(data: u64) -> (OpKind, usize, Token) {
    let index = (data >> KIND_BITS) as usize & ((1 << INDEX_BITS) - 1);
    (OP_KINDS[data as usize & ((1 << KIND_BITS) - 1)], index, (data >> (KIND_BITS + INDEX_BITS)) as Token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacks_what_was_packed() {
        for kind in OP_KINDS {
            for (index, token) in [(0, 0), (1, u32::MAX), ((1 << INDEX_BITS) - 1, 7)] {
                assert!(unpack(pack(kind, index, token)) == (kind, index, token));
            }
        }
    }
}
