//! Which I/O path is in use and why: a [`BackendReport`] for people and programs.

use std::fmt;
use std::str::FromStr;

/// Which backend to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum BackendChoice {
    /// On Linux `io_uring` where it works, else positional; on Windows and macOS mmap where
    /// mapping works, else positional. Never fails because one of them does not work.
    #[default]
    Auto,
    /// `io_uring`, or an error that says why not.
    Uring,
    /// A bounded pool of threads with positional reads and writes.
    Positional,
    /// The same threads, but reads of sealed files are copies out of read-only mappings. What
    /// `Auto` takes on Windows and macOS. All files go through the system's cache.
    Mmap,
    /// No real disk: a [`crate::sim::SimDisk`] reports this, and nothing else can ask for it.
    Simulated,
}

impl fmt::Display for BackendChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Positional => "positional",
            Self::Mmap => "mmap",
            Self::Simulated => "simulated",
        })
    }
}

impl FromStr for BackendChoice {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        match text {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Uring),
            "positional" => Ok(Self::Positional),
            "mmap" => Ok(Self::Mmap),
            _ => Err(UnknownBackend { text: text.to_owned() }),
        }
    }
}

/// A backend name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownBackend {
    text: String,
}

impl fmt::Display for UnknownBackend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` is no backend; choose auto, uring, positional or mmap", self.text)
    }
}

impl std::error::Error for UnknownBackend {}

/// What a disk runs on, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct BackendReport {
    /// What was asked for.
    pub requested: BackendChoice,
    /// What is in use: `Uring`, `Positional` or `Mmap`, never `Auto`.
    pub chosen: BackendChoice,
    /// Why, as a sentence; where a backend was blocked it names the cause and the cure.
    pub reason: String,
    /// Set when a ring stopped working later and its requests went to the positional threads.
    pub degraded: Option<String>,
    /// Operating system kernel release, where known.
    pub kernel: Option<String>,
    /// Setup flags of the rings, by name; empty when positional.
    pub ring_flags: Vec<String>,
    /// Submission entries per ring; 0 when positional.
    pub ring_entries: u32,
    /// Number of rings, each with its thread.
    pub ring_threads: u32,
    /// Largest number of positional threads for data.
    pub positional_threads: u32,
    /// Whether files in the probed directory bypass the operating system's cache.
    pub direct: bool,
    /// What direct transfers there must be aligned to, in bytes; 1 when buffered.
    pub alignment: u32,
    /// Name of the block device under the directory, where it could be determined.
    pub device: Option<String>,
    /// The device's volatile cache as the kernel sees it: `write back` or `write through`.
    pub write_cache: Option<String>,
    /// Whether durable writes of direct files there are one write (`RWF_DSYNC`), without a sync
    /// after it: see [`crate::DurableWrites`].
    pub writes_through: bool,
    /// What became of mapping files; none unless `chosen` is `Mmap`.
    pub mapping: Option<MappingReport>,
    /// How many threads may have a ring of their own for blocking calls; 0 when positional.
    pub caller_rings: u32,
    /// Set while threads cannot get such a ring although they may have one: why. The next is tried
    /// after some calls without, so this goes when the cause does.
    pub caller_refusal: Option<String>,
    /// Set when [`crate::DiskOptions::submission_polling`] was asked for and refused: why.
    pub polling_refusal: Option<String>,
    /// Whether completions of direct transfers are polled for
    /// ([`crate::DiskOptions::completion_polling`]).
    pub completions_polled: bool,
    /// Set when that was asked for and refused, or given up later: why.
    pub completion_refusal: Option<String>,
    /// Whether the device has queues whose completions can be polled for, where it tells.
    pub device_polls: Option<bool>,
    /// Bytes of arenas that are registered with the kernel, each ring's counted.
    pub registered_bytes: u64,
    /// Set when an arena could not be registered although that was asked for: why, the first time.
    pub registration_refusal: Option<String>,
    /// What memory of direct transfers must be aligned to, in bytes; 1 when buffered.
    pub memory_alignment: u32,
    /// The device's request scheduler; `none` reorders nothing.
    pub scheduler: Option<String>,
    /// Whether the device says that it has to move a head.
    pub rotational: Option<bool>,
    /// Most bytes of one request to the device (`max_sectors_kb`); larger ones are split.
    pub transfer_bytes_max: Option<u64>,
    /// Type of the file system, like `ext4`.
    pub file_system: Option<String>,
    /// What this process may use.
    pub limits: LimitsReport,
}

/// Limits of the process that decide about rings and open files; none where the system does not
/// tell them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LimitsReport {
    /// Memory that may be locked, in bytes (RLIMIT_MEMLOCK); `u64::MAX` for no limit.
    pub locked_memory_bytes: Option<u64>,
    /// Files that may be open (RLIMIT_NOFILE); `u64::MAX` for no limit.
    pub open_files: Option<u64>,
    /// The sysctl `kernel.io_uring_disabled`: 0 allows rings, 1 to a group only, 2 to nobody.
    pub io_uring_disabled: Option<u32>,
    /// System call filters of this process: `none`, `strict` or `filter`.
    pub seccomp: Option<String>,
}

/// Mappings of sealed files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MappingReport {
    /// Files that are mapped now.
    pub files: u64,
    /// Files that could not be mapped and are read positionally.
    pub refusals: u64,
    /// The first of these, and why.
    pub first_refusal: Option<String>,
    /// Reads of mapped files that went to the file, since the mapping could not serve them.
    pub fallbacks: u64,
}

impl fmt::Display for BackendReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "backend:     {} (asked for: {})", self.chosen, self.requested)?;
        writeln!(formatter, "reason:      {}", self.reason)?;
        if let Some(degraded) = &self.degraded {
            writeln!(formatter, "degraded:    {degraded}")?;
        }
        writeln!(formatter, "kernel:      {}", self.kernel.as_deref().unwrap_or("unknown"))?;
        if self.chosen == BackendChoice::Uring {
            let flags = self.ring_flags.join(" | ");
            writeln!(
                formatter,
                "rings:       {} with {} entries ({flags})",
                self.ring_threads, self.ring_entries
            )?;
        }
        if let Some(reason) = &self.polling_refusal {
            writeln!(formatter, "polling:     no: {reason}")?;
        }
        if self.completions_polled {
            writeln!(formatter, "completions: polled for, on a ring of their own")?;
        }
        if let Some(reason) = &self.completion_refusal {
            writeln!(formatter, "completions: not polled for: {reason}")?;
        }
        if 0 < self.registered_bytes {
            writeln!(formatter, "registered:  {} bytes of buffers", self.registered_bytes)?;
        }
        if let Some(reason) = &self.registration_refusal {
            writeln!(formatter, "registered:  not all: {reason}")?;
        }
        match &self.caller_refusal {
            Some(reason) => writeln!(formatter, "callers:     no rings of their own: {reason}")?,
            None => writeln!(formatter, "callers:     up to {} rings", self.caller_rings)?,
        }
        writeln!(formatter, "threads:     up to {} positional", self.positional_threads)?;
        if let Some(mapping) = &self.mapping {
            write!(
                formatter,
                "mapped:      {} files, {} refused",
                mapping.files, mapping.refusals
            )?;
            match &mapping.first_refusal {
                Some(first) => writeln!(formatter, " (first: {first})")?,
                None => writeln!(formatter)?,
            }
        }
        match self.direct {
            true => writeln!(
                formatter,
                "direct I/O:  yes, offsets aligned to {} bytes, memory to {}",
                self.alignment, self.memory_alignment
            )?,
            false => writeln!(formatter, "direct I/O:  no, through the system's cache")?,
        }
        let known = |text: &Option<String>| text.as_deref().unwrap_or("unknown").to_owned();
        writeln!(formatter, "file system: {}", known(&self.file_system))?;
        let rotational = match self.rotational {
            Some(true) => "rotating",
            Some(false) => "not rotating",
            None => "rotation unknown",
        };
        writeln!(
            formatter,
            "device:      {} (write cache: {}, scheduler: {}, {rotational}, largest request: {})",
            known(&self.device),
            known(&self.write_cache),
            known(&self.scheduler),
            limit(self.transfer_bytes_max)
        )?;
        writeln!(formatter, "limits:      {}", self.limits)?;
        match self.writes_through && self.direct {
            true => write!(formatter, "durable:     one write (RWF_DSYNC)"),
            false => write!(formatter, "durable:     write, then sync"),
        }
    }
}

impl fmt::Display for LimitsReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "locked memory: {}, open files: {}, kernel.io_uring_disabled: {}, seccomp: {}",
            limit(self.locked_memory_bytes),
            limit(self.open_files),
            self.io_uring_disabled.map_or_else(|| "unknown".to_owned(), |level| level.to_string()),
            self.seccomp.as_deref().unwrap_or("unknown")
        )
    }
}

fn limit(limit: Option<u64>) -> String {
    match limit {
        None => "unknown".to_owned(),
        Some(u64::MAX) => "unlimited".to_owned(),
        Some(number) => number.to_string(),
    }
}
