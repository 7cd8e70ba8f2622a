//! An image: everything that a simulated disk holds at one moment, files and directories.
//!
//! Images are what a crash leaves and what a new [`super::SimDisk`] starts from. Copies share
//! their bytes. The methods here also damage an image, for tests of what must be detected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::Arc;

use super::content::Content;
use super::trace::TraceHash;

pub(super) type NodeId = u64;

/// Every path begins here, absolute or not.
pub(super) const ROOT: NodeId = 0;

#[derive(Debug, Clone)]
pub(super) enum Node {
    File(Arc<Content>),
    Directory(Arc<BTreeMap<String, NodeId>>),
}

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct Image {
    pub(super) nodes: BTreeMap<NodeId, Node>,
}

/// One change of an image.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    SetLen(u64),
    Link {
        name: String,
        target: NodeId,
    },
    Unlink {
        name: String,
        target: NodeId,
    },
    /// Applied to the directory of the new name.
    Rename {
        from_directory: NodeId,
        from: String,
        to: String,
        target: NodeId,
    },
}

impl Default for Image {
    fn default() -> Self {
        Self::new()
    }
}

impl Image {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Directory(Arc::default()))]) }
    }

    /// Makes a directory and its missing parents, durably.
    pub fn create_dir(&mut self, path: &Path) {
        let mut directory = ROOT;
        for name in names(path) {
            directory = self.entry(directory, &name).unwrap_or_else(|| {
                let fresh = self.next_node();
                self.nodes.insert(fresh, Node::Directory(Arc::default()));
                self.apply(directory, &Change::Link { name, target: fresh });
                fresh
            });
        }
    }

    /// The paths of all files, in order, with `/` between names.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(ROOT, "", &mut paths);
        paths
    }

    fn collect_paths(&self, directory: NodeId, prefix: &str, paths: &mut Vec<String>) {
        let Some(Node::Directory(entries)) = self.nodes.get(&directory) else { return };
        for (name, target) in entries.iter() {
            let path = format!("{prefix}/{name}");
            match self.nodes.get(target) {
                Some(Node::File(_)) => paths.push(path),
                Some(Node::Directory(_)) => self.collect_paths(*target, &path, paths),
                None => {}
            }
        }
    }

    /// The bytes of a file.
    #[must_use]
    pub fn file(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.content(self.find(path)?)?.to_vec())
    }

    /// Replaces bytes of a file, which grows if they pass its end. Whether there is such a file.
    pub fn overwrite(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> bool {
        self.change_file(path, &Change::Write { offset, bytes: bytes.into() })
    }

    /// Cuts or extends a file. Whether there is such a file.
    pub fn set_len(&mut self, path: &Path, len: u64) -> bool {
        self.change_file(path, &Change::SetLen(len))
    }

    /// Inverts one bit of a file. Whether the file has it.
    pub fn flip_bit(&mut self, path: &Path, bit: u64) -> bool {
        let Some(content) = self.find(path).and_then(|node| self.content(node)) else {
            return false;
        };
        let mut byte = [0];
        if content.read(bit / 8, &mut byte) == 0 {
            return false;
        }
        byte[0] ^= 1 << (bit % 8);
        self.overwrite(path, bit / 8, &byte)
    }

    /// Removes a file. Whether there was one.
    pub fn remove(&mut self, path: &Path) -> bool {
        let Some((directory, name)) = self.parent(path) else { return false };
        let Some(target) = self.entry(directory, &name) else { return false };
        self.apply(directory, &Change::Unlink { name, target });
        true
    }

    /// A number that tells images apart by what can be reached in them.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = TraceHash::default();
        for path in self.paths() {
            hash.number(path.len() as u64);
            hash.bytes(path.as_bytes());
            let content = self.find(Path::new(&path)).and_then(|node| self.content(node));
            content.into_iter().for_each(|content| content.fingerprint(&mut hash));
        }
        hash.value()
    }

    fn change_file(&mut self, path: &Path, change: &Change) -> bool {
        match self.find(path) {
            Some(node) if self.content(node).is_some() => {
                self.apply(node, change);
                true
            }
            _ => false,
        }
    }

    pub(super) fn find(&self, path: &Path) -> Option<NodeId> {
        names(path).try_fold(ROOT, |directory, name| self.entry(directory, &name))
    }

    /// The directory of a path's last name, and that name.
    pub(super) fn parent(&self, path: &Path) -> Option<(NodeId, String)> {
        let mut all: Vec<String> = names(path).collect();
        let name = all.pop()?;
        let directory = all.iter().try_fold(ROOT, |directory, name| self.entry(directory, name))?;
        matches!(self.nodes.get(&directory), Some(Node::Directory(_))).then_some((directory, name))
    }

    pub(super) fn entry(&self, directory: NodeId, name: &str) -> Option<NodeId> {
        match self.nodes.get(&directory)? {
            Node::Directory(entries) => entries.get(name).copied(),
            Node::File(_) => None,
        }
    }

    pub(super) fn entries(&self, directory: NodeId) -> Option<&BTreeMap<String, NodeId>> {
        match self.nodes.get(&directory)? {
            Node::Directory(entries) => Some(entries),
            Node::File(_) => None,
        }
    }

    pub(super) fn content(&self, node: NodeId) -> Option<&Content> {
        match self.nodes.get(&node)? {
            Node::File(content) => Some(content),
            Node::Directory(_) => None,
        }
    }

    pub(super) fn next_node(&self) -> NodeId {
        self.nodes.last_key_value().map_or(ROOT, |(last, _)| *last) + 1
    }

    /// Applies a change to a node; one that is gone has no use for it.
    pub(super) fn apply(&mut self, node: NodeId, change: &Change) {
        if let Change::Rename { from_directory, from, target, .. } = change {
            self.unlink(*from_directory, from, *target);
        }
        match (self.nodes.get_mut(&node), change) {
            (Some(Node::File(content)), Change::Write { offset, bytes }) => {
                Arc::make_mut(content).write(*offset, bytes);
            }
            (Some(Node::File(content)), Change::SetLen(len)) => {
                Arc::make_mut(content).set_len(*len);
            }
            (
                Some(Node::Directory(entries)),
                Change::Link { name, target } | Change::Rename { to: name, target, .. },
            ) => {
                Arc::make_mut(entries).insert(name.clone(), *target);
            }
            (Some(Node::Directory(_)), Change::Unlink { name, target }) => {
                self.unlink(node, name, *target);
            }
            _ => {}
        }
    }

    /// Removes a name if it still means that node.
    fn unlink(&mut self, directory: NodeId, name: &str, target: NodeId) {
        if let Some(Node::Directory(entries)) = self.nodes.get_mut(&directory)
            && entries.get(name) == Some(&target)
        {
            Arc::make_mut(entries).remove(name);
        }
    }

    /// All nodes that have a path.
    pub(super) fn reachable(&self) -> BTreeSet<NodeId> {
        let mut found = BTreeSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(directory) = open.pop() {
            let targets = self.entries(directory).into_iter().flat_map(BTreeMap::values);
            open.extend(targets.filter(|target| found.insert(**target)));
        }
        found
    }

    pub(super) fn retain(&mut self, kept: &BTreeSet<NodeId>) {
        self.nodes.retain(|node, _| kept.contains(node));
    }
}

/// The names in a path. Anything but plain names leads nowhere else than where it stands.
pub(super) fn names(path: &Path) -> impl Iterator<Item = String> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    })
}
