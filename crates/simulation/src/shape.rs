//! What a seed chooses for a run: kinds of faults, sizes, limits, proportions of operations.

use std::time::Duration;

use nephrite_io::{
    IoOperation,
    sim::{Errno, Fault, FaultPlan, SimRandom},
};

use crate::options::{Operation, Options, Profile};

/// How clients write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    /// Of how many writes one is synced.
    pub(crate) one_synced_in: u64,
    /// Smallest and largest size of a bulk write.
    pub(crate) bulk_bytes: (u64, u64),
}

/// What most of the written bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Diet {
    Mixed,
    /// Records that fill log segments, mostly without syncs and flushes in between.
    Log,
    /// Rows that bypass the log.
    Rows,
}

/// The configuration that a seed chooses.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) profile: Profile,
    pub(crate) clients: usize,
    pub(crate) databases: u64,
    pub(crate) memtable_bytes: u64,
    pub(crate) wal_segment_bytes: u64,
    pub(crate) flush_interval: Duration,
    pub(crate) max_open_files: u32,
    pub(crate) latency_max: Duration,
    pub(crate) direct: Option<u32>,
    pub(crate) write_through: bool,
    pub(crate) capacity: Option<u64>,
    pub(crate) fault_rate: u32,
    pub(crate) operations: Vec<Operation>,
    pub(crate) diet: Diet,
    /// Whether bulk writes are allowed at all.
    pub(crate) bulks: bool,
    /// Of how many writes one is synced.
    pub(crate) one_synced_in: u64,
    /// Where the store is: some or all of the directories above it may have to be made.
    pub(crate) place: &'static str,
    /// Garbage, in percent, from which a compaction is due.
    pub(crate) garbage_percent: u32,
}

impl Shape {
    pub(crate) fn new(options: &Options, random: &mut SimRandom) -> Self {
        let profile = match random.below(4) {
            0 | 1 => Profile::Crashes,
            2 => Profile::Failures,
            _ => Profile::Corruption,
        };
        let profile = options.profile.unwrap_or(profile);
        let clients = 1 + random.index(3);
        let capacity = (4 + random.below(12)) << 20;
        let is_tight = random.chance(1, 4);
        let mut shape = Self {
            profile,
            clients: options.clients.unwrap_or(clients),
            // Of more than sixteen those that nobody uses are closed.
            databases: [1, 2, 3, 20][random.index(4)],
            memtable_bytes: [64 << 10, 128 << 10, 512 << 10][random.index(3)],
            wal_segment_bytes: [256 << 10, 260 << 10, 512 << 10][random.index(3)],
            flush_interval: [Duration::ZERO, Duration::from_millis(50), Duration::from_secs(300)]
                [random.index(3)],
            max_open_files: 5 + u32::try_from(random.below(4)).expect("it is small"),
            latency_max: Duration::from_micros([0, 50, 500, 5000][random.index(4)]),
            direct: [None, Some(512), Some(4096)][random.index(3)],
            write_through: random.chance(1, 6),
            capacity: (profile == Profile::Failures && is_tight).then_some(capacity),
            fault_rate: [200, 2_000, 20_000, 100_000][random.index(4)],
            operations: Self::operations(options, random),
            one_synced_in: [2, 4, 50][random.index(3)],
            place: ["/sim/store", "/sim/a/b/store", "/data/c/store"][random.index(3)],
            garbage_percent: [10, 30, 60][random.index(3)],
            diet: [Diet::Mixed, Diet::Mixed, Diet::Log, Diet::Rows][random.index(4)],
            bulks: !options.without.contains(&Operation::Bulk),
        };
        shape.settle_diet();
        shape
    }

    fn settle_diet(&mut self) {
        match self.diet {
            Diet::Mixed => return,
            Diet::Log => {
                self.wal_segment_bytes = 256 << 10;
                self.one_synced_in = 20;
                let flushes = [Operation::Flush, Operation::FlushStore, Operation::Abandon];
                self.operations.retain(|operation| !flushes.contains(operation));
            }
            Diet::Rows => self.one_synced_in = 6,
        }
        self.memtable_bytes = 512 << 10;
        self.databases = self.databases.min(2);
        let count = self.operations.len().max(4);
        if self.bulks {
            self.operations.extend(std::iter::repeat_n(Operation::Bulk, count));
        }
    }

    /// How clients write.
    pub(crate) fn habits(&self) -> Habits {
        Habits { one_synced_in: self.one_synced_in, bulk_bytes: self.bulk_bytes() }
    }

    /// Dimensions of databases.
    pub(crate) fn dimensions(&self) -> &'static [u32] {
        if self.diet == Diet::Mixed { &[1, 3, 16, 100, 300] } else { &[100, 300] }
    }

    /// Smallest and largest size of a bulk write.
    fn bulk_bytes(&self) -> (u64, u64) {
        match self.diet {
            Diet::Mixed => (40 << 10, 100 << 10),
            Diet::Log => (30 << 10, 62 << 10),
            Diet::Rows => (64 << 10, 120 << 10),
        }
    }

    /// Some operations, each as often as the seed says.
    fn operations(options: &Options, random: &mut SimRandom) -> Vec<Operation> {
        let weights = Operation::ALL.map(|operation| {
            let most = if matches!(operation, Operation::Put | Operation::Get) { 8 } else { 4 };
            (operation, random.below(most))
        });
        let allowed = weights.iter().filter(|(it, _)| !options.without.contains(it));
        let chosen = allowed.flat_map(|(operation, weight)| {
            std::iter::repeat_n(*operation, usize::try_from(*weight).expect("it is small"))
        });
        let chosen: Vec<Operation> = chosen.collect();
        if chosen.is_empty() { vec![Operation::Put] } else { chosen }
    }

    pub(crate) fn faults(&self) -> FaultPlan {
        let rate = self.fault_rate;
        match self.profile {
            Profile::Crashes => FaultPlan::new(),
            Profile::Failures => {
                let errors = [Errno::Io, Errno::NoSpace, Errno::Cancelled].map(Fault::Error);
                let absorbed = [Errno::Interrupted, Errno::Again].map(Fault::Error);
                let plan = errors
                    .into_iter()
                    .fold(FaultPlan::new(), |plan, fault| plan.rate(fault, &[], rate / 20));
                let sync = [IoOperation::Sync, IoOperation::SyncDirectory];
                let transfers = [IoOperation::Read, IoOperation::Write];
                absorbed
                    .into_iter()
                    .fold(plan, |plan, fault| plan.rate(fault, &transfers, rate))
                    .rate(Fault::SyncForgets, &sync, rate / 4)
                    .rate(Fault::SyncKeeps, &sync, rate / 4)
                    .rate(Fault::Short, &transfers, rate)
                    .rate(Fault::Zero, &[IoOperation::Write], rate / 40)
                    .rate(Fault::Slow(Duration::from_millis(80)), &[], rate)
            }
            Profile::Corruption => {
                let both = [IoOperation::Read, IoOperation::Write];
                let write = [IoOperation::Write];
                FaultPlan::new()
                    .rate(Fault::FlippedBit, &both, rate / 2)
                    .rate(Fault::LatentSector, &[IoOperation::Read], rate / 4)
                    .rate(Fault::Lost, &write, rate / 2)
                    .rate(Fault::Misdirected(8), &write, rate / 4)
                    .rate(Fault::Misdirected(128), &write, rate / 4)
                    .rate(Fault::WrongFile, &write, rate / 4)
            }
        }
    }
}
