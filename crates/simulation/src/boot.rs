//! A machine with a store on it, from an image to an image: what scripted scenarios share.

use std::{path::Path, sync::Arc};

use nephrite::{Config, Disk, Error, Store, runtime::Runtime};
use nephrite_io::sim::{Image, SimDisk, SimOptions};

use crate::runtime::{Ended, SimRuntime};

/// One life of a machine. Dropped, it is switched off.
#[derive(Debug)]
pub(crate) struct Boot {
    pub(crate) disk: SimDisk,
    pub(crate) runtime: SimRuntime,
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.runtime.kill();
        self.disk.switch_off();
    }
}

/// A machine without a store.
pub(crate) fn blank() -> Image {
    let mut image = Image::new();
    image.create_dir(Path::new("/sim"));
    image
}

impl Boot {
    pub(crate) fn new(options: SimOptions, image: Image, seed: u64) -> Self {
        let disk = SimDisk::with_image(options, image);
        let runtime = SimRuntime::new(seed, disk.clone());
        Self { disk, runtime }
    }

    /// Opens the store, or makes it, with the smallest configuration.
    pub(crate) fn open(&self) -> Ended<Result<Store, Error>> {
        self.open_with(Config::new().memory_limit(4 << 20).memtable_bytes(128 << 10))
    }

    /// As [`Self::open`], with more memory.
    pub(crate) fn open_within(&self, memory_bytes: u64) -> Ended<Result<Store, Error>> {
        self.open_with(Config::new().memory_limit(memory_bytes))
    }

    fn open_with(&self, config: Config) -> Ended<Result<Store, Error>> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.reopen());
        let runtime: Arc<dyn Runtime> = Arc::new(self.runtime.clone());
        let config = config.wal_segment_bytes(256 << 10).disk(disk).runtime(runtime);
        self.runtime.run(Store::open_or_create("/sim/store", config))
    }
}
