//! Where the engine's configuration comes from.
//!
//! Later ones win: a profile, the file, the environment, the command line. Each option remembers
//! which of them set it, so that an error names the place and `nephrite config` can show it.
//! The environment is read here and nowhere else in the program.
//!
//! Checked by: the tests below, `options` and `file`, and `tests/it/configuration.rs`.

mod file;
mod options;

use std::fmt;
use std::path::{Path, PathBuf};

use nephrite::{Config, Error, Profile};

pub(crate) use options::{ConfigOption, OPTIONS};

use crate::failure::Failure;

/// Variable that names a configuration file.
pub(crate) const FILE_VARIABLE: &str = "NEPHRITE_CONFIG";
/// Variable that names a profile.
pub(crate) const PROFILE_VARIABLE: &str = "NEPHRITE_PROFILE";
/// The key of a profile in a file.
const PROFILE_KEY: &str = "profile";

/// Who set an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Nobody: the profile's value.
    Profile(Profile),
    /// A line of a file.
    File { path: PathBuf, line: usize },
    /// An environment variable.
    Variable(String),
    /// An option of the command line.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(profile) => write!(formatter, "profile {profile}"),
            Self::File { path, line } => write!(formatter, "{}, line {line}", path.display()),
            Self::Variable(name) => write!(formatter, "variable {name}"),
            Self::Flag(name) => formatter.write_str(name),
        }
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    /// `--config`.
    pub(crate) file: Option<PathBuf>,
    /// `--profile`.
    pub(crate) profile: Option<Profile>,
    /// Option, value, and the flag that gave it.
    pub(crate) values: Vec<(String, String, &'static str)>,
}

/// The configuration in force, and who set what.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    pub(crate) config: Config,
    pub(crate) sources: Vec<(&'static str, Source)>,
}

impl Configuration {
    /// Gathers everything. `variable` looks up the environment.
    pub(crate) fn gather(
        flags: &Flags,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let path = flags.file.clone().or_else(|| variable(FILE_VARIABLE).map(PathBuf::from));
        let mut lines = path.as_deref().map(file::read).transpose()?.unwrap_or_default();
        let from_file = take_profile(&mut lines);
        let profile = choose_profile(flags, &variable, from_file, path.as_deref())?;

        let mut values: Vec<(String, String, Source)> = Vec::new();
        for file::FileValue { name, text, line } in lines {
            let path = path.clone().expect("lines come from a file");
            values.push((name, text, Source::File { path, line }));
        }
        for option in OPTIONS {
            let name = option.variable();
            if let Some(text) = variable(&name) {
                values.push((option.name.to_owned(), text, Source::Variable(name)));
            }
        }
        for (name, text, flag) in &flags.values {
            values.push((name.clone(), text.clone(), Source::Flag(flag)));
        }
        Self::apply(profile, values)
    }

    /// The memory limit, if the command line gave it.
    pub(crate) fn memory_flag(&self) -> Option<u64> {
        let given = |(name, source): &(&str, Source)| {
            *name == "memory_limit" && matches!(source, Source::Flag(_))
        };
        let bytes = self.config.settings().memory_limit_bytes;
        self.sources.iter().any(given).then_some(bytes)
    }

    fn apply(profile: Profile, values: Vec<(String, String, Source)>) -> Result<Self, Failure> {
        let mut config = Config::profile(profile);
        let mut sources: Vec<(&'static str, Source)> =
            OPTIONS.iter().map(|option| (option.name, Source::Profile(profile))).collect();
        for (name, text, source) in values {
            let Some(option) = ConfigOption::find(&name) else {
                return Err(unknown(&name, &source));
            };
            config = option.apply(config, &text).map_err(|accepted| {
                Failure::Usage(format!("{source}: {name} cannot be {text:?}: {accepted}"))
            })?;
            let entry = sources.iter_mut().find(|(listed, _)| *listed == option.name);
            entry.expect("every option was listed above").1 = source;
        }
        let configuration = Self { config, sources };
        configuration.check()?;
        Ok(configuration)
    }

    /// All values as `--set` takes them, to hand to a child process.
    pub(crate) fn assignments(&self) -> impl Iterator<Item = String> {
        let settings = self.config.settings();
        OPTIONS.iter().map(move |option| format!("{}={}", option.name, option.show(&settings)))
    }

    /// Refuses what the engine would refuse, with the place that set the field.
    fn check(&self) -> Result<(), Failure> {
        match self.config.validate() {
            Ok(()) => Ok(()),
            Err(Error::InvalidConfig { field, reason }) => {
                let source = self.sources.iter().find(|(name, _)| *name == field);
                let place = source.map_or_else(String::new, |(_, source)| format!("{source}: "));
                Err(Failure::Usage(format!("{place}{field}: {reason}")))
            }
            Err(other) => Err(other.into()),
        }
    }
}

/// Takes the profile out of the lines of a file, since it comes before all of them.
fn take_profile(lines: &mut Vec<file::FileValue>) -> Option<file::FileValue> {
    let position = lines.iter().position(|line| line.name == PROFILE_KEY)?;
    Some(lines.remove(position))
}

fn choose_profile(
    flags: &Flags,
    variable: &impl Fn(&str) -> Option<String>,
    from_file: Option<file::FileValue>,
    path: Option<&Path>,
) -> Result<Profile, Failure> {
    if let Some(profile) = flags.profile {
        return Ok(profile);
    }
    let named = match (variable(PROFILE_VARIABLE), from_file) {
        (Some(name), _) => Some((name, Source::Variable(PROFILE_VARIABLE.to_owned()))),
        (None, Some(value)) => {
            let path = path.expect("the value comes from a file").to_owned();
            Some((value.text, Source::File { path, line: value.line }))
        }
        (None, None) => None,
    };
    named.map_or_else(
        || Ok(Profile::default()),
        |(name, source)| name.parse().map_err(|error| Failure::Usage(format!("{source}: {error}"))),
    )
}

fn unknown(name: &str, source: &Source) -> Failure {
    let names: Vec<&str> = OPTIONS.iter().map(|option| option.name).collect();
    Failure::Usage(format!(
        "{source}: there is no option {name:?}: one of {PROFILE_KEY}, {}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Configuration {
        try_gather(file, variables, flags).unwrap()
    }

    fn try_gather(
        file: &str,
        variables: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Configuration, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("nephrite.toml");
        std::fs::write(&path, file).unwrap();
        let values =
            flags.iter().map(|(name, text)| ((*name).into(), (*text).into(), "--set")).collect();
        let flags = Flags { file: Some(path), profile: None, values };
        let variable = |name: &str| {
            let found = variables.iter().find(|(listed, _)| *listed == name);
            found.map(|(_, text)| (*text).to_owned())
        };
        Configuration::gather(&flags, variable)
            .map_err(|failure| failure.sentence().unwrap_or_default().to_owned())
    }

    fn source<'a>(configuration: &'a Configuration, name: &str) -> &'a Source {
        &configuration.sources.iter().find(|(listed, _)| *listed == name).unwrap().1
    }

    #[test]
    fn later_places_win_and_are_remembered() {
        let file = "memory_limit = \"64MiB\"\nmax_open_files = 7\nprofile = \"development\"\n";
        let variables = [("NEPHRITE_MAX_OPEN_FILES", "8"), ("NEPHRITE_FLUSH_INTERVAL", "9")];
        let configuration = gather(file, &variables, &[("flush_interval", "10")]);
        let settings = configuration.config.settings();
        assert_eq!(settings.memory_limit_bytes, 64 << 20);
        assert_eq!((settings.max_open_files, settings.flush_interval.as_secs()), (8, 10));
        assert_eq!(settings.wal_segment_bytes, 1 << 20, "of the profile");
        assert!(matches!(source(&configuration, "memory_limit"), Source::File { line: 1, .. }));
        assert!(matches!(source(&configuration, "max_open_files"), Source::Variable(_)));
        assert_eq!(*source(&configuration, "flush_interval"), Source::Flag("--set"));
        let profile = Source::Profile(Profile::Development);
        assert_eq!(*source(&configuration, "wal_segment_bytes"), profile);
    }

    #[test]
    fn refusals_name_the_place_and_the_field() {
        let refused = |file, variables: &[_], flags: &[_]| {
            try_gather(file, variables, flags).expect_err("this configuration is wrong")
        };
        let unknown = refused("\nmemroy_limit = 1\n", &[], &[]);
        assert!(unknown.contains("line 2") && unknown.contains("memroy_limit"), "{unknown}");
        let value = refused("", &[("NEPHRITE_BACKEND", "tape")], &[]);
        assert!(value.contains("variable NEPHRITE_BACKEND"), "{value}");
        let combination = refused("memory_limit = \"8MiB\"\n", &[], &[("memtable_bytes", "4MiB")]);
        assert!(combination.contains("--set: memtable_bytes"), "{combination}");
        let profile = refused("profile = \"fast\"\n", &[], &[]);
        assert!(profile.contains("line 1") && profile.contains("balanced"), "{profile}");
    }
}
