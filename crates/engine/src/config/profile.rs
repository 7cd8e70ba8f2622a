//! Starting points for a [`Config`], by what matters most.
//!
//! A profile is nothing but values: every one of them can be changed afterwards with the setters.
//! Tested below: each profile is accepted, and has the values its documentation names.

use std::{fmt, str::FromStr, time::Duration};

use super::{Config, Durability};

/// What a store is meant for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// The defaults of [`Config::new`]: 256 MiB, 100 files, a flush every 5 minutes.
    #[default]
    Balanced,
    /// Bulk ingestion and many readers on a fast drive: 1 GiB of memory, 500 files, log segments
    /// of 64 MiB, a flush every 10 minutes. More of the log is replayed after a crash.
    HighThroughput,
    /// What is acknowledged is on disk: writes are [`Durability::Synced`] unless they say
    /// otherwise, a flush every minute, 50 files.
    HighDurability,
    /// Small machines: 32 MiB of memory, 10 files, log segments of 1 MiB.
    MemoryConstrained,
    /// Tests and laptops: small files and quick flushes, so that little data shows everything the
    /// engine does. 64 MiB of memory, memtables and log segments of 1 MiB, a flush every 5 seconds.
    Development,
}

impl Profile {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::Balanced,
        Self::HighThroughput,
        Self::HighDurability,
        Self::MemoryConstrained,
        Self::Development,
    ];

    /// The name in configuration files and on command lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::HighThroughput => "high-throughput",
            Self::HighDurability => "high-durability",
            Self::MemoryConstrained => "memory-constrained",
            Self::Development => "development",
        }
    }

    pub(super) fn config(self) -> Config {
        let config = Config::new();
        match self {
            Self::Balanced => config,
            Self::HighThroughput => config
                .memory_limit(1 << 30)
                .max_open_files(500)
                .wal_segment_bytes(64 << 20)
                .flush_interval(Duration::from_secs(600)),
            Self::HighDurability => config
                .default_durability(Durability::Synced)
                .max_open_files(50)
                .flush_interval(Duration::from_secs(60)),
            Self::MemoryConstrained => {
                config.memory_limit(32 << 20).max_open_files(10).wal_segment_bytes(1 << 20)
            }
            Self::Development => config
                .memory_limit(64 << 20)
                .memtable_bytes(1 << 20)
                .wal_segment_bytes(1 << 20)
                .flush_interval(Duration::from_secs(5)),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// A name that is no profile; displays what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProfile {
    name: String,
}

impl fmt::Display for UnknownProfile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Profile::ALL.map(Profile::name).join(", ");
        write!(formatter, "there is no profile {:?}: one of {names}", self.name)
    }
}

impl std::error::Error for UnknownProfile {}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| UnknownProfile { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_accepted_and_found_by_its_name() {
        for profile in Profile::ALL {
            Config::profile(profile).validate().unwrap();
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        let unknown = "fast".parse::<Profile>().unwrap_err().to_string();
        assert!(unknown.contains("\"fast\"") && unknown.contains("high-throughput"), "{unknown}");
    }

    #[test]
    fn profiles_have_the_files_and_intervals_they_promise() {
        let promised = [
            (Profile::Balanced, 100, 300),
            (Profile::HighThroughput, 500, 600),
            (Profile::HighDurability, 50, 60),
            (Profile::MemoryConstrained, 10, 300),
            (Profile::Development, 100, 5),
        ];
        for (profile, files, seconds) in promised {
            let settings = Config::profile(profile).settings();
            assert_eq!(settings.max_open_files, files, "{profile}");
            assert_eq!(settings.flush_interval, Duration::from_secs(seconds), "{profile}");
        }
        let durable = Config::profile(Profile::HighDurability).settings();
        assert_eq!(durable.default_durability, Durability::Synced);
    }
}
