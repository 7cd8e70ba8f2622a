//! Letting go of a simulated machine.

use super::disk::SimDisk;

impl SimDisk {
    /// Stops the machine as [`Self::crash`] does, without a look at what is left. A call in flight
    /// owns its completion, which may own whatever waits for it, a handle of this disk included:
    /// whoever lets go of a machine with calls in flight keeps all of that unless it is switched
    /// off.
    pub fn switch_off(&self) {
        let abandoned = self.machine().abandon();
        drop(abandoned);
    }
}
