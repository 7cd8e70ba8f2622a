//! Files and directories in two layers: as programs see them, and as they are on disk, with the
//! changes between the two.
//!
//! A change waits for a sync of the file or directory it belongs to; a sync carries out all that
//! wait there, in order. [`Tree::cut`] decides for each one that still waits.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    ops::AddAssign,
    path::Path,
};

use rand::Rng;

use super::image::Image;

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// Number of the root directory.
pub(super) const ROOT: u64 = 1;

/// What a cut did to changes that no sync had covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Losses {
    /// Changes that waited.
    pub waiting: u64,
    /// Of those, lost.
    pub lost: u64,
    /// Of those, writes of which some sectors were kept.
    pub torn: u64,
}

impl AddAssign for Losses {
    fn add_assign(&mut self, other: Self) {
        self.waiting += other.waiting;
        self.lost += other.lost;
        self.torn += other.torn;
    }
}

#[derive(Debug)]
pub(super) enum Node {
    File(File),
    Directory(Directory),
}

/// A file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    durable: Vec<u8>,
    waiting: Vec<Change>,
}

/// A directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) names: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
    waiting: Vec<NameChange>,
}

#[derive(Debug)]
enum Change {
    /// `is_synced`: by the write itself; it only waits for its turn.
    Write {
        offset: usize,
        bytes: Vec<u8>,
        is_synced: bool,
    },
    Length(usize),
}

#[derive(Debug)]
enum NameChange {
    Set(OsString, u64),
    Remove(OsString),
    /// Both, or neither.
    Rename(OsString, OsString, u64),
}

/// What becomes of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// What a cut is inclined to.
#[derive(Clone, Copy)]
enum Mood {
    LoseAll,
    KeepAll,
    Any,
}

impl Mood {
    fn fate(self, random: &mut impl Rng, losses: &mut Losses) -> Fate {
        losses.waiting += 1;
        let fate = match (self, random.random_range(0..5)) {
            (Self::KeepAll, _) | (Self::Any, 0 | 1) => Fate::Kept,
            (Self::LoseAll, _) | (Self::Any, 2 | 3) => Fate::Lost,
            (Self::Any, _) => Fate::Torn,
        };
        losses.lost += u64::from(fate == Fate::Lost);
        fate
    }
}

impl Change {
    fn carry_out(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes, .. } => put(content, *offset, bytes),
            Self::Length(length) => content.resize(*length, 0),
        }
    }

    /// Keeps some sectors of a write: those up to a place, those behind it, or any.
    fn tear(&self, content: &mut Vec<u8>, random: &mut impl Rng, losses: &mut Losses) {
        let Self::Write { offset, bytes, .. } = self else { return self.carry_out(content) };
        losses.torn += 1;
        let way = random.random_range(0..3);
        let place = random.random_range(0..=bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let sector_end = (offset + at + 1).next_multiple_of(SECTOR_BYTES) - offset;
            let end = sector_end.min(bytes.len());
            let is_kept = match way {
                0 => end <= place,
                1 => place <= at,
                _ => random.random_bool(0.5),
            };
            if is_kept {
                put(content, offset + at, &bytes[at..end]);
            }
            at = end;
        }
    }
}

/// Writes into a file that grows as needed, with zeros in between.
fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl File {
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8], is_synced: bool) {
        put(&mut self.bytes, offset, bytes);
        self.waiting.push(Change::Write { offset, bytes: bytes.to_vec(), is_synced });
    }

    pub(super) fn set_length(&mut self, length: usize) {
        self.bytes.resize(length, 0);
        self.waiting.push(Change::Length(length));
    }

    pub(super) fn sync(&mut self) {
        for change in self.waiting.drain(..) {
            change.carry_out(&mut self.durable);
        }
    }

    fn after_cut(&self, mood: Mood, random: &mut impl Rng, losses: &mut Losses) -> Vec<u8> {
        let mut content = self.durable.clone();
        for change in &self.waiting {
            if let Change::Write { is_synced: true, .. } = change {
                change.carry_out(&mut content);
                continue;
            }
            match mood.fate(random, losses) {
                Fate::Kept => change.carry_out(&mut content),
                Fate::Lost => {}
                Fate::Torn => change.tear(&mut content, random, losses),
            }
        }
        content
    }
}

impl NameChange {
    fn carry_out(&self, names: &mut BTreeMap<OsString, u64>) {
        match self {
            Self::Set(name, node) => drop(names.insert(name.clone(), *node)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Directory {
    pub(super) fn set(&mut self, name: &OsStr, node: u64) {
        self.change(NameChange::Set(name.to_owned(), node));
    }

    pub(super) fn remove(&mut self, name: &OsStr) {
        self.change(NameChange::Remove(name.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &OsStr, to: &OsStr, node: u64) {
        self.change(NameChange::Rename(from.to_owned(), to.to_owned(), node));
    }

    fn change(&mut self, change: NameChange) {
        change.carry_out(&mut self.names);
        self.waiting.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in self.waiting.drain(..) {
            change.carry_out(&mut self.durable);
        }
    }

    fn after_cut(
        &self,
        mood: Mood,
        random: &mut impl Rng,
        losses: &mut Losses,
    ) -> BTreeMap<OsString, u64> {
        let mut names = self.durable.clone();
        for change in &self.waiting {
            // Names are not torn.
            if mood.fate(random, losses) != Fate::Lost {
                change.carry_out(&mut names);
            }
        }
        names
    }
}

/// All files and directories, by number. Numbers are not used again.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) nodes: BTreeMap<u64, Node>,
    next: u64,
}

impl Tree {
    /// Everything of an image is on disk.
    pub(super) fn new(image: &Image) -> Self {
        let root = Node::Directory(Directory::default());
        let mut tree = Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1 };
        for path in &image.directories {
            tree.place(path, Node::Directory(Directory::default()));
        }
        for (path, bytes) in &image.files {
            let file = File { bytes: bytes.clone(), durable: bytes.clone(), waiting: Vec::new() };
            tree.place(path, Node::File(file));
        }
        tree
    }

    fn place(&mut self, path: &Path, node: Node) {
        let parent = path.parent().into_iter().flatten().fold(ROOT, |at, name| {
            let Some(Node::Directory(directory)) = self.nodes.get(&at) else { return at };
            directory.names.get(name).copied().unwrap_or(at)
        });
        let number = self.add(node);
        if let (Some(Node::Directory(parent)), Some(name)) =
            (self.nodes.get_mut(&parent), path.file_name())
        {
            parent.set(name, number);
            parent.sync();
        }
    }

    /// A node that has no name yet.
    pub(super) fn add(&mut self, node: Node) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        number
    }

    pub(super) fn file(&mut self, number: u64) -> Option<&mut File> {
        match self.nodes.get_mut(&number)? {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        }
    }

    pub(super) fn directory(&mut self, number: u64) -> Option<&mut Directory> {
        match self.nodes.get_mut(&number)? {
            Node::Directory(directory) => Some(directory),
            Node::File(_) => None,
        }
    }

    /// What is on disk after a cut now.
    pub(super) fn cut(&self, random: &mut impl Rng) -> (Image, Losses) {
        let mood = match random.random_range(0..8) {
            0 | 1 => Mood::LoseAll,
            2 => Mood::KeepAll,
            _ => Mood::Any,
        };
        let (mut image, mut losses) = (Image::default(), Losses::default());
        self.cut_below(ROOT, Path::new(""), &mut image, mood, random, &mut losses);
        (image, losses)
    }

    fn cut_below(
        &self,
        number: u64,
        path: &Path,
        image: &mut Image,
        mood: Mood,
        random: &mut impl Rng,
        losses: &mut Losses,
    ) {
        match &self.nodes[&number] {
            Node::File(file) => {
                let content = file.after_cut(mood, random, losses);
                image.files.insert(path.to_owned(), content);
            }
            Node::Directory(directory) => {
                if number != ROOT {
                    image.directories.insert(path.to_owned());
                }
                for (name, below) in directory.after_cut(mood, random, losses) {
                    self.cut_below(below, &path.join(name), image, mood, random, losses);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn tree_with(name: &str, written: &[u8]) -> (Tree, u64) {
        let mut tree = Tree::new(&Image::default());
        let number = tree.add(Node::File(File::default()));
        tree.directory(ROOT).unwrap().set(OsStr::new(name), number);
        tree.file(number).unwrap().write(0, written, false);
        (tree, number)
    }

    fn cuts(tree: &Tree) -> Vec<Image> {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        (0..200).map(|_| tree.cut(&mut random).0).collect()
    }

    #[test]
    fn what_was_synced_is_there_after_every_cut() {
        let (mut tree, number) = tree_with("file", &[7; 5000]);
        tree.file(number).unwrap().sync();
        tree.directory(ROOT).unwrap().sync();
        let expected = BTreeMap::from([("file".into(), vec![7; 5000])]);
        assert!(cuts(&tree).iter().all(|image| image.files == expected));
    }

    #[test]
    fn a_name_and_bytes_that_were_not_synced_are_lost_apart_from_each_other() {
        let (mut tree, number) = tree_with("file", &[7; 5000]);
        tree.file(number).unwrap().sync();
        let images = cuts(&tree);
        assert!(images.iter().any(|image| image.files.is_empty()));
        assert!(images.iter().any(|image| image.files.len() == 1));

        let (mut tree, _) = tree_with("file", &[7; 5000]);
        tree.directory(ROOT).unwrap().sync();
        let contents: Vec<_> = cuts(&tree).into_iter().map(|mut it| it.files.pop_first()).collect();
        let lengths: Vec<usize> = contents.into_iter().map(|it| it.unwrap().1.len()).collect();
        assert!(lengths.contains(&0) && lengths.contains(&5000));
        let is_torn = |length: &usize| 0 < *length && *length < 5000;
        assert!(lengths.iter().any(is_torn), "torn at a sector: {lengths:?}");
        assert!(lengths.iter().all(|length| *length == 5000 || length % SECTOR_BYTES == 0));
    }

    #[test]
    fn a_later_write_may_survive_an_earlier_one_and_a_synced_write_always_does() {
        let (mut tree, number) = tree_with("file", &[1; 512]);
        tree.directory(ROOT).unwrap().sync();
        tree.file(number).unwrap().write(512, &[2; 512], false);
        tree.file(number).unwrap().write(1024, &[3; 512], true);
        let contents: Vec<_> = cuts(&tree).into_iter().map(|it| it.files).collect();
        let contents: Vec<&Vec<u8>> = contents.iter().flat_map(BTreeMap::values).collect();
        assert!(contents.iter().all(|bytes| bytes[1024..] == [3; 512]));
        assert!(contents.iter().any(|bytes| bytes[..512] == [0; 512] && bytes[512] == 2));
    }

    #[test]
    fn a_rename_happens_or_does_not() {
        let (mut tree, number) = tree_with("old", &[7; 10]);
        tree.file(number).unwrap().sync();
        tree.directory(ROOT).unwrap().sync();
        tree.directory(ROOT).unwrap().rename(OsStr::new("old"), OsStr::new("new"), number);
        let images = cuts(&tree);
        let has = |image: &Image, name: &str| image.files.contains_key(Path::new(name));
        assert!(images.iter().all(|image| has(image, "old") != has(image, "new")));
        assert!(images.iter().any(|image| has(image, "old")));
        assert!(images.iter().any(|image| has(image, "new")));
    }
}
