//! The simulated disk itself: what it promises, what it takes back in a crash, and every way in
//! which it can be told to go wrong. One named test for each fault of a disk.

mod agreement;
mod crashes;
mod names;
mod reads;
mod schedule;
mod writes;

use std::future::Future;
use std::path::Path;

use nephrite_io::memory::AlignedBuf;
use nephrite_io::sim::{Fate, Fault, FaultPlan, FaultRule, Image, SimDisk, SimOptions};
use nephrite_io::{
    Disk, FileHandle, IoBuffer, IoError, IoOperation, OpenOptions, read, sync, write,
};

use crate::support::assert_balanced;

const SECTOR: usize = 512;

/// A machine with one file of two durable blocks of ones, by name too.
struct Rig {
    disk: SimDisk,
    file: FileHandle,
}

fn path() -> &'static Path {
    Path::new("/data/file")
}

impl Rig {
    fn new(options: SimOptions) -> Self {
        let mut image = Image::new();
        image.create_dir(Path::new("/data"));
        let disk = SimDisk::with_image(options, image);
        let rig = Self { file: create(&disk, path()), disk };
        rig.write(0, 1, 8192).unwrap();
        rig.sync().unwrap();
        rig.wait(rig.disk.sync_dir(Path::new("/data"))).unwrap();
        rig
    }

    /// With a fault that strikes the next call of this kind.
    fn with_fault(fault: Fault, operation: IoOperation) -> Self {
        let rig = Self::new(SimOptions::new(1));
        rig.disk.set_faults(FaultPlan::new().with(FaultRule::new(fault, &[operation])));
        rig
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.disk.block_on(future).expect("the machine runs")
    }

    fn write(&self, offset: u64, byte: u8, len: usize) -> Result<(), IoError> {
        self.wait(write(&self.disk, &self.file, offset, filled(byte, len))).map(drop)
    }

    fn sync(&self) -> Result<(), IoError> {
        self.wait(sync(&self.disk, &self.file))
    }

    fn read(&self, offset: u64, len: usize) -> Result<Vec<u8>, IoError> {
        let buffer = self.wait(read(&self.disk, &self.file, offset, filled(0, len)))?;
        Ok(buffer.as_slice().to_vec())
    }

    /// The file if every pending change of the crash has this fate.
    fn after_crash(&self, fate: &Fate) -> Option<Vec<u8>> {
        let crash = self.disk.crash_state();
        crash.image(&vec![fate.clone(); crash.pending()]).file(path())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() && !self.disk.has_crashed() {
            self.disk.run_until_idle();
            assert_balanced(self.disk.stats());
        }
    }
}

fn create(disk: &SimDisk, path: &Path) -> FileHandle {
    let options = OpenOptions::read_write().create();
    disk.block_on(disk.open(path, options)).expect("the machine runs").unwrap()
}

fn filled(byte: u8, len: usize) -> IoBuffer {
    let mut buffer = AlignedBuf::zeroed(len).unwrap();
    buffer.fill(byte);
    IoBuffer::Owned(buffer)
}
