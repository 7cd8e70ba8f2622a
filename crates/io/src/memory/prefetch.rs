//! Prefetch: asks the processor for cache lines that will be read soon.
//!
//! A hint and nothing else: it reads no value, faults on no address and orders nothing, so the
//! memory may be in use by anybody, or gone. Does nothing where the processor has no such
//! instruction that Rust can reach.

/// Bytes of a cache line. Where lines are longer some hints are given twice.
const LINE_BYTES: usize = 64;

/// Most lines that one call asks for: beyond it the processor sees the pattern by itself, and only
/// so many misses can be under way.
const LINES_MAX: usize = 16;

/// Asks for the cache line in which a value begins.
#[inline]
pub fn prefetch_value<T>(value: &T) {
    line(std::ptr::from_ref(value).cast());
}

/// Asks for the lines of `len` bytes from `start`, the first sixteen of them.
#[inline]
pub(super) fn bytes(start: *const u8, len: usize) {
    let before = start.addr() % LINE_BYTES;
    let lines = (before + len).div_ceil(LINE_BYTES).min(LINES_MAX);
    (0..lines)
        .for_each(|number| line(start.wrapping_sub(before).wrapping_add(number * LINE_BYTES)));
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
fn line(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch never faults and has no effect that a program can see, whatever the
    // address; every x86-64 processor has the instruction.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

#[cfg(all(target_arch = "aarch64", not(miri)))]
#[inline]
fn line(address: *const u8) {
    // SAFETY: as a prefetch never faults and has no effect that a program can see, whatever the
    // address, the block touches neither memory nor flags nor stack.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) address,
            options(nomem, nostack, preserves_flags)
        );
    }
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
#[inline]
fn line(_: *const u8) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_will_do() {
        let value = 7_u64;
        prefetch_value(&value);
        bytes(std::ptr::from_ref(&value).cast(), 1 << 20);
        bytes(std::ptr::null(), 64);
        bytes(std::ptr::without_provenance(usize::MAX), usize::MAX / 2);
        assert_eq!(value, 7);
    }
}
