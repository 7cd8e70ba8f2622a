//! Records that tell who wrote them: every vector is made from the number of its write and its id,
//! so that one look says which write a vector is of, and that it is of nothing else.

use nephrite::{Id, IdKind};

/// The number of a write, unique in a run. No write has zero.
pub(crate) type Stamp = u32;

/// Ids as the harness counts them; [`id_of`] makes ids of either kind.
pub(crate) type Key = u64;

/// The vector that write `stamp` stores under `key`.
pub(crate) fn vector(stamp: Stamp, key: Key, dimension: u32) -> Vec<f32> {
    let element = |at: u32| match at {
        0 => f32::from_bits(stamp),
        // Any bits at all, not-a-numbers included.
        _ => f32::from_bits(mixed(stamp, key, at)),
    };
    (0..dimension).map(element).collect()
}

/// Whose vector this is, if it is whole.
pub(crate) fn stamp_of(vector: &[f32], key: Key) -> Option<Stamp> {
    let stamp = vector.first()?.to_bits();
    let is_whole =
        (1_u32..).zip(&vector[1..]).all(|(at, element)| element.to_bits() == mixed(stamp, key, at));
    (stamp != 0 && is_whole).then_some(stamp)
}

fn mixed(stamp: Stamp, key: Key, at: u32) -> u32 {
    let seed = u64::from(stamp) << 32 | u64::from(at);
    let mixed =
        (seed ^ key.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    u32::try_from(mixed >> 32).expect("the high half fits")
}

pub(crate) fn id_of(kind: IdKind, key: Key) -> Id {
    match kind {
        IdKind::Bytes => {
            let tail = "-".repeat(usize::try_from(key % 37).expect("it is small"));
            Id::from(format!("{key:08x}{tail}").into_bytes())
        }
        _ => Id::from(key),
    }
}

pub(crate) fn key_of(id: &Id) -> Option<Key> {
    match id {
        Id::U64(key) => Some(*key),
        Id::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.get(..8)?).ok()?;
            let key = Key::from_str_radix(text, 16).ok()?;
            (id_of(IdKind::Bytes, key) == *id).then_some(key)
        }
    }
}
