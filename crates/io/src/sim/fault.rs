//! What can go wrong on a simulated disk, and when: a plan of single faults and random rates.
//!
//! Faults strike at the level of system calls, below the code that continues short counts and
//! repeats interrupted calls. So an injected short count is seen by nobody above unless that code
//! is wrong.

use std::io;
use std::time::Duration;

use super::random::SimRandom;
use crate::error::IoOperation;

/// An error number that a system call returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a campaign goes over all of them")]
pub enum Errno {
    /// EIO: the device failed.
    Io,
    /// ENOSPC: no room is left.
    NoSpace,
    /// EINTR: a signal came.
    Interrupted,
    /// EAGAIN: try again.
    Again,
    /// ECANCELED: the kernel gave the operation up.
    Cancelled,
}

impl Errno {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Io, Self::NoSpace, Self::Interrupted, Self::Again, Self::Cancelled];

    /// As the operating system would report it.
    #[cfg(unix)]
    #[must_use]
    pub fn error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            Self::Io => libc::EIO,
            Self::NoSpace => libc::ENOSPC,
            Self::Interrupted => libc::EINTR,
            Self::Again => libc::EAGAIN,
            Self::Cancelled => libc::ECANCELED,
        })
    }

    /// As the operating system would report it.
    #[cfg(not(unix))]
    #[must_use]
    pub fn error(self) -> io::Error {
        match self {
            Self::Io => io::Error::other("input/output error"),
            Self::NoSpace => io::ErrorKind::StorageFull.into(),
            Self::Interrupted => io::ErrorKind::Interrupted.into(),
            Self::Again => io::ErrorKind::WouldBlock.into(),
            Self::Cancelled => io::Error::other("operation cancelled"),
        }
    }
}

/// One way for a system call to go wrong. Where a fault makes no sense for an operation (a short
/// sync), the operation goes well and the fault does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a campaign goes over all of them")]
pub enum Fault {
    /// The call fails. A failed write may have stored some of its sectors, by the seed; a failed
    /// sync may have made some writes durable and forgets the others, as kernels do: they stay
    /// readable until the machine stops, and a later sync that succeeds does not cover them.
    Error(Errno),
    /// A sync fails with EIO and forgets every write that it was to cover; a sync of a directory
    /// every name of a file.
    SyncForgets,
    /// A sync fails with EIO although everything became durable.
    SyncKeeps,
    /// A transfer stops early, with a count above zero and below what was asked for.
    Short,
    /// A write stores nothing and returns zero.
    Zero,
    /// A write is acknowledged and never happens.
    Lost,
    /// A write lands elsewhere in its file, this many 512-byte sectors further on.
    Misdirected(u32),
    /// A write lands at its offset in another file.
    WrongFile,
    /// One bit is wrong: on disk for a write, in the buffer for a read.
    FlippedBit,
    /// One sector of a read range cannot be read from now on, until it is written again.
    LatentSector,
    /// The call takes this much longer.
    Slow(Duration),
}

/// How often a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "once and for ever are the two that matter")]
pub enum Repeat {
    /// At one call.
    Once,
    /// At that call and all matching ones after it.
    Forever,
}

/// A fault that strikes at a certain call.
#[derive(Debug, Clone)]
pub struct FaultRule {
    operations: Vec<IoOperation>,
    path: Option<String>,
    nth: u64,
    repeat: Repeat,
    fault: Fault,
    seen: u64,
}

impl FaultRule {
    /// The fault strikes at the first call of any of these operations; at the first call at all
    /// when there are none.
    #[must_use]
    pub fn new(fault: Fault, operations: &[IoOperation]) -> Self {
        let operations = operations.to_vec();
        Self { operations, path: None, nth: 1, repeat: Repeat::Once, fault, seen: 0 }
    }

    /// At the n-th matching call, counted from one.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = nth;
        self
    }

    /// Once, or from then on. Default: once.
    #[must_use]
    pub fn repeat(mut self, repeat: Repeat) -> Self {
        self.repeat = repeat;
        self
    }

    /// Only for files and directories whose path contains this text.
    #[must_use]
    pub fn path(mut self, text: &str) -> Self {
        self.path = Some(text.to_owned());
        self
    }

    fn strikes(&mut self, operation: IoOperation, path: &str) -> Option<Fault> {
        let matches = (self.operations.is_empty() || self.operations.contains(&operation))
            && self.path.as_ref().is_none_or(|text| path.contains(text));
        if !matches {
            return None;
        }
        self.seen += 1;
        let now = match self.repeat {
            Repeat::Once => self.seen == self.nth,
            Repeat::Forever => self.nth <= self.seen,
        };
        now.then_some(self.fault)
    }
}

/// Everything that is to go wrong.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    rules: Vec<FaultRule>,
    rates: Vec<(Vec<IoOperation>, Fault, u32)>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more fault at a certain call. Of several that strike the first one counts.
    #[must_use]
    pub fn with(mut self, rule: FaultRule) -> Self {
        self.rules.push(rule);
        self
    }

    /// With a fault that strikes `per_million` of a million calls of these operations, by the seed
    /// of the disk.
    #[must_use]
    pub fn rate(mut self, fault: Fault, operations: &[IoOperation], per_million: u32) -> Self {
        self.rates.push((operations.to_vec(), fault, per_million));
        self
    }

    pub(super) fn strike(
        &mut self,
        operation: IoOperation,
        path: &str,
        random: &mut SimRandom,
    ) -> Option<Fault> {
        let mut struck = None;
        for rule in &mut self.rules {
            // Every rule counts every call, also where another one strikes.
            struck = struck.or(rule.strikes(operation, path));
        }
        for (operations, fault, per_million) in &self.rates {
            if (operations.is_empty() || operations.contains(&operation))
                && random.chance(u64::from(*per_million), 1_000_000)
            {
                struck = struck.or(Some(*fault));
            }
        }
        struck
    }
}
