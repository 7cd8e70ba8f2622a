//! The file system that the kernel talks to, and the moment of the cut.
//!
//! One thread answers the kernel, one request after the other. The cut comes before a chosen
//! change: from then on nothing is answered, so that no program sees anything of it, until
//! [`PowerCutDisk::release`]; everything is an error from there on. Between the two the caller
//! kills who works on the disk. A request that is never answered would keep its process from
//! ending, so dropping the disk releases as well.
//!
//! Writes are never gathered in the kernel (no writeback cache): each reaches this file system
//! before the system call returns. Pages that were read may stay in the kernel's cache until the
//! disk is unmounted; what a cut leaves is mounted as another disk.

use std::{
    ffi::{CString, OsStr},
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rand::Rng;

use super::{
    image::Image,
    tree::{Directory, File, Losses, Node, Tree},
};
use crate::process::unmount_at_once;

/// How long the kernel may rely on names and attributes: nobody else changes them.
const VALID: Duration = Duration::from_secs(3600);

/// A mounted disk whose power can be cut.
#[derive(Debug)]
pub struct PowerCutDisk {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    mounted_at: CString,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled at the cut and at the release.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    tree: Tree,
    /// Changes and syncs until the cut; none: it comes when it is asked for.
    left: Option<u64>,
    power: Power,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// Cut, and nobody is told.
    Cut,
    /// Cut, and everything fails.
    Released,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, power: Power) -> MutexGuard<'_, State> {
        let waited = self.changed.wait_while(self.state(), |state| state.power == power);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, for a look; an error once the power is cut and that may be told.
    fn look(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.wait_while(Power::Cut);
        if state.power == Power::On { Ok(state) } else { Err(Errno::EIO) }
    }

    /// The state, for a change or a sync, unless the cut comes before it.
    fn change(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.look()?;
        match &mut state.left {
            Some(0) => {
                // Under the same lock: it must not undo a release.
                state.power = Power::Cut;
                drop(state);
                self.changed.notify_all();
                return self.look();
            }
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(state)
    }
}

impl PowerCutDisk {
    /// Mounts what an image holds over an empty directory. The power is cut before the change
    /// after so many, if a number is given; syncs are counted as changes.
    ///
    /// # Errors
    /// What the operating system says, where there is no `/dev/fuse` or nothing may be mounted.
    pub fn mount(image: &Image, directory: &Path, changes: Option<u64>) -> io::Result<Self> {
        let state = State { tree: Tree::new(image), left: changes, power: Power::On };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut config = Config::default();
        config.mount_options.push(MountOption::FSName("nephrite-power-cut".to_owned()));
        let mounted_at = CString::new(directory.as_os_str().as_encoded_bytes())?;
        let session = fuser::spawn_mount(Answers(Arc::clone(&shared)), directory, &config)?;
        Ok(Self { shared, session: Some(session), mounted_at })
    }

    /// Cuts the power now, unless it is cut.
    pub fn cut_now(&self) {
        let mut state = self.shared.state();
        if state.power == Power::On {
            state.power = Power::Cut;
            drop(state);
            self.shared.changed.notify_all();
        }
    }

    /// Waits until the power is cut.
    pub fn wait_for_cut(&self) {
        drop(self.shared.wait_while(Power::On));
    }

    /// Lets those who wait for the disk see errors. To be called when they are killed.
    pub fn release(&self) {
        self.shared.state().power = Power::Released;
        self.shared.changed.notify_all();
    }

    /// Ends the disk and decides what is left of it.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn into_image(mut self, random: &mut impl Rng) -> io::Result<(Image, Losses)> {
        self.end()?;
        Ok(self.shared.state().tree.cut(random))
    }

    fn end(&mut self) -> io::Result<()> {
        self.release();
        let Some(session) = self.session.take() else { return Ok(()) };
        // At once, since rings close their files a little after their process has ended.
        unmount_at_once(&self.mounted_at)?;
        match session.join() {
            // How the kernel ends a conversation, when the thread waits for a request and when it
            // has just taken one.
            Err(error) if error.kind() != io::ErrorKind::ConnectionAborted => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for PowerCutDisk {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{} stays mounted: {error}", self.mounted_at.to_string_lossy());
        }
    }
}

/// What the kernel is answered.
#[derive(Debug)]
struct Answers(Arc<Shared>);

/// What the kernel is told of a file.
fn attributes(number: u64, node: &Node) -> FileAttr {
    let (kind, size, perm) = match node {
        Node::File(file) => (FileType::RegularFile, file.bytes.len() as u64, 0o644),
        Node::Directory(_) => (FileType::Directory, 0, 0o755),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl State {
    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        Ok(attributes(number, self.tree.nodes.get(&number).ok_or(Errno::ENOENT)?))
    }

    fn file(&mut self, number: INodeNo) -> Result<&mut File, Errno> {
        self.tree.file(number.0).ok_or(Errno::EISDIR)
    }

    fn directory(&mut self, number: INodeNo) -> Result<&mut Directory, Errno> {
        self.tree.directory(number.0).ok_or(Errno::ENOTDIR)
    }

    fn named(&mut self, parent: INodeNo, name: &OsStr) -> Result<u64, Errno> {
        self.directory(parent)?.names.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn make(&mut self, parent: INodeNo, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        if self.directory(parent)?.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.tree.add(node);
        self.directory(parent)?.set(name, number);
        self.attributes(number)
    }
}

impl Answers {
    fn lookup(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let mut state = self.0.look()?;
        let number = state.named(parent, name)?;
        state.attributes(number)
    }

    fn set_length(&self, file: INodeNo, length: Option<u64>) -> Result<FileAttr, Errno> {
        let Some(length) = length else { return self.0.look()?.attributes(file.0) };
        let mut state = self.0.change()?;
        let length = usize::try_from(length).map_err(|_| Errno::EFBIG)?;
        state.file(file)?.set_length(length);
        state.attributes(file.0)
    }

    fn remove_directory(&self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let mut state = self.0.change()?;
        let number = state.named(parent, name)?;
        if !state.directory(INodeNo(number))?.names.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        state.directory(parent)?.remove(name);
        Ok(())
    }

    fn unlink(&self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let mut state = self.0.change()?;
        let number = state.named(parent, name)?;
        state.file(INodeNo(number))?;
        state.directory(parent)?.remove(name);
        Ok(())
    }

    fn rename(
        &self,
        (parent, name): (INodeNo, &OsStr),
        (new_parent, new_name): (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if parent != new_parent {
            return Err(Errno::EXDEV);
        }
        let mut state = self.0.change()?;
        let number = state.named(parent, name)?;
        if flags.bits() != 0 {
            return Err(Errno::EINVAL);
        }
        state.directory(parent)?.rename(name, new_name, number);
        Ok(())
    }

    fn write(
        &self,
        file: INodeNo,
        offset: u64,
        bytes: &[u8],
        flags: OpenFlags,
    ) -> Result<u32, Errno> {
        let mut state = self.0.change()?;
        let offset = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        // O_SYNC contains the bit of O_DSYNC.
        let is_synced = flags.0 & libc::O_DSYNC != 0;
        state.file(file)?.write(offset, bytes, is_synced);
        u32::try_from(bytes.len()).map_err(|_| Errno::EINVAL)
    }

    fn sync(&self, file: INodeNo) -> Result<(), Errno> {
        self.0.change()?.file(file).map(File::sync)
    }

    fn sync_directory(&self, directory: INodeNo) -> Result<(), Errno> {
        self.0.change()?.directory(directory).map(Directory::sync)
    }
}

fn done(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn entry(reply: ReplyEntry, outcome: Result<FileAttr, Errno>) {
    match outcome {
        Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn attribute(reply: ReplyAttr, outcome: Result<FileAttr, Errno>) {
    match outcome {
        Ok(attributes) => reply.attr(&VALID, &attributes),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Answers {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.lookup(parent, name));
    }

    fn getattr(&self, _: &Request, file: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attribute(reply, self.0.look().and_then(|state| state.attributes(file.0)));
    }

    fn setattr(
        &self,
        _: &Request,
        file: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        attribute(reply, self.set_length(file, size));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self
            .0
            .change()
            .and_then(|mut state| state.make(parent, name, Node::Directory(Directory::default())));
        entry(reply, made);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.0.change();
        let made = made.and_then(|mut it| it.make(parent, name, Node::File(File::default())));
        match made {
            Ok(attributes) => {
                let (handle, flags) = (FileHandle(0), FopenFlags::empty());
                reply.created(&VALID, &attributes, Generation(0), handle, flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.unlink(parent, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(reply, self.remove_directory(parent, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(reply, self.rename((parent, name), (new_parent, new_name), flags));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.look() {
            Ok(mut state) => match state.file(file) {
                Ok(file) => {
                    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
                    let (start, end) = (at(offset), at(offset.saturating_add(size.into())));
                    let length = file.bytes.len();
                    reply.data(&file.bytes[start.min(length)..end.min(length)]);
                }
                Err(errno) => reply.error(errno),
            },
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        file: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.write(file, offset, bytes, flags) {
            Ok(count) => reply.written(count),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok(); // the end of a descriptor, and no sync
    }

    fn fsync(&self, _: &Request, file: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.sync(file));
    }

    fn fsyncdir(&self, _: &Request, of: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(reply, self.sync_directory(of));
    }

    fn readdir(
        &self,
        _: &Request,
        of: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.0.look().and_then(|mut state| {
            let names = state.directory(of)?.names.clone();
            names
                .into_iter()
                .map(|(name, number)| Ok((name, state.attributes(number)?)))
                .collect::<Result<Vec<_>, Errno>>()
        });
        let names = match listed {
            Ok(names) => names,
            Err(errno) => return reply.error(errno),
        };
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for ((name, attributes), next) in names.into_iter().zip(1..).skip(skipped) {
            if reply.add(attributes.ino, next, attributes.kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (blocks, files) = (1 << 20, 1 << 20);
        reply.statfs(blocks, blocks, blocks, files, files, 4096, 255, 4096);
    }
}
