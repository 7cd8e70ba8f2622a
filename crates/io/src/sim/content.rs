//! The bytes of a simulated file: blocks that copies share until one of them is written to, so
//! that keeping thousands of disk images costs little more than what differs between them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::trace::TraceHash;

const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = BLOCK as u64;

type Block = [u8; BLOCK];

static ZEROS: LazyLock<Arc<Block>> = LazyLock::new(|| Arc::new([0; BLOCK]));

/// Blocks that are missing read as zeros and take no room on the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    len: u64,
    blocks: BTreeMap<u64, Arc<Block>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of room that this takes on the disk.
    pub(super) fn allocated(&self) -> u64 {
        self.blocks.len() as u64 * BLOCK_BYTES
    }

    /// Bytes of room that a write would take in addition.
    pub(super) fn missing(&self, offset: u64, len: u64) -> u64 {
        if len == 0 {
            return 0;
        }
        let (first, last) = (offset / BLOCK_BYTES, (offset + len - 1) / BLOCK_BYTES);
        let present = self.blocks.range(first..=last).count() as u64;
        (last - first + 1 - present) * BLOCK_BYTES
    }

    /// Fills as much of `target` as the file holds from `offset` on; returns how much.
    pub(super) fn read(&self, offset: u64, target: &mut [u8]) -> usize {
        let available = self.len.saturating_sub(offset).min(target.len() as u64);
        let count = usize::try_from(available).expect("it is at most the length of a slice");
        for (at, block, within) in pieces(offset, count) {
            let target = &mut target[at..at + within.len()];
            match self.blocks.get(&block) {
                Some(bytes) => target.copy_from_slice(&bytes[within]),
                None => target.fill(0),
            }
        }
        count
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, block, within) in pieces(offset, bytes.len()) {
            let source = &bytes[at..at + within.len()];
            let target = self.blocks.entry(block).or_insert_with(|| Arc::clone(&ZEROS));
            if within.len() == BLOCK && *source == **ZEROS {
                *target = Arc::clone(&ZEROS);
            } else {
                Arc::make_mut(target)[within].copy_from_slice(source);
            }
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.blocks.split_off(&len.div_ceil(BLOCK_BYTES));
            let end = offset_in_block(len);
            if let Some(last) = self.blocks.get_mut(&(len / BLOCK_BYTES)) {
                Arc::make_mut(last)[end..].fill(0);
            }
        }
        self.len = len;
    }

    /// Mixes in everything that reads show: holes and zeros are the same.
    pub(super) fn fingerprint(&self, hash: &mut TraceHash) {
        hash.number(self.len);
        for (block, bytes) in &self.blocks {
            if !Arc::ptr_eq(bytes, &ZEROS) && **bytes != **ZEROS {
                hash.number(*block);
                hash.bytes(&bytes[..]);
            }
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len).expect("a file of a test fits memory")];
        self.read(0, &mut bytes);
        bytes
    }
}

fn offset_in_block(offset: u64) -> usize {
    usize::try_from(offset % BLOCK_BYTES).expect("it is below a block")
}

/// Cuts a range at block borders: where each piece begins in the range, its block, and the bytes
/// of that block.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (usize, u64, std::ops::Range<usize>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        let place = offset + at as u64;
        let start = offset_in_block(place);
        let end = BLOCK.min(start + (len - at));
        let piece = (at, place / BLOCK_BYTES, start..end);
        at += end - start;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::SimRandom;

    #[test]
    fn random_writes_and_cuts_agree_with_a_plain_vector() {
        let mut random = SimRandom::new(1);
        let (mut content, mut model) = (Content::default(), Vec::new());
        for _ in 0..2000 {
            let offset = random.index(40_000);
            let len = random.index(10_000);
            if random.chance(1, 8) {
                content.set_len(offset as u64);
                model.resize(offset, 0);
            } else {
                let byte = random.next_u64().to_le_bytes()[0];
                content.write(offset as u64, &vec![byte; len]);
                model.resize(model.len().max(offset + len), 0);
                model[offset..offset + len].fill(byte);
            }
            assert!(content.to_vec() == model);
        }
    }

    #[test]
    fn copies_differ_only_where_one_was_written() {
        let mut first = Content::default();
        first.write(0, &[7; 3 * BLOCK]);
        let mut second = first.clone();

        second.write(5000, &[8; 10]);

        assert_eq!(first.to_vec(), [7; 3 * BLOCK]);
        assert_eq!(second.to_vec()[4999..5011], [7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 7]);
    }

    #[test]
    fn holes_take_no_room() {
        let mut content = Content::default();
        content.set_len(1 << 40);
        assert_eq!((content.len(), content.allocated()), (1 << 40, 0));
        assert_eq!(content.missing(4000, 200), 8192);

        content.write(4000, &[1; 200]);

        assert_eq!((content.allocated(), content.missing(0, 8192)), (8192, 0));
    }
}
