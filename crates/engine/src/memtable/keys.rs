//! The ids of the entries of a memtable's index, column-wise.

use nephrite_format::{IdKind, IdRef};

use super::column::Column;

/// See the module documentation.
#[derive(Debug)]
pub(super) enum Keys {
    U64(Column<u64>),
    /// `ends` is where each id ends in `bytes`.
    Bytes {
        ends: Column<u32>,
        bytes: Column<u8>,
    },
}

impl Keys {
    pub(super) fn new(kind: IdKind) -> Self {
        match kind {
            IdKind::U64 => Self::U64(Column::default()),
            IdKind::Bytes => Self::Bytes { ends: Column::default(), bytes: Column::default() },
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::U64(keys) => keys.len(),
            Self::Bytes { ends, .. } => ends.len(),
        }
    }

    #[inline]
    pub(super) fn get(&self, entry: u32) -> IdRef<'_> {
        let entry = entry as usize;
        match self {
            Self::U64(keys) => IdRef::U64(keys.get(entry)),
            Self::Bytes { ends, bytes } => {
                let before = entry.checked_sub(1).map_or(0, |before| ends.get(before) as usize);
                IdRef::Bytes(bytes.string(before, ends.get(entry) as usize))
            }
        }
    }

    pub(super) fn push(&mut self, id: IdRef<'_>) {
        match (self, id) {
            (Self::U64(keys), IdRef::U64(id)) => keys.push(id),
            (Self::Bytes { ends, bytes }, IdRef::Bytes(id)) => {
                let end = u32::try_from(bytes.push_string(id));
                ends.push(end.expect("the memtable limit is far below 4 GiB of ids"));
            }
            _ => panic!("an id of the wrong kind passed validation"),
        }
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::U64(keys) => keys.bytes(),
            Self::Bytes { ends, bytes } => ends.bytes() + bytes.bytes(),
        }
    }
}
