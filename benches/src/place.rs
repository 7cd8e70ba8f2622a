//! Where a run writes: a temporary directory, the disk under it, and stores in it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use nephrite::{BackendChoice, Config, blocking::Store};
use nephrite_io::{Disk, DiskOptions, open_disk};
use tempfile::TempDir;

use crate::Outcome;

#[derive(Debug, Args)]
pub(crate) struct PlaceArguments {
    /// Directory on the device to measure; a temporary one is made in it and removed
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How to reach the disk: auto, uring or positional
    #[arg(long, global = true, value_name = "NAME", default_value = "auto")]
    backend: BackendChoice,
}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Place {
    directory: TempDir,
    /// For baselines; the stores open disks of their own.
    pub(crate) disk: Arc<dyn Disk>,
    backend: BackendChoice,
}

impl Place {
    pub(crate) fn prepare(arguments: &PlaceArguments) -> Outcome<Self> {
        let directory = match &arguments.dir {
            Some(path) => TempDir::with_prefix_in("nephrite-targets-", path)?,
            None => TempDir::with_prefix("nephrite-targets-")?,
        };
        let options = DiskOptions::new().backend(arguments.backend);
        let disk = open_disk(options, directory.path())?;
        if !disk.report().direct {
            eprintln!("targets: no direct I/O here: the figures are the system cache's");
        }
        Ok(Self { directory, disk, backend: arguments.backend })
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A path in the directory.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// The configuration of stores here, with this much memory for cache and memtables.
    pub(crate) fn config(&self, memory_bytes: u64) -> Config {
        Config::new().backend(self.backend).memory_limit(memory_bytes)
    }

    /// A new, empty store; an older one of this name is removed first.
    pub(crate) fn fresh_store(&self, name: &str, memory_bytes: u64) -> Outcome<Store> {
        self.remove(name)?;
        Ok(Store::create(self.join(name), self.config(memory_bytes))?)
    }

    /// Removes a store or file, if there is one.
    pub(crate) fn remove(&self, name: &str) -> Outcome<()> {
        let path = self.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else if path.exists() {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// Drops what the system's cache holds of all files below `directory`.
pub(crate) fn evict(directory: &Path) -> Outcome<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            evict(&path)?;
        } else {
            let file = fs::File::open(&path)?;
            file.sync_data()?; // dirty pages are not dropped
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// What the files below a directory take on disk: some stores' files have holes.
pub(crate) fn disk_bytes(directory: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let own = if metadata.is_dir() { disk_bytes(&entry.path())? } else { 0 };
        bytes += own + metadata.blocks() * 512;
    }
    Ok(bytes)
}
