//! A limit on memory that counts the system's cache, too: a control group of our own.
//!
//! The memory controller may be of version 1 or 2, or not there, or not ours to use: then the run
//! says so, and cold figures of rivals that read through the system's cache are not cold.
//! The process is moved back before the group is removed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Outcome;

/// The process is in a group of its own while this lives.
#[derive(Debug)]
pub(super) struct Limit {
    group: PathBuf,
    home: PathBuf,
}

/// Where the controller's root, and the file for the limit, may be.
const PLACES: [(&str, &str); 3] = [
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
    ("/sys/fs/cgroup/unified", "memory.max"),
    ("/sys/fs/cgroup", "memory.max"),
];

impl Limit {
    /// Moves this process into a new group with this limit.
    pub(super) fn enter(bytes: u64) -> Outcome<Self> {
        let mut refused = "there is no memory controller".to_owned();
        for (root, file) in PLACES {
            match Self::enter_below(Path::new(root), file, bytes) {
                Ok(limit) => return Ok(limit),
                Err(error) if Path::new(root).join("cgroup.procs").exists() => {
                    refused = format!("{root}: {error}");
                }
                Err(_) => {}
            }
        }
        Err(refused.into())
    }

    fn enter_below(root: &Path, file: &str, bytes: u64) -> Outcome<Self> {
        if !root.join("cgroup.procs").exists() {
            return Err("not mounted".into());
        }
        let group = root.join(format!("nephrite-rivals-{}", std::process::id()));
        fs::create_dir(&group)?;
        let limit = Self { home: root.to_owned(), group };
        fs::write(limit.group.join(file), bytes.to_string())?;
        fs::write(limit.group.join("cgroup.procs"), std::process::id().to_string())?;
        Ok(limit)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let back = fs::write(self.home.join("cgroup.procs"), std::process::id().to_string());
        if let Err(error) = back.and_then(|()| fs::remove_dir(&self.group)) {
            eprintln!("rivals: {} stays behind: {error}", self.group.display());
        }
    }
}
