//! Where the demo works: a temporary directory, or one that the user named.
//!
//! A named directory is only used when it is new, empty, or marked by an earlier demo; then its
//! old `store` is removed. Nothing else in it is ever touched.

use std::path::{Path, PathBuf};
use std::{fs, io};

use tempfile::TempDir;

use crate::failure::Failure;

/// The file that says that a directory is the demo's.
const MARKER: &str = "nephrite-demo.txt";
const MARKER_TEXT: &str =
    "`nephrite demo --dir` made this directory and replaces its `store` on each run.\n";
/// The store within the directory.
const STORE: &str = "store";

/// The directory of one run.
pub(super) struct Place {
    root: PathBuf,
    temporary: Option<TempDir>,
}

impl Place {
    pub(super) fn prepare(named: Option<&Path>) -> Result<Self, Failure> {
        match named {
            Some(root) => {
                claim(root)?;
                Ok(Self { root: root.to_path_buf(), temporary: None })
            }
            None => {
                let temporary =
                    tempfile::Builder::new().prefix("nephrite-demo-").tempdir().map_err(
                        |error| trouble("making a directory in", &std::env::temp_dir(), &error),
                    )?;
                Ok(Self { root: temporary.path().to_path_buf(), temporary: Some(temporary) })
            }
        }
    }

    pub(super) fn store(&self) -> PathBuf {
        self.root.join(STORE)
    }

    /// Whether the store is still there after the demo.
    pub(super) fn is_kept(&self) -> bool {
        self.temporary.is_none()
    }

    pub(super) fn describe(&self) -> String {
        let fate = if self.is_kept() { "kept" } else { "removed at the end; --dir keeps one" };
        format!("{} ({fate})", self.store().display())
    }

    /// Bytes of all files of the store.
    pub(super) fn bytes_on_disk(&self) -> Result<u64, Failure> {
        let store = self.store();
        bytes_below(&store).map_err(|error| trouble("measuring", &store, &error))
    }

    /// Removes a temporary directory.
    pub(super) fn leave(self) -> Result<(), Failure> {
        let root = self.root;
        match self.temporary {
            Some(temporary) => {
                temporary.close().map_err(|error| trouble("removing", &root, &error))
            }
            None => Ok(()),
        }
    }
}

/// Takes a named directory over, or refuses it.
fn claim(root: &Path) -> Result<(), Failure> {
    fs::create_dir_all(root).map_err(|error| trouble("making", root, &error))?;
    let marker = root.join(MARKER);
    let marked = marker.try_exists().map_err(|error| trouble("looking at", &marker, &error))?;
    if !marked {
        let mut entries = fs::read_dir(root).map_err(|error| trouble("reading", root, &error))?;
        if entries.next().is_some() {
            return Err(Failure::error(format_args!(
                "{} is not empty and was not made by an earlier demo, so nothing in it was \
                 touched: name a new or empty directory",
                root.display()
            )));
        }
        fs::write(&marker, MARKER_TEXT).map_err(|error| trouble("writing", &marker, &error))?;
    }
    let store = root.join(STORE);
    match fs::remove_dir_all(&store) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(trouble("removing the old store", &store, &error))
        }
        _ => Ok(()),
    }
}

fn trouble(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::error(format_args!(
        "{doing} {}: {error}; --dir names another directory",
        path.display()
    ))
}

fn bytes_below(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut waiting = vec![directory.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_directory_is_new_empty_or_ours() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("a/b");
        let place = Place::prepare(Some(&root)).unwrap();
        fs::create_dir(place.store()).unwrap();
        fs::write(place.store().join("old"), [0; 10]).unwrap();
        assert_eq!(place.bytes_on_disk().unwrap(), 10);
        assert!(place.is_kept());
        place.leave().unwrap();
        fs::write(root.join("mine"), "x").unwrap();
        let again = Place::prepare(Some(&root)).unwrap();
        assert!(!again.store().exists() && root.join("mine").exists());
    }

    #[test]
    fn a_directory_of_someone_else_is_refused_and_untouched() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(STORE)).unwrap();
        let failure = Place::prepare(Some(root.path())).err().unwrap();
        assert!(failure.sentence().unwrap().contains("not empty"));
        assert!(root.path().join(STORE).exists() && !root.path().join(MARKER).exists());
    }

    #[test]
    fn a_temporary_directory_is_gone_at_the_end() {
        let place = Place::prepare(None).unwrap();
        let root = place.root.clone();
        assert!(root.exists() && !place.is_kept());
        place.leave().unwrap();
        assert!(!root.exists());
    }
}
