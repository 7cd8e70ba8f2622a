//! Vectors that tell who they are.
//!
//! A vector is made from a stamp: elements 0 and 1 hold the stamp, all others follow from it.
//! Element bits are arbitrary, NaNs included, so every comparison is of bits.

use std::fmt;

/// What a vector is made from.
pub type Stamp = u64;

/// The vector of a stamp.
#[must_use]
pub fn vector(stamp: Stamp, dimension: usize) -> Vec<f32> {
    let mut state = stamp.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..dimension)
        .map(|position| match position {
            0 => f32::from_bits((stamp & 0xffff_ffff) as u32),
            1 => f32::from_bits((stamp >> 32) as u32),
            _ => {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                f32::from_bits((state >> 32) as u32)
            }
        })
        .collect()
}

/// The stamp in a vector, if every element is as its stamp says.
///
/// # Errors
/// What is wrong with it.
pub fn read_stamp(found: &[f32]) -> Result<Stamp, String> {
    let [low, high, ..] = found else { return Err("it has fewer than 2 elements".to_owned()) };
    let stamp = u64::from(low.to_bits()) | u64::from(high.to_bits()) << 32;
    let expected = vector(stamp, found.len());
    match found.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits()) {
        None => Ok(stamp),
        Some(position) => Err(format!(
            "element {position} has bits {:#010x} where stamp {stamp} has {:#010x}",
            found[position].to_bits(),
            expected[position].to_bits()
        )),
    }
}

/// Whether two vectors are the same bit for bit.
#[must_use]
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Checks that a vector is the one of a stamp, bit for bit.
///
/// # Panics
/// When it is not, with what was asked for and the first difference.
#[track_caller]
pub fn assert_vector(found: &[f32], stamp: Stamp, asked: impl fmt::Display) {
    let expected = vector(stamp, found.len());
    let differs = found.iter().zip(&expected).position(|(a, b)| a.to_bits() != b.to_bits());
    if let Some(position) = differs {
        panic!(
            "{asked}: element {position} of {} has bits {:#010x} where stamp {stamp} has {:#010x}",
            found.len(),
            found[position].to_bits(),
            expected[position].to_bits()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_and_a_changed_element_is_found() {
        for stamp in [0, 1, 7 << 40, u64::MAX] {
            let mut made = vector(stamp, 16);
            assert_eq!(read_stamp(&made), Ok(stamp));
            assert!(same_bits(&made, &vector(stamp, 16)));
            made[9] = f32::from_bits(made[9].to_bits() ^ 1);
            assert!(read_stamp(&made).is_err());
            assert!(!same_bits(&made, &vector(stamp, 16)));
        }
    }
}
