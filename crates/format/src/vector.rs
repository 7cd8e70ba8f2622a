//! Copying between `f32` values and their little-endian bytes.
//!
//! On a little-endian host both directions compile to a memory copy. Bits are preserved, those of
//! NaNs included.

/// Bytes of one `f32` element.
pub const F32_BYTES: usize = 4;

/// Writes the elements of `vector` to `bytes`, which must have exactly their length.
///
/// # Panics
/// When `bytes` is not four times as long as `vector`.
pub fn encode_f32(vector: &[f32], bytes: &mut [u8]) {
    assert_eq!(bytes.len(), vector.len() * F32_BYTES, "room for the vector's elements");
    let (elements, _) = bytes.as_chunks_mut::<F32_BYTES>();
    for (element, value) in elements.iter_mut().zip(vector) {
        *element = value.to_le_bytes();
    }
}

/// Reads elements from `bytes` into `vector`, which must have exactly their count.
///
/// # Panics
/// When `bytes` is not four times as long as `vector`.
pub fn decode_f32(bytes: &[u8], vector: &mut [f32]) {
    assert_eq!(bytes.len(), vector.len() * F32_BYTES, "bytes of the vector's elements");
    let (elements, _) = bytes.as_chunks::<F32_BYTES>();
    for (value, element) in vector.iter_mut().zip(elements) {
        *value = f32::from_le_bytes(*element);
    }
}

/// Reads elements from `bytes` into a new vector. Bytes past the last whole element are ignored.
#[must_use]
pub fn decode_f32_vec(bytes: &[u8]) -> Vec<f32> {
    let (elements, _) = bytes.as_chunks::<F32_BYTES>();
    elements.iter().map(|element| f32::from_le_bytes(*element)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_survive_including_nan_payloads() {
        let bits = [0x7fc0_1234_u32, 0xffa0_0001, 0x8000_0000, 0x3f80_0000, 1, 0x7f80_0000];
        let vector: Vec<f32> = bits.iter().map(|bits| f32::from_bits(*bits)).collect();
        let mut bytes = vec![0; 24];
        encode_f32(&vector, &mut bytes);
        assert_eq!(&bytes[0..4], &[0x34, 0x12, 0xc0, 0x7f]);
        let mut back = vec![0.0; 6];
        decode_f32(&bytes, &mut back);
        assert_eq!(back.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), bits);
        let again = decode_f32_vec(&bytes);
        assert_eq!(again.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), bits);
    }
}
