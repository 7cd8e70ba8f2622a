//! Which files a store directory holds, and which an interrupted repair has moved away.
//!
//! A directory `damaged-<n>` without its `report.txt` is of a repair that did not come to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use nephrite_format::FileId;
use nephrite_io::{Disk, IoErrorKind};

use super::state::Known;
use crate::{
    error::Error,
    paths::{
        StorePaths, is_temporary, manifest_name, parse_manifest, parse_segment, parse_wal,
        segment_name, wal_name,
    },
};

pub(super) const REPORT: &str = "report.txt";
const PREFIX: &str = "damaged-";
/// Begins the name of an empty file in such a directory; the first file id of the repair follows.
const MADE_FROM: &str = "made-from-";

/// A file of the store.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Its name within the store.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// All files, by kind and id.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) manifests: BTreeMap<FileId, Found>,
    pub(super) logs: BTreeMap<FileId, Found>,
    pub(super) segments: BTreeMap<FileId, Found>,
    pub(super) temporaries: Vec<String>,
    /// Directories of interrupted repairs.
    pub(super) interrupted: Vec<String>,
    /// Segments from this one on were made by an interrupted repair, unless a manifest names them.
    pub(super) made_from: Option<FileId>,
    /// Number for the next directory.
    pub(super) next_number: u64,
}

impl Listing {
    /// Reads the directories. Files that only an interrupted repair's directory holds are listed
    /// where they are now.
    pub(super) async fn read(disk: &Arc<dyn Disk>, paths: &StorePaths) -> Result<Self, Error> {
        let mut listing = Self { next_number: 1, ..Self::default() };
        let mut asides = Vec::new();
        for entry in names(disk, paths.root().to_owned()).await? {
            if let Some(number) = entry.strip_prefix(PREFIX) {
                let number = number.parse::<u64>().unwrap_or(0);
                listing.next_number = listing.next_number.max(number.saturating_add(1));
                asides.push(entry);
            } else if is_temporary(&entry) {
                listing.temporaries.push(entry);
            }
        }
        listing.read_parts(disk, paths.root().to_owned()).await?;
        asides.sort_unstable();
        for aside in asides {
            let directory = paths.root().join(&aside);
            let inside = names(disk, directory.clone()).await?;
            if inside.iter().all(|name| name != REPORT) {
                let mut made = inside.iter().filter_map(|name| name.strip_prefix(MADE_FROM));
                let first = made.find_map(|hex| u64::from_str_radix(hex, 16).ok());
                let first = first.map(FileId::new).into_iter().chain(listing.made_from).min();
                listing.made_from = first;
                listing.read_parts(disk, directory).await?;
                listing.interrupted.push(aside);
            }
        }
        Ok(listing)
    }

    async fn read_parts(&mut self, disk: &Arc<dyn Disk>, root: PathBuf) -> Result<(), Error> {
        for entry in names(disk, root.clone()).await? {
            let Some(id) = parse_manifest(&entry) else { continue };
            let found = Found { name: manifest_name(id), path: root.join(&entry) };
            self.manifests.entry(id).or_insert(found);
        }
        let (logs, segments) = (root.join("wal"), root.join("segments"));
        for entry in names(disk, logs.clone()).await? {
            let Some(id) = parse_wal(&entry) else { continue };
            let found = Found { name: wal_name(id), path: logs.join(&entry) };
            self.logs.entry(id).or_insert(found);
        }
        for entry in names(disk, segments.clone()).await? {
            let Some(id) = parse_segment(&entry) else { continue };
            let found = Found { name: segment_name(id), path: segments.join(&entry) };
            self.segments.entry(id).or_insert(found);
        }
        Ok(())
    }

    /// The highest file id in any name.
    pub(super) fn highest_file(&self) -> u64 {
        let last = |files: &BTreeMap<FileId, Found>| files.keys().last().map_or(0, |id| id.get());
        let temporary = |name: &String| parse_manifest(name.trim_end_matches(".tmp"));
        let temporaries = self.temporaries.iter().filter_map(temporary).map(FileId::get);
        let named = last(&self.manifests).max(last(&self.logs)).max(last(&self.segments));
        temporaries.fold(named, u64::max)
    }

    /// Files that an interrupted repair moved: where they are, where they belong.
    pub(super) fn moved(&self, paths: &StorePaths) -> Vec<(PathBuf, PathBuf)> {
        let logs = self.logs.iter().map(|(id, found)| (&found.path, paths.wal(*id)));
        let segments = self.segments.iter().map(|(id, found)| (&found.path, paths.segment(*id)));
        let manifests = self.manifests.iter();
        let manifests = manifests.map(|(id, found)| (&found.path, paths.manifest(*id)));
        let pairs = logs.chain(segments).chain(manifests).filter(|(path, home)| **path != *home);
        pairs.map(|(path, home)| (path.clone(), home)).collect()
    }

    /// Files that an interrupted repair moved and that the manifest in force does not name stay
    /// where they are.
    pub(super) fn forget_unneeded(&mut self, paths: &StorePaths, known: &Known) {
        if !known.is_whole {
            return;
        }
        let records = known.state.databases.values();
        let segments: BTreeSet<FileId> =
            records.flat_map(|record| &record.segments).map(|segment| segment.file).collect();
        let logs: BTreeSet<FileId> = known.state.log.values().copied().collect();
        self.manifests.retain(|file, found| found.path == paths.manifest(*file));
        self.segments
            .retain(|file, found| found.path == paths.segment(*file) || segments.contains(file));
        self.logs.retain(|file, found| found.path == paths.wal(*file) || logs.contains(file));
    }
}

/// Name of the file that says which segments a repair has made.
pub(super) fn made_from_name(first: FileId) -> String {
    format!("{MADE_FROM}{:016x}", first.get())
}

/// Name of the directory with this number.
pub(super) fn directory_name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

async fn names(disk: &Arc<dyn Disk>, path: PathBuf) -> Result<Vec<String>, Error> {
    match disk.list_dir(&path).await {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
        Err(error) if error.kind() == IoErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
