//! One life of a store on a simulated machine, and how it ends.

use nephrite_io::sim::SimDisk;

use crate::runtime::SimRuntime;

/// How a life of the store ended.
pub(crate) enum Fork {
    Crashed,
    Restart,
    Over,
}

/// One life of a store.
pub(crate) struct Life {
    pub(crate) disk: SimDisk,
    pub(crate) runtime: SimRuntime,
    /// The machine was off before: everything on disk is durable.
    pub(crate) cold: bool,
    /// The next life is on the same machine.
    pub(crate) goes_on: bool,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.runtime.kill();
        if !self.goes_on {
            self.disk.switch_off();
        }
    }
}
