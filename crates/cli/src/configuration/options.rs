//! The table of options: one row each, with how it is read and how it is shown.
//!
//! Names are those of the engine's setters, and so of the fields its errors name. The same text is
//! accepted in a file, in a variable and after `--set`.

use std::path::PathBuf;
use std::time::Duration;

use nephrite::{BackendChoice, Config, Durability, Settings};

use crate::size::parse_size;

/// Something of the engine that can be set.
pub(crate) struct ConfigOption {
    /// As in the file; the variable is `NEPHRITE_` and this in capitals.
    pub(crate) name: &'static str,
    /// What it does, and what may be written.
    pub(crate) help: &'static str,
    apply: fn(Config, &str) -> Result<Config, String>,
    show: fn(&Settings) -> String,
}

impl ConfigOption {
    /// The row of a name.
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        OPTIONS.iter().find(|option| option.name == name)
    }

    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("NEPHRITE_{}", self.name.to_ascii_uppercase())
    }

    /// The configuration with this option set; an error says what may be written.
    pub(crate) fn apply(&self, config: Config, text: &str) -> Result<Config, String> {
        (self.apply)(config, text)
    }

    /// The value in force.
    pub(crate) fn show(&self, settings: &Settings) -> String {
        (self.show)(settings)
    }
}

/// All options, in the order in which they are shown.
pub(crate) const OPTIONS: &[ConfigOption] = &[
    ConfigOption {
        name: "memory_limit",
        help: "bytes of memory for cache and memtables of a store, such as 256MiB",
        apply: |config, text| Ok(config.memory_limit(parse_size(text)?)),
        show: |settings| show_size(settings.memory_limit_bytes),
    },
    ConfigOption {
        name: "memtable_bytes",
        help: "bytes one database gathers in memory before a flush; default an eighth of the limit",
        apply: |config, text| Ok(config.memtable_bytes(parse_size(text)?)),
        show: |settings| show_size(settings.memtable_bytes),
    },
    ConfigOption {
        name: "wal_segment_bytes",
        help: "size of one log file, a multiple of 4096, such as 16MiB",
        apply: |config, text| Ok(config.wal_segment_bytes(parse_size(text)?)),
        show: |settings| show_size(settings.wal_segment_bytes),
    },
    ConfigOption {
        name: "flush_interval",
        help: "longest time outside a segment: seconds, or 5m, 1h 30m; 0 flushes on demand only",
        apply: |config, text| Ok(config.flush_interval(parse_duration(text)?)),
        show: |settings| humantime::format_duration(settings.flush_interval).to_string(),
    },
    ConfigOption {
        name: "max_open_files",
        help: "files open at a time, a hard limit",
        apply: |config, text| {
            let files = text.trim().parse();
            Ok(config.max_open_files(files.map_err(|_| "a whole number of files".to_owned())?))
        },
        show: |settings| settings.max_open_files.to_string(),
    },
    ConfigOption {
        name: "garbage_percent",
        help: "share of garbage from which a database is compacted, 1 to 90",
        apply: |config, text| {
            let percent = text.trim().parse();
            Ok(config.garbage_percent(percent.map_err(|_| "a whole number of percent".to_owned())?))
        },
        show: |settings| settings.garbage_percent.to_string(),
    },
    ConfigOption {
        name: "compaction_bytes_per_second",
        help: "bandwidth of compactions in the background, such as 256MiB; 0 is no limit",
        apply: |config, text| {
            let bytes = parse_size(text)?;
            Ok(config.compaction_bytes_per_second((bytes != 0).then_some(bytes)))
        },
        show: |settings| show_size(settings.compaction_bytes_per_second.unwrap_or(0)),
    },
    ConfigOption {
        name: "default_durability",
        help: "of writes that name none: buffered or synced",
        apply: |config, text| Ok(config.default_durability(parse_durability(text)?)),
        show: |settings| durability_name(settings.default_durability).to_owned(),
    },
    ConfigOption {
        name: "backend",
        help: "how to reach the disk: auto, uring, positional or mmap",
        apply: |config, text| Ok(config.backend(parse_backend(text)?)),
        show: |settings| settings.backend.to_string(),
    },
    ConfigOption {
        name: "cache_policy",
        help: "which pages the cache lets go: clock or s3-fifo",
        apply: |config, text| Ok(config.cache_policy(text.parse()?)),
        show: |settings| settings.cache_policy.to_string(),
    },
    ConfigOption {
        name: "record_trace",
        help: "file that reads are recorded into, for cache-replay; off records nothing",
        apply: |config, text| match text {
            "" => Err("a file, or off".to_owned()),
            "off" => Ok(config.record_trace(None)),
            path => Ok(config.record_trace(PathBuf::from(path))),
        },
        show: |settings| {
            let path = settings.record_trace.as_ref();
            path.map_or_else(|| "off".to_owned(), |path| path.display().to_string())
        },
    },
];

fn show_size(bytes: u64) -> String {
    [("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, shift)| bytes != 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.to_string(), |(unit, shift)| format!("{}{unit}", bytes >> shift))
}

/// Seconds as a plain number, or words such as `5m` and `1h 30m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("a time in seconds, or with units as in 5m or 1h 30m ({error})"))
}

fn parse_durability(text: &str) -> Result<Durability, String> {
    match text {
        "buffered" => Ok(Durability::Buffered),
        "synced" => Ok(Durability::Synced),
        _ => Err("buffered or synced".to_owned()),
    }
}

fn durability_name(durability: Durability) -> &'static str {
    match durability {
        Durability::Buffered => "buffered",
        Durability::Synced => "synced",
    }
}

fn parse_backend(text: &str) -> Result<BackendChoice, String> {
    text.parse().map_err(|error| format!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read_again() {
        let config = Config::new().flush_interval(Duration::from_secs(5400));
        let settings = config.settings();
        for option in OPTIONS {
            let shown = option.show(&settings);
            let again = option.apply(Config::new(), &shown).unwrap().settings();
            assert_eq!(option.show(&again), shown, "{}", option.name);
        }
    }

    #[test]
    fn wrong_values_say_what_is_accepted() {
        let wrong = [
            ("memory_limit", "much", "256MiB"),
            ("flush_interval", "soon", "5m"),
            ("max_open_files", "-1", "whole number"),
            ("default_durability", "maybe", "synced"),
            ("backend", "tape", "positional"),
            ("cache_policy", "lru", "s3-fifo"),
            ("record_trace", "", "off"),
        ];
        for (name, text, hint) in wrong {
            let option = ConfigOption::find(name).unwrap();
            let error = option.apply(Config::new(), text).unwrap_err();
            assert!(error.contains(hint), "{name}: {error}");
        }
    }

    #[test]
    fn durations_are_seconds_or_words() {
        for (text, seconds) in [("0", 0), ("300", 300), ("5m", 300), ("1h 30m", 5400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
    }
}
