//! What every command needs: the shared options, the output, and a way into the store.

use std::path::Path;

use nephrite::Config;
use nephrite::blocking::{Database, Store};

use crate::arguments::GlobalOptions;
use crate::configuration::Configuration;
use crate::failure::Failure;
use crate::output::Output;
use crate::shutdown::Shutdown;

/// Configuration and output of one run.
pub(crate) struct Context {
    pub(crate) configuration: Configuration,
    pub(crate) output: Output,
    pub(crate) shutdown: Shutdown,
}

impl Context {
    pub(crate) fn new(global: &GlobalOptions, configuration: Configuration) -> Self {
        let output = Output::new(global.json, global.quiet);
        Self { configuration, output, shutdown: Shutdown::default() }
    }

    /// The engine's configuration.
    pub(crate) fn config(&self) -> Config {
        self.configuration.config.clone()
    }

    /// Opens a store that must exist.
    pub(crate) fn open(&self, path: &Path) -> Result<Store, Failure> {
        if !path.exists() {
            let sentence = format!(
                "there is no store at {}: make one with `nephrite create` or `nephrite import`",
                path.display()
            );
            return Err(Failure::NotFound(sentence));
        }
        self.watch(|| Store::open(path, self.config()))
    }

    /// Opens a store, or makes it, with its directory, when there is none.
    pub(crate) fn open_or_create(&self, path: &Path) -> Result<Store, Failure> {
        self.watch(|| Store::open_or_create(path, self.config()))
    }

    /// A store that is closed when a signal comes.
    pub(crate) fn watch(
        &self,
        open: impl FnOnce() -> Result<Store, nephrite::Error>,
    ) -> Result<Store, Failure> {
        self.shutdown.watch(open)
    }

    /// Opens a store and one of its databases; both must exist.
    pub(crate) fn open_database(
        &self,
        path: &Path,
        name: &str,
    ) -> Result<(Store, Database), Failure> {
        let store = self.open(path)?;
        let database = store.database(name)?;
        Ok((store, database))
    }
}
