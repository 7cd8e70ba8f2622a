//! Frames: groups of records that are written, checked and recovered as one.
//!
//! The write-ahead log and the manifest are sequences of frames. A frame begins at a multiple of
//! 4096 bytes of its file and is padded with zeros to a multiple of 4096, so that it is one
//! O_DIRECT write. Its checksum covers header, payload and padding and is seeded by the place.
//!
//! What reading a place can find, for recovery to tell apart:
//!
//! ```text
//! all zero ............................ Blank       nothing was written here in this life
//! header of another generation ........ Stale       left over from an earlier life of the file
//! plausible header, input too short ... Incomplete  read `needed` bytes and try again
//! anything else that does not verify .. Invalid     torn or damaged
//! ```
//!
//! Searching for later frames behind an invalid one is the caller's: try every block.
//! Tested here (round trip, bit flips, truncation, identity) and by the second reader.

use std::fmt;

use crate::checksum::{PageIdentity, page_checksum};
use crate::cursor::{Writer, u32_at, u64_at};
use crate::error::FormatError;
use crate::ids::{FrameSequence, Generation, Lsn};
use crate::{BLOCK_BYTES, BLOCK_BYTES_U64};

/// Bytes of a frame before its payload.
pub const FRAME_HEADER_BYTES: usize = 64;

/// The longest payload, in bytes: 1 GiB.
pub const MAX_FRAME_PAYLOAD_BYTES: usize = 1 << 30;

/// The four bytes that mark a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"NFRM";

const CHECKSUM_BYTES: usize = 8;

/// What the payload of a frame holds.
#[expect(clippy::exhaustive_enums, reason = "the engine must handle every kind")]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FrameKind {
    /// Records of [`crate::wal`].
    WalRecords,
    /// Edits of [`crate::manifest`] that begin or continue a snapshot of the whole state.
    ManifestSnapshot,
    /// Edits that complete the snapshot; a manifest without such a frame is not complete.
    ManifestSnapshotEnd,
    /// Edits that follow the snapshot; each frame applies as a whole.
    ManifestEdits,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::WalRecords => 1,
            Self::ManifestSnapshot => 2,
            Self::ManifestSnapshotEnd => 3,
            Self::ManifestEdits => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::WalRecords),
            2 => Some(Self::ManifestSnapshot),
            3 => Some(Self::ManifestSnapshotEnd),
            4 => Some(Self::ManifestEdits),
            _ => None,
        }
    }
}

/// The fields of a frame header that the writer chooses.
#[expect(clippy::exhaustive_structs, reason = "the engine builds it; a new field is a new format")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What the payload holds.
    pub kind: FrameKind,
    /// Bytes of the payload; at most [`MAX_FRAME_PAYLOAD_BYTES`].
    pub payload_bytes: u32,
    /// Records or edits in the payload.
    pub record_count: u32,
    /// Position in the log or manifest: plus one per frame.
    pub sequence: FrameSequence,
    /// Log sequence number of the first record; the others follow by one. In a manifest: 0.
    pub first_lsn: Lsn,
    /// The highest frame sequence known to be on disk when this frame was written.
    pub durable_through: FrameSequence,
}

/// A verified frame.
#[expect(clippy::exhaustive_structs, reason = "a view with named parts")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameView<'a> {
    /// The header.
    pub header: FrameHeader,
    /// The payload, without padding.
    pub payload: &'a [u8],
    /// Bytes of the whole frame: the next one begins this much later.
    pub total_bytes: usize,
}

/// What was found where a frame was looked for.
#[expect(clippy::exhaustive_enums, reason = "recovery must decide about every case")]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The header's place holds zeros only.
    Blank,
    /// A frame header of another generation of this file.
    Stale {
        /// The generation it names.
        generation: Generation,
    },
    /// A plausible header that claims more bytes than were given.
    Incomplete {
        /// Bytes from the start of the frame that are needed. The caller compares them with what
        /// is left of the file: more than that is a torn or damaged frame.
        needed: usize,
    },
    /// Torn or damaged.
    Invalid {
        /// What does not fit.
        what: String,
    },
}

impl FrameError {
    /// The same as damage at `offset` of `file`, for places where a frame must be.
    #[must_use]
    pub fn into_corrupt(self, file: &str, offset: u64) -> FormatError {
        FormatError::corrupt(file, offset, self.to_string())
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => formatter.write_str("zeros where a frame should be"),
            Self::Stale { generation } => {
                write!(formatter, "a frame of generation {generation}, an earlier life of the file")
            }
            Self::Incomplete { needed } => {
                write!(formatter, "a frame of {needed} bytes that ends too early")
            }
            Self::Invalid { what } => formatter.write_str(what),
        }
    }
}

impl std::error::Error for FrameError {}

/// Bytes of a frame with this much payload: header, payload, padding to a multiple of 4096.
#[must_use]
pub const fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(BLOCK_BYTES)
}

/// Completes a frame whose payload already lies in `frame` from [`FRAME_HEADER_BYTES`] on: fills
/// header and padding and seals both with the checksum. `identity.offset` is the byte offset in
/// the file where the frame will be written.
///
/// # Panics
/// When `frame` is not [`frame_bytes`]`(payload_bytes)` long, the payload is longer than
/// [`MAX_FRAME_PAYLOAD_BYTES`], or the offset is not a multiple of 4096.
pub fn seal_frame(frame: &mut [u8], identity: PageIdentity, header: &FrameHeader) {
    let payload_bytes = header.payload_bytes as usize;
    assert!(payload_bytes <= MAX_FRAME_PAYLOAD_BYTES, "payload of {payload_bytes} bytes");
    assert_eq!(frame.len(), frame_bytes(payload_bytes), "frame of {payload_bytes} payload bytes");
    assert_eq!(identity.offset % BLOCK_BYTES_U64, 0, "offset {} of a frame", identity.offset);
    let mut writer = Writer::new(frame);
    writer.zeros(CHECKSUM_BYTES);
    writer.bytes(&FRAME_MAGIC);
    writer.u8(header.kind.code());
    writer.zeros(3);
    writer.u32(header.payload_bytes);
    writer.u32(header.record_count);
    writer.u64(header.sequence.get());
    writer.u64(header.first_lsn.get());
    writer.u64(header.durable_through.get());
    writer.u64(identity.generation.get());
    writer.zeros(FRAME_HEADER_BYTES - writer.position());
    frame[FRAME_HEADER_BYTES + payload_bytes..].fill(0);
    let checksum = page_checksum(identity, &frame[CHECKSUM_BYTES..]);
    frame[..CHECKSUM_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// A whole frame around a copy of `payload`, for writers that are not in a hurry.
/// `header.payload_bytes` is set from the payload.
///
/// # Panics
/// As [`seal_frame`].
#[must_use]
pub fn build_frame(identity: PageIdentity, header: &FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; frame_bytes(payload.len())];
    frame[FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    let payload_bytes = u32::try_from(payload.len()).expect("payload longer than 4 GiB");
    seal_frame(&mut frame, identity, &FrameHeader { payload_bytes, ..*header });
    frame
}

/// Bytes of the frame that seems to begin here, from the header alone and unverified; `None` when
/// no frame header is here.
#[must_use]
pub fn peek_frame_bytes(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    let (fields, _) = decode_header(header).ok()?;
    Some(frame_bytes(fields.payload_bytes as usize))
}

/// Reads and verifies the frame at the start of `bytes`; `identity.offset` is where in the file
/// they were read. Bytes after the frame are ignored. Allocates only for the text of an error.
///
/// # Errors
/// What else is there; see [`FrameError`].
pub fn decode_frame(
    bytes: &[u8],
    identity: PageIdentity,
) -> std::result::Result<FrameView<'_>, FrameError> {
    let Some(head) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(FrameError::Incomplete { needed: FRAME_HEADER_BYTES });
    };
    if head.iter().all(|byte| *byte == 0) {
        return Err(FrameError::Blank);
    }
    let (header, generation) = decode_header(head)?;
    if generation != identity.generation {
        return Err(FrameError::Stale { generation });
    }
    let payload_end = FRAME_HEADER_BYTES + header.payload_bytes as usize;
    let total_bytes = frame_bytes(header.payload_bytes as usize);
    let Some(frame) = bytes.get(..total_bytes) else {
        return Err(FrameError::Incomplete { needed: total_bytes });
    };
    let stored = u64_at(frame, 0);
    let computed = page_checksum(identity, &frame[CHECKSUM_BYTES..]);
    if stored != computed {
        return Err(invalid(format!(
            "the frame has checksum {computed:#018x} where {stored:#018x} was stored"
        )));
    }
    if frame[payload_end..].iter().any(|byte| *byte != 0) {
        return Err(invalid("the padding of the frame is not zero".to_owned()));
    }
    Ok(FrameView { header, payload: &frame[FRAME_HEADER_BYTES..payload_end], total_bytes })
}

fn decode_header(
    head: &[u8; FRAME_HEADER_BYTES],
) -> std::result::Result<(FrameHeader, Generation), FrameError> {
    if head[8..12] != FRAME_MAGIC {
        return Err(invalid("no frame begins here".to_owned()));
    }
    let Some(kind) = FrameKind::from_code(head[12]) else {
        return Err(invalid(format!("{} is no kind of frame", head[12])));
    };
    if head[13..16] != [0; 3] || head[56..64] != [0; 8] {
        return Err(invalid("reserved bytes of the frame header are not zero".to_owned()));
    }
    let payload_bytes = u32_at(head, 16);
    if MAX_FRAME_PAYLOAD_BYTES < payload_bytes as usize {
        return Err(invalid(format!("the frame claims a payload of {payload_bytes} bytes")));
    }
    let header = FrameHeader {
        kind,
        payload_bytes,
        record_count: u32_at(head, 20),
        sequence: FrameSequence::new(u64_at(head, 24)),
        first_lsn: Lsn::new(u64_at(head, 32)),
        durable_through: FrameSequence::new(u64_at(head, 40)),
    };
    Ok((header, Generation::new(u64_at(head, 48))))
}

#[cold]
const fn invalid(what: String) -> FrameError {
    FrameError::Invalid { what }
}
