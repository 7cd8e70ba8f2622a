//! What lies on a disk while the power is off: plain directories and files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// All directories and files of a disk, by path below its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub(super) directories: BTreeSet<PathBuf>,
    pub(super) files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Image {
    /// What lies in a directory.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn read_from(root: &Path) -> io::Result<Self> {
        let mut image = Self::default();
        image.read_below(root, Path::new(""))?;
        Ok(image)
    }

    fn read_below(&mut self, root: &Path, below: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.directories.insert(path.clone());
                self.read_below(root, &path)?;
            } else {
                self.files.insert(path.clone(), fs::read(root.join(path))?);
            }
        }
        Ok(())
    }

    /// Writes everything into an empty directory of another file system.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write_to(&self, root: &Path) -> io::Result<()> {
        for directory in &self.directories {
            fs::create_dir(root.join(directory))?; // parents come first
        }
        self.files.iter().try_for_each(|(path, bytes)| fs::write(root.join(path), bytes))
    }
}
