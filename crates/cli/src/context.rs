//! What every command needs: the shared options, the output, and a way into the store.

use std::path::Path;

use nephrite::Config;
use nephrite::blocking::{Database, Store};

use crate::arguments::GlobalOptions;
use crate::failure::Failure;
use crate::output::Output;

/// Shared options and output of one run.
pub(crate) struct Context {
    pub(crate) global: GlobalOptions,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(global: GlobalOptions) -> Self {
        let output = Output::new(global.json, global.quiet);
        Self { global, output }
    }

    /// The engine's configuration for the shared options.
    pub(crate) fn config(&self) -> Config {
        let config = Config::new().backend(self.global.backend);
        match self.global.memory {
            Some(bytes) => config.memory_limit(bytes),
            None => config,
        }
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
        Ok(Store::open(path, self.config())?)
    }

    /// Opens a store, or makes it, with its directory, when there is none.
    pub(crate) fn open_or_create(&self, path: &Path) -> Result<Store, Failure> {
        Ok(Store::open_or_create(path, self.config())?)
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
