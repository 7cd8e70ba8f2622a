//! The workloads: what each reads and writes, under the names of db_bench.
//!
//! Checked by: the tests of `plan` (which options go with which workload) and `tests/it/bench.rs`
//! (every workload does its work).

use clap::ValueEnum;

/// What the workers of one run do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Workload {
    /// Stores --num vectors in a new database, ids ascending
    #[value(name = "fillseq")]
    FillSeq,
    /// The same with ids in random order
    #[value(name = "fillrandom")]
    FillRandom,
    /// Durable writes into a new database, a hundredth of --num
    #[value(name = "fillsync")]
    FillSync,
    /// Stores --num vectors under random ids that exist
    #[value(name = "overwrite")]
    Overwrite,
    /// Reads --num random ids
    #[value(name = "readrandom")]
    ReadRandom,
    /// Reads --num random ids, --batch-size at a time
    #[value(name = "multireadrandom")]
    MultiReadRandom,
    /// Scans everything once in each thread
    #[value(name = "readseq")]
    ReadSeq,
    /// As readrandom, while one more thread stores vectors
    #[value(name = "readwhilewriting")]
    ReadWhileWriting,
    /// Reads a random id and stores another vector under it
    #[value(name = "updaterandom")]
    UpdateRandom,
    /// Deletes random ids
    #[value(name = "deleterandom")]
    DeleteRandom,
    /// 83 % reads, 14 % writes, 3 % reads of ten ids at once
    #[value(name = "mixgraph")]
    MixGraph,
}

impl Workload {
    /// Its name, as typed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::FillSeq => "fillseq",
            Self::FillRandom => "fillrandom",
            Self::FillSync => "fillsync",
            Self::Overwrite => "overwrite",
            Self::ReadRandom => "readrandom",
            Self::MultiReadRandom => "multireadrandom",
            Self::ReadSeq => "readseq",
            Self::ReadWhileWriting => "readwhilewriting",
            Self::UpdateRandom => "updaterandom",
            Self::DeleteRandom => "deleterandom",
            Self::MixGraph => "mixgraph",
        }
    }

    /// Whether it starts with an empty database.
    pub(super) fn starts_empty(self) -> bool {
        matches!(self, Self::FillSeq | Self::FillRandom | Self::FillSync)
    }

    /// Whether it reads vectors.
    pub(super) fn reads(self) -> bool {
        !self.starts_empty() && !matches!(self, Self::Overwrite | Self::DeleteRandom)
    }

    /// Whether it changes the database.
    pub(super) fn writes(self) -> bool {
        !matches!(self, Self::ReadRandom | Self::MultiReadRandom | Self::ReadSeq)
    }

    /// Whether its ids follow `--distribution`.
    pub(super) fn draws_ids(self) -> bool {
        !self.starts_empty() && self != Self::ReadSeq
    }

    /// Whether a call takes several ids.
    pub(super) fn takes_batches(self) -> bool {
        self.starts_empty() || matches!(self, Self::Overwrite | Self::MultiReadRandom)
    }

    /// Ids of a call when `--batch-size` says nothing.
    pub(super) fn batch_size_default(self) -> u64 {
        match self {
            Self::FillSeq | Self::FillRandom => 1000,
            Self::MultiReadRandom => 100,
            _ => 1,
        }
    }

    /// Vectors that it moves when no time is given.
    pub(super) fn operations(self, num: u64) -> u64 {
        if self == Self::FillSync { num.div_ceil(100) } else { num }
    }
}
