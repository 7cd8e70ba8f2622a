//! Where the benchmark works: a store of its own in a named directory, or in a temporary one.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::Failure;

/// The store within the directory; nothing else there is touched.
const STORE: &str = "nephrite-bench";

/// The directory of one run; a temporary one goes with it.
pub(super) struct Place {
    root: PathBuf,
    _temporary: Option<TempDir>,
}

impl Place {
    pub(super) fn prepare(named: Option<&Path>) -> Result<Self, Failure> {
        let failed = |path: &Path, error: std::io::Error| {
            Failure::error(format_args!(
                "--dir: making {}: {error}; name a directory that can be written",
                path.display()
            ))
        };
        if let Some(root) = named {
            fs::create_dir_all(root).map_err(|error| failed(root, error))?;
            return Ok(Self { root: root.to_owned(), _temporary: None });
        }
        let temporary = tempfile::Builder::new()
            .prefix("nephrite-bench-")
            .tempdir()
            .map_err(|error| failed(&std::env::temp_dir(), error))?;
        Ok(Self { root: temporary.path().to_owned(), _temporary: Some(temporary) })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn store(&self) -> PathBuf {
        self.root.join(STORE)
    }
}
