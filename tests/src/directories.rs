//! Store directories seen from outside: which files they hold, how large they are, copies of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What a file of a store is, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_enums, reason = "the kinds of files in a store directory")]
pub enum Kind {
    /// `manifest-*`.
    Manifest,
    /// `wal/*.wal`.
    Wal,
    /// `segments/*.seg`.
    Segment,
}

/// A file of a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct StoreFile {
    /// What it is.
    pub kind: Kind,
    /// Its name within the store, as error messages give it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// All files of a store but the lock, by kind and name.
///
/// # Errors
/// What the operating system says.
pub fn store_files(store: &Path) -> io::Result<Vec<StoreFile>> {
    let mut files = Vec::new();
    for (folder, prefix) in [("", ""), ("wal", "wal/"), ("segments", "segments/")] {
        for entry in fs::read_dir(store.join(folder))? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = match (prefix, entry.path().extension().and_then(|it| it.to_str())) {
                ("", None) if name.starts_with("manifest-") => Kind::Manifest,
                ("wal/", Some("wal")) => Kind::Wal,
                ("segments/", Some("seg")) => Kind::Segment,
                _ => continue,
            };
            let bytes = entry.metadata()?.len();
            files.push(StoreFile { kind, name, path: entry.path(), bytes });
        }
    }
    files.sort();
    Ok(files)
}

/// The files of one kind.
///
/// # Panics
/// When the directory cannot be read.
#[must_use]
pub fn files_of(store: &Path, kind: Kind) -> Vec<StoreFile> {
    let files = store_files(store).expect("a store directory can be read");
    files.into_iter().filter(|file| file.kind == kind).collect()
}

/// Bytes of all files of one kind.
#[must_use]
pub fn bytes_of(store: &Path, kind: Kind) -> u64 {
    files_of(store, kind).iter().map(|file| file.bytes).sum()
}

/// The directory as a crash would leave it now, in a new directory.
///
/// A copy takes time while the engine goes on, so it is compared with the directory afterwards and
/// made again until nothing has changed: then it is what was there between copy and comparison.
///
/// # Panics
/// When the copy cannot be written, or the directory never stands still.
pub fn crash_image(store: &Path, into: &Path) {
    for _ in 0..1000 {
        if into.exists() {
            fs::remove_dir_all(into).expect("an earlier copy can be removed");
        }
        if copy(store, into).is_ok() && same(store, into).is_ok_and(|same| same) {
            return;
        }
    }
    panic!("{} changes all the time", store.display());
}

fn copy(from: &Path, into: &Path) -> io::Result<()> {
    fs::create_dir_all(into)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = into.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Whether two directories hold the same names and bytes.
fn same(a: &Path, b: &Path) -> io::Result<bool> {
    let (names, others) = (sorted_names(a)?, sorted_names(b)?);
    if names != others {
        return Ok(false);
    }
    for name in names {
        let (a, b) = (a.join(&name), b.join(&name));
        let same = if a.is_dir() { same(&a, &b)? } else { fs::read(&a)? == fs::read(&b)? };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sorted_names(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
    let mut names = entries.collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable();
    Ok(names)
}

/// Replaces a directory by a copy of another one.
///
/// # Panics
/// When that does not work.
pub fn restore_image(image: &Path, store: &Path) {
    if store.exists() {
        fs::remove_dir_all(store).expect("the old copy can be removed");
    }
    crash_image(image, store);
}
