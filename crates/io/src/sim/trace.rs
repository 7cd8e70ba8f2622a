//! The trace of a simulated disk: what was done when, and a hash of all of it. Two runs of one
//! seed did the same exactly if their hashes agree.

use std::fmt;
use std::time::Duration;

use crate::error::IoOperation;

/// Bytes that are looked at together, to see whether they are zeros.
const BLOCK: usize = 4096;
const FACTOR: u64 = 0x9FB2_1C65_1E98_DF25;
const LANE: u64 = 0x5851_F42D_4C95_7F2D;

/// A running hash, the same on every machine and in every version.
#[derive(Debug, Clone)]
pub struct TraceHash {
    state: u64,
}

impl Default for TraceHash {
    fn default() -> Self {
        Self { state: 0x6E65_7068_7269_7465 }
    }
}

impl TraceHash {
    /// Mixes a number in.
    pub fn number(&mut self, value: u64) {
        let mixed = (self.state ^ value).wrapping_mul(FACTOR);
        self.state = mixed ^ (mixed >> 32);
    }

    /// Mixes bytes in.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        let mut blocks = bytes.chunks_exact(BLOCK);
        for block in &mut blocks {
            // Most of what is written to a new log or manifest is zeros.
            match block.iter().all(|byte| *byte == 0) {
                true => self.number(0),
                false => self.lanes(block),
            }
        }
        self.lanes(blocks.remainder());
    }

    /// Four numbers at a time, so that one multiplication need not wait for the other.
    fn lanes(&mut self, bytes: &[u8]) {
        let mut lanes = [self.state, !self.state, self.state ^ LANE, !self.state ^ LANE];
        let mut groups = bytes.chunks_exact(32);
        for group in &mut groups {
            for (lane, word) in lanes.iter_mut().zip(group.chunks_exact(8)) {
                let word = u64::from_le_bytes(word.try_into().expect("a chunk of 8 bytes"));
                let mixed = (*lane ^ word).wrapping_mul(FACTOR);
                *lane = mixed ^ (mixed >> 32);
            }
        }
        lanes.into_iter().for_each(|lane| self.number(lane));
        groups.remainder().iter().for_each(|byte| self.number(u64::from(*byte)));
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.state
    }
}

/// One system call that a simulated disk served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceEvent {
    /// When, in virtual time.
    pub time: Duration,
    /// What was asked for.
    pub operation: IoOperation,
    /// Of which file or directory.
    pub path: String,
    /// From which byte on.
    pub offset: u64,
    /// How many bytes; for a length change the new length.
    pub len: u64,
    /// How it ended: a count, or the error's text.
    pub outcome: Result<u64, String>,
    /// What was made to go wrong.
    pub fault: Option<super::Fault>,
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.time.as_micros();
        write!(formatter, "{micros:>9} us  {} `{}`", self.operation, self.path)?;
        if 0 < self.len {
            write!(formatter, " {} at {}", self.len, self.offset)?;
        }
        match &self.outcome {
            Ok(count) => write!(formatter, " -> {count}")?,
            Err(error) => write!(formatter, " -> {error}")?,
        }
        match self.fault {
            Some(fault) => write!(formatter, "  [{fault:?}]"),
            None => Ok(()),
        }
    }
}

/// Where a disk writes its events to.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: TraceHash,
    events: Option<Vec<TraceEvent>>,
}

impl Trace {
    pub(super) fn new(keep_events: bool) -> Self {
        Self { hash: TraceHash::default(), events: keep_events.then(Vec::new) }
    }

    pub(super) fn add(&mut self, event: TraceEvent) {
        let nanos = u64::try_from(event.time.as_nanos()).unwrap_or(u64::MAX);
        self.hash.number(nanos);
        self.hash.number(event.operation as u64);
        self.hash.bytes(event.path.as_bytes());
        self.hash.number(event.offset);
        self.hash.number(event.len);
        match &event.outcome {
            Ok(count) => self.hash.number(*count),
            Err(error) => self.hash.bytes(error.as_bytes()),
        }
        self.events.iter_mut().for_each(|events| events.push(event.clone()));
    }

    pub(super) fn note(&mut self, number: u64) {
        self.hash.number(number);
    }

    pub(super) fn note_bytes(&mut self, bytes: &[u8]) {
        self.hash.bytes(bytes);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.value()
    }

    pub(super) fn events(&self) -> Vec<TraceEvent> {
        self.events.clone().unwrap_or_default()
    }
}
