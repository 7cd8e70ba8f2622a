//! Decoders never allocate more than a small multiple of their input, whatever counts it claims.
//!
//! A counting allocator measures the highest number of bytes in use by the current thread while a
//! decoder runs. It is a binary of its own because the allocator is global.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use nephrite_format::frame::{FrameHeader, FrameKind, build_frame, decode_frame};
use nephrite_format::id_run::{FenceIndex, IdRunBuilder};
use nephrite_format::manifest::{FlushEdit, ManifestEdit, decode_edits};
use nephrite_format::wal::WalRecords;
use nephrite_format::{
    DatabaseId, FileId, FrameSequence, Generation, IdKind, IdRef, Lsn, PageIdentity, Row, StoreId,
};

/// Room for the texts of an error.
const TEXT_BYTES: usize = 1024;

thread_local! {
    static IN_USE: Cell<usize> = const { Cell::new(0) };
    static HIGHEST: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is handed to `System` unchanged, so that its guarantees are kept; the
// counters are plain cells of the thread, and const-initialised, so that touching them does not
// allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let in_use = IN_USE.get().wrapping_add(layout.size());
        IN_USE.set(in_use);
        HIGHEST.set(HIGHEST.get().max(in_use));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.set(IN_USE.get().wrapping_sub(layout.size()));
        // SAFETY: the caller keeps the contract of `dealloc`; `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes that were in use at once while `decode` ran.
fn highest_while<T>(decode: impl FnOnce() -> T) -> usize {
    IN_USE.set(0);
    HIGHEST.set(0);
    drop(decode());
    HIGHEST.get()
}

fn identity() -> PageIdentity {
    PageIdentity::new(StoreId::new([1; 16]), FileId::new(2), Generation::new(3), 4096)
}

#[test]
fn the_allocator_counts() {
    assert_eq!(highest_while(|| vec![0_u8; 12_345]), 12_345);
}

#[test]
fn a_flush_with_absurd_counts_allocates_little() {
    let flush = ManifestEdit::Flush(FlushEdit {
        database: DatabaseId::new(1),
        flushed_lsn: Lsn::new(1),
        live_records: 1,
        added: Vec::new(),
        removed: vec![FileId::new(1); 100],
    });
    let (payload, count) = ManifestEdit::encode_all(&[flush]);
    for (field, name) in [(32, "added"), (36, "removed")] {
        let mut hostile = payload.clone();
        hostile[field..field + 4].fill(0xff);
        let highest = highest_while(|| decode_edits(&hostile, count, "m", 0).unwrap_err());
        assert!(highest <= 4 * hostile.len() + TEXT_BYTES, "{name}: {highest} bytes");
    }
    let highest = highest_while(|| decode_edits(&payload, u32::MAX, "m", 0).unwrap_err());
    assert!(highest <= 8 * payload.len() + TEXT_BYTES, "edits: {highest} bytes");
}

#[test]
fn fences_with_absurd_counts_allocate_little() {
    for kind in [IdKind::U64, IdKind::Bytes] {
        let mut builder = IdRunBuilder::new(kind);
        match kind {
            IdKind::U64 => (0..200_000).for_each(|id| builder.push(IdRef::U64(id), Row::new(0))),
            IdKind::Bytes => (0..20_000_u32).for_each(|id| {
                builder.push(IdRef::Bytes(format!("{id:08}").as_bytes()), Row::new(0));
            }),
        }
        let blob = builder.finish().fences.encode();
        let honest = highest_while(|| FenceIndex::decode(&blob, kind, "s", 0).unwrap());
        assert!(honest <= 4 * blob.len() + TEXT_BYTES, "{kind}: {honest} bytes");
        let mut hostile = blob.clone();
        hostile[4..8].fill(0xff);
        let highest = highest_while(|| FenceIndex::decode(&hostile, kind, "s", 0).unwrap_err());
        assert!(highest <= 4 * blob.len() + TEXT_BYTES, "{kind}: {highest} bytes");
    }
}

#[test]
fn log_records_are_read_without_allocating() {
    let payload = [0xff_u8; 4096];
    let records = || WalRecords::new(&payload, u32::MAX, "w", 0).count();
    let highest = highest_while(records);
    assert!(highest <= TEXT_BYTES, "{highest} bytes");
}

#[test]
fn a_valid_frame_is_read_without_allocating() {
    let header = FrameHeader {
        kind: FrameKind::WalRecords,
        payload_bytes: 0,
        record_count: 1,
        sequence: FrameSequence::new(1),
        first_lsn: Lsn::new(1),
        durable_through: FrameSequence::new(0),
    };
    let frame = build_frame(identity(), &header, &[7; 10_000]);
    let highest = highest_while(|| decode_frame(&frame, identity()).is_ok());
    assert_eq!(highest, 0);
}
