//! A hash that stays the same over releases, platforms and runs.

/// FNV-1a, 128 bits, as 32 hexadecimal digits. It tells apart what differs by accident, not by malice.
pub(crate) fn stable_hash(bytes: &[u8]) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash = bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published test vectors of FNV-1a with 128 bits.
    #[test]
    fn stable_hash_is_fnv_1a() {
        assert_eq!(stable_hash(b""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(stable_hash(b"a"), "d228cb696f1a8caf78912b704e4a8964");
    }
}
