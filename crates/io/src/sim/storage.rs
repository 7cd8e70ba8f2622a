//! What a simulated machine stores: what processes see, what is durable, and what lies between.
//!
//! A write, length change or change of a name is visible at once and pending until a sync of its
//! file or directory covers it. A sync covers what was pending when it was asked for, no more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use super::content::Content;
use super::crash::{CrashState, Pending};
use super::image::{Change, Image, Node, NodeId, names};
use super::random::SimRandom;

const SECTOR: u64 = 512;

/// Held by every open handle of a node.
pub(super) type Token = Arc<()>;

#[derive(Debug)]
pub(super) struct Storage {
    pub(super) live: Image,
    durable: Image,
    pending: Vec<Pending>,
    sequence: u64,
    next_node: NodeId,
    capacity: Option<u64>,
    handles: BTreeMap<NodeId, Weak<()>>,
    /// Nodes without a name that a handle kept when this was last looked at.
    nameless: BTreeSet<NodeId>,
    locks: BTreeMap<NodeId, Weak<()>>,
    /// Sectors that cannot be read.
    latent: BTreeSet<(NodeId, u64)>,
    /// A sync of a directory has failed and forgotten names.
    pub(super) names_lost: bool,
}

impl Storage {
    pub(super) fn new(image: Image, capacity: Option<u64>) -> Self {
        Self {
            next_node: image.next_node(),
            live: image.clone(),
            durable: image,
            pending: Vec::new(),
            sequence: 0,
            capacity,
            handles: BTreeMap::new(),
            nameless: BTreeSet::new(),
            locks: BTreeMap::new(),
            latent: BTreeSet::new(),
            names_lost: false,
        }
    }

    /// Marks the present: a sync asked for now covers what is pending up to it.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    pub(super) fn crash_state(&self, in_flight: Vec<Pending>) -> CrashState {
        let pending = self.pending.iter().cloned().chain(in_flight).collect();
        CrashState { durable: self.durable.clone(), pending }
    }

    fn change(&mut self, node: NodeId, change: Change) {
        self.live.apply(node, &change);
        self.sequence += 1;
        self.pending.push(Pending { sequence: self.sequence, node, change });
    }

    /// Makes durable what is pending for a file or directory up to a mark.
    pub(super) fn sync(&mut self, node: NodeId, covered: u64) {
        let (done, kept) = self.split(node, covered);
        done.iter().for_each(|pending| self.durable.apply(pending.node, &pending.change));
        self.pending = kept;
        self.collect_garbage();
    }

    /// A sync that failed: each covered change became durable or never will.
    pub(super) fn fail_sync(&mut self, node: NodeId, covered: u64, mut kept: impl FnMut() -> bool) {
        let (done, rest) = self.split(node, covered);
        for pending in done.iter().filter(|_| kept()) {
            self.durable.apply(pending.node, &pending.change);
        }
        self.pending = rest;
    }

    /// A sync of a directory that failed: each name of a file that it covered became durable or
    /// never will. Names of directories stay pending: a program that makes its directories once
    /// has no other way than to sync them again.
    pub(super) fn fail_sync_dir(
        &mut self,
        node: NodeId,
        covered: u64,
        mut kept: impl FnMut() -> bool,
    ) {
        let (done, mut rest) = self.split(node, covered);
        for pending in done {
            let is_directory = match &pending.change {
                Change::Link { target, .. } => self.live.entries(*target).is_some(),
                _ => false,
            };
            if kept() {
                self.durable.apply(pending.node, &pending.change);
            } else if is_directory {
                rest.push(pending);
            } else {
                self.names_lost = true;
            }
        }
        rest.sort_by_key(|pending| pending.sequence);
        self.pending = rest;
    }

    /// Whether a write here changes nothing but bytes: the file has room for them there, durably,
    /// and nothing of it is pending.
    pub(super) fn overwrites(&self, node: NodeId, offset: u64, len: usize) -> bool {
        let is_settled = self.pending.iter().all(|pending| pending.node != node);
        let end = offset + len as u64;
        let has_room =
            |content: &Content| end <= content.len() && content.missing(offset, len as u64) == 0;
        is_settled && self.durable.content(node).is_some_and(has_room)
    }

    fn split(&mut self, node: NodeId, covered: u64) -> (Vec<Pending>, Vec<Pending>) {
        let is_covered = |it: &Pending| it.node == node && it.sequence <= covered;
        std::mem::take(&mut self.pending).into_iter().partition(is_covered)
    }

    pub(super) fn content(&self, node: NodeId) -> io::Result<&Content> {
        self.live.content(node).ok_or_else(|| io::Error::other("this is no open file"))
    }

    /// Reads; an unreadable sector fails the whole call, as devices do.
    pub(super) fn read(&self, node: NodeId, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let end = offset + bytes.len() as u64;
        let (first, last) = (offset / SECTOR, end.div_ceil(SECTOR));
        if self.latent.range((node, first)..(node, last)).next().is_some() {
            return Err(super::Errno::Io.error());
        }
        Ok(self.content(node)?.read(offset, bytes))
    }

    /// Writes what there is room for.
    pub(super) fn write(&mut self, node: NodeId, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let count = self.room_for(node, offset, bytes.len())?;
        if count == 0 && !bytes.is_empty() {
            return Err(super::Errno::NoSpace.error());
        }
        let end = offset + count as u64;
        for sector in offset.div_ceil(SECTOR)..end / SECTOR {
            self.latent.remove(&(node, sector));
        }
        self.change(node, Change::Write { offset, bytes: Arc::from(&bytes[..count]) });
        Ok(count)
    }

    fn room_for(&mut self, node: NodeId, offset: u64, len: usize) -> io::Result<usize> {
        let Some(mut free) = self.free() else { return Ok(len) };
        let content = self.content(node)?;
        let mut count = 0;
        while count < len {
            let place = offset + count as u64;
            let step = (4096 - place % 4096).min((len - count) as u64);
            let missing = content.missing(place, step);
            if free < missing {
                break;
            }
            free -= missing;
            count += usize::try_from(step).expect("it is at most a block");
        }
        Ok(count)
    }

    /// Bytes that files with a name or a handle take. Those of a file without a name go with its
    /// last handle, as on any disk, and not with the next change: who waits for room that somebody
    /// else's handle keeps would not find it by itself.
    pub(super) fn used(&mut self) -> u64 {
        let is_open = |node| self.handles.get(node).is_some_and(|token| 0 < token.strong_count());
        if !self.nameless.iter().all(is_open) {
            self.collect_garbage();
        }
        self.live
            .nodes
            .keys()
            .filter_map(|node| self.live.content(*node))
            .map(Content::allocated)
            .sum()
    }

    /// Bytes that there is room for, where there is a limit.
    pub(super) fn free(&mut self) -> Option<u64> {
        let capacity = self.capacity?;
        Some(capacity.saturating_sub(self.used()))
    }

    pub(super) fn set_capacity(&mut self, capacity: Option<u64>) {
        self.capacity = capacity;
    }

    pub(super) fn set_len(&mut self, node: NodeId, len: u64) -> io::Result<()> {
        self.content(node)?;
        self.change(node, Change::SetLen(len));
        Ok(())
    }

    pub(super) fn make_unreadable(&mut self, node: NodeId, sector: u64) {
        self.latent.insert((node, sector));
    }

    /// Another file than this one, by chance.
    pub(super) fn other_file(&self, node: NodeId, random: &mut SimRandom) -> Option<NodeId> {
        let files = self.live.nodes.keys().filter(|other| {
            **other != node && self.live.content(**other).is_some_and(|content| content.len() > 0)
        });
        let files: Vec<NodeId> = files.copied().collect();
        (!files.is_empty()).then(|| files[random.index(files.len())])
    }

    /// Finds a file, or makes it where `create` allows. Returns its node.
    pub(super) fn open(
        &mut self,
        path: &Path,
        create: bool,
        must_be_new: bool,
    ) -> io::Result<NodeId> {
        match self.live.find(path) {
            Some(_) if must_be_new => Err(io::ErrorKind::AlreadyExists.into()),
            Some(node) if self.live.content(node).is_none() => {
                Err(io::ErrorKind::IsADirectory.into())
            }
            Some(node) => Ok(node),
            None if !create => Err(io::ErrorKind::NotFound.into()),
            None => {
                let (directory, name) = self.parent(path)?;
                Ok(self.add(directory, name, Node::File(Arc::default())))
            }
        }
    }

    fn parent(&self, path: &Path) -> io::Result<(NodeId, String)> {
        self.live.parent(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn add(&mut self, directory: NodeId, name: String, node: Node) -> NodeId {
        let target = self.next_node;
        self.next_node += 1;
        self.live.nodes.insert(target, node.clone());
        self.durable.nodes.insert(target, node);
        self.change(directory, Change::Link { name, target });
        target
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut directory = super::image::ROOT;
        for name in names(path) {
            directory = match self.live.entry(directory, &name) {
                Some(node) if self.live.entries(node).is_some() => node,
                Some(_) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => self.add(directory, name, Node::Directory(Arc::default())),
            };
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_directory, from) = self.parent(from)?;
        let (to_directory, to) = self.parent(to)?;
        let target = self.live.entry(from_directory, &from);
        let target = target.ok_or(io::ErrorKind::NotFound)?;
        if self.live.entry(to_directory, &to).is_some_and(|old| self.live.entries(old).is_some()) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.change(to_directory, Change::Rename { from_directory, from, to, target });
        self.collect_garbage(); // the file that had the name
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (directory, name) = self.parent(path)?;
        let target = self.live.entry(directory, &name).ok_or(io::ErrorKind::NotFound)?;
        if self.live.entries(target).is_some() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.change(directory, Change::Unlink { name, target });
        self.collect_garbage();
        Ok(())
    }

    pub(super) fn directory(&self, path: &Path) -> io::Result<NodeId> {
        let node = self.live.find(path).ok_or(io::ErrorKind::NotFound)?;
        self.live.entries(node).ok_or(io::ErrorKind::NotADirectory)?;
        Ok(node)
    }

    /// Takes the lock of a file; none when somebody has it.
    pub(super) fn lock(&mut self, node: NodeId) -> Option<Token> {
        if self.locks.get(&node).is_some_and(|held| 0 < held.strong_count()) {
            return None;
        }
        let token = Token::default();
        self.locks.insert(node, Arc::downgrade(&token));
        Some(token)
    }

    /// What a handle of a file holds, so that its bytes outlive its name.
    pub(super) fn handle(&mut self, node: NodeId) -> Token {
        if let Some(token) = self.handles.get(&node).and_then(Weak::upgrade) {
            return token;
        }
        let token = Token::default();
        self.handles.insert(node, Arc::downgrade(&token));
        token
    }

    /// Lets go of files that have neither name nor handle, now or after any crash.
    fn collect_garbage(&mut self) {
        self.handles.retain(|_, token| 0 < token.strong_count());
        let mut live = self.live.reachable();
        let open = self.handles.keys();
        self.nameless = open.filter(|node| !live.contains(*node)).copied().collect();
        live.extend(&self.nameless);
        let mut durable = self.durable.reachable();
        for pending in &self.pending {
            match &pending.change {
                Change::Link { target, .. } | Change::Rename { target, .. } => {
                    durable.insert(*target);
                }
                Change::Write { .. } | Change::SetLen(_) | Change::Unlink { .. } => {}
            }
        }
        durable.extend(&live);
        self.live.retain(&live);
        self.durable.retain(&durable);
        self.pending.retain(|pending| durable.contains(&pending.node));
    }
}
