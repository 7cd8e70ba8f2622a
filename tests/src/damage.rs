//! Damage to files: flipped bits, cut and overwritten bytes.
//!
//! Every change is undone by [`Damaged::mend`], so that one copy of a store serves many kinds of
//! damage as long as nobody writes to it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A damaged file that remembers what it was.
#[derive(Debug)]
pub struct Damaged {
    path: PathBuf,
    original: Vec<u8>,
}

impl Damaged {
    /// Flips one bit.
    ///
    /// # Panics
    /// When the file is shorter or cannot be changed.
    #[must_use]
    pub fn flip(path: &Path, offset: u64, bit: u8) -> Self {
        Self::change(path, |content| {
            let offset = usize::try_from(offset).expect("test files are small");
            content[offset] ^= 1 << bit;
        })
    }

    /// Cuts the file to a length.
    ///
    /// # Panics
    /// When it cannot be changed.
    #[must_use]
    pub fn truncate(path: &Path, bytes: u64) -> Self {
        Self::change(path, |content| {
            content.truncate(usize::try_from(bytes).expect("test files are small"));
        })
    }

    /// Any other change of the content.
    ///
    /// # Panics
    /// When the file cannot be read or written.
    #[must_use]
    pub fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let original = fs::read(path).expect("a file of the store can be read");
        let mut content = original.clone();
        change(&mut content);
        fs::write(path, content).expect("a file of the store can be written");
        Self { path: path.to_owned(), original }
    }

    /// Removes the file.
    ///
    /// # Panics
    /// When it cannot be read or removed.
    #[must_use]
    pub fn remove(path: &Path) -> Self {
        let original = fs::read(path).expect("a file of the store can be read");
        fs::remove_file(path).expect("a file of the store can be removed");
        Self { path: path.to_owned(), original }
    }

    /// Puts the file back as it was.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn mend(self) {
        fs::write(&self.path, &self.original).expect("a file of the store can be written");
    }
}
