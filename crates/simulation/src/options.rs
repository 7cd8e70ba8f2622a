//! What a simulation does: by default everything, in proportions that the seed chooses.

use std::{fmt, str::FromStr};

/// What a client does in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Store one vector.
    Put,
    /// Replace one that is stored.
    Update,
    /// Delete one.
    Delete,
    /// Several puts and deletes at once.
    Batch,
    /// Many vectors at once, which mostly bypass the log.
    Bulk,
    /// Read one.
    Get,
    /// Read several.
    GetMany,
    /// Read all.
    Scan,
    /// Count.
    Count,
    /// Take a snapshot, or read the one taken before.
    Snapshot,
    /// Flush one database.
    Flush,
    /// Flush the store.
    FlushStore,
    /// Let time pass.
    Pause,
    /// Compact one database.
    Compact,
    /// Begin a write and drop its future.
    Abandon,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Put,
        Self::Update,
        Self::Delete,
        Self::Batch,
        Self::Bulk,
        Self::Get,
        Self::GetMany,
        Self::Scan,
        Self::Count,
        Self::Snapshot,
        Self::Flush,
        Self::FlushStore,
        Self::Pause,
        Self::Compact,
        Self::Abandon,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Batch => "batch",
            Self::Bulk => "bulk",
            Self::Get => "get",
            Self::GetMany => "get-many",
            Self::Scan => "scan",
            Self::Count => "count",
            Self::Snapshot => "snapshot",
            Self::Flush => "flush",
            Self::FlushStore => "flush-store",
            Self::Pause => "pause",
            Self::Compact => "compact",
            Self::Abandon => "abandon",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A name that is no operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownOperation(String);

impl fmt::Display for UnknownOperation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Operation::ALL.map(Operation::name).join(", ");
        write!(formatter, "`{}` is no operation; there are {names}", self.0)
    }
}

impl std::error::Error for UnknownOperation {}

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(text: &str) -> Result<Self, UnknownOperation> {
        let found = Self::ALL.into_iter().find(|operation| operation.name() == text);
        found.ok_or_else(|| UnknownOperation(text.to_owned()))
    }
}

/// What goes wrong in a run, besides crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Profile {
    /// Nothing: every error of the engine is a violation.
    Crashes,
    /// Calls fail, are short or slow, and the disk runs full: errors are the engine's right, but
    /// nothing that was promised may be lost.
    Failures,
    /// Bytes are damaged, lost, or land elsewhere: the engine may refuse, but must not return
    /// bytes that nobody wrote.
    Corruption,
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Crashes => "none",
            Self::Failures => "failures",
            Self::Corruption => "corruption",
        })
    }
}

/// A profile's name that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownProfile(String);

impl fmt::Display for UnknownProfile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "`{}` is no kind of faults; choose none, failures or corruption", self.0)
    }
}

impl std::error::Error for UnknownProfile {}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, UnknownProfile> {
        match text {
            "none" => Ok(Self::Crashes),
            "failures" => Ok(Self::Failures),
            "corruption" => Ok(Self::Corruption),
            _ => Err(UnknownProfile(text.to_owned())),
        }
    }
}

/// Steps of a run unless something else is asked for.
pub const STEPS: u64 = 200;

/// One run; see the crate's documentation for an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub(crate) seed: u64,
    pub(crate) steps: u64,
    pub(crate) without: Vec<Operation>,
    pub(crate) profile: Option<Profile>,
    pub(crate) clients: Option<usize>,
    pub(crate) events: bool,
}

impl Options {
    /// The run of this seed: [`STEPS`] steps, everything allowed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (without, profile, clients) = (Vec::new(), None, None);
        Self { seed, steps: STEPS, without, profile, clients, events: false }
    }

    /// How many operations the clients carry out together.
    #[must_use]
    pub fn steps(mut self, steps: u64) -> Self {
        self.steps = steps;
        self
    }

    /// Leaves out an operation.
    #[must_use]
    pub fn without(mut self, operation: Operation) -> Self {
        if !self.without.contains(&operation) {
            self.without.push(operation);
        }
        self
    }

    /// What goes wrong. Default: the seed chooses.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = Some(profile);
        self
    }

    /// How many clients, 1 to 4. Default: the seed chooses.
    #[must_use]
    pub fn clients(mut self, clients: usize) -> Self {
        self.clients = Some(clients.clamp(1, 4));
        self
    }

    /// Keeps what the disk did, for the report of a failure.
    #[must_use]
    pub fn keep_events(mut self) -> Self {
        self.events = true;
        self
    }
}

/// The command that replays a run.
impl fmt::Display for Options {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "nephrite simulate --seed {} --steps {}", self.seed, self.steps)?;
        if let Some(profile) = self.profile {
            write!(formatter, " --faults {profile}")?;
        }
        if let Some(clients) = self.clients {
            write!(formatter, " --clients {clients}")?;
        }
        if !self.without.is_empty() {
            let names: Vec<_> = self.without.iter().map(ToString::to_string).collect();
            write!(formatter, " --without {}", names.join(","))?;
        }
        Ok(())
    }
}
