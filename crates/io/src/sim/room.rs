//! How much fits on a simulated disk.

use super::SimDisk;

impl SimDisk {
    /// Replaces the room on the disk; none for no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.machine().storage.set_capacity(bytes);
    }

    /// Bytes that files take.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.machine().storage.used()
    }

    /// Bytes that there is room for; without a limit more than there can be.
    pub(super) fn free(&self) -> Option<u64> {
        Some(self.machine().storage.free().unwrap_or(u64::MAX))
    }
}
