//! One life of a simulated machine with a store on it. Dropped, it is switched off.

use std::{path::Path, sync::Arc};

use nephrite::{Config, Disk, Error, Store, runtime::Runtime};
use nephrite_io::sim::{Image, SimDisk, SimOptions};
use nephrite_simulation::{Ended, SimRuntime};

/// Where the store is.
pub(super) const STORE: &str = "/sim/store";

#[derive(Debug)]
pub(super) struct Machine {
    pub(super) disk: SimDisk,
    runtime: SimRuntime,
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.runtime.kill();
        self.disk.switch_off();
    }
}

/// A disk without a store.
pub(super) fn blank() -> Image {
    let mut image = Image::new();
    image.create_dir(Path::new("/sim"));
    image
}

impl Machine {
    pub(super) fn new(options: SimOptions, image: Image, seed: u64) -> Self {
        let disk = SimDisk::with_image(options, image);
        let runtime = SimRuntime::new(seed, disk.clone());
        Self { disk, runtime }
    }

    /// A machine on which nothing goes wrong and every call is served at once.
    pub(super) fn healthy(image: Image) -> Self {
        Self::new(SimOptions::new(1).immediate(), image, 1)
    }

    /// The smallest configuration, so that segments, evictions and recycling happen early.
    pub(super) fn config(&self) -> Config {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.reopen());
        let runtime: Arc<dyn Runtime> = Arc::new(self.runtime.clone());
        Config::new()
            .memory_limit(4 << 20)
            .memtable_bytes(64 << 10)
            .wal_segment_bytes(256 << 10)
            .disk(disk)
            .runtime(runtime)
    }

    pub(super) fn open(&self) -> Result<Result<Store, Error>, Crashed> {
        self.run(Store::open_or_create(STORE, self.config()))
    }

    /// Runs a future to its end.
    ///
    /// # Panics
    /// When nothing can go on although the future waits.
    pub(super) fn run<T>(&self, future: impl Future<Output = T>) -> Result<T, Crashed> {
        match self.runtime.run(future) {
            Ended::Done(value) => Ok(value),
            Ended::Crashed => Err(Crashed),
            Ended::Stuck => panic!("an operation never ends"),
        }
    }

    /// The same on a machine that was not asked to crash.
    pub(super) fn run_through<T>(&self, future: impl Future<Output = T>) -> T {
        self.run(future).expect("this machine does not crash")
    }

    /// Lets go of a store, however it is.
    pub(super) fn let_go(&self, store: &Store) {
        // A store that refuses to close is let go all the same, and a crash is what was asked for.
        let _ = self.run(store.close());
        let _ = self.runtime.run_until_idle();
    }
}

/// The machine crashed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crashed;
