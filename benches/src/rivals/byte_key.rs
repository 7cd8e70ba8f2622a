//! Ids as keys of stores that order bytes.

use crate::Outcome;

/// Big-endian, so that keys are ordered as their numbers are.
pub(super) fn key(id: u64) -> [u8; 8] {
    std::array::from_fn(|place| id.to_le_bytes()[7 - place])
}

/// The id of a key.
pub(super) fn number(key: &[u8]) -> Outcome<u64> {
    let mut bytes: [u8; 8] = key.try_into()?;
    bytes.reverse();
    Ok(u64::from_le_bytes(bytes))
}
