//! What ends a ring's sleep: an eventfd that the ring reads.
//!
//! Under the model checker it is a flag behind a lock, with the same meaning: a signal is kept
//! until it is read, several count as one, and a reader sleeps until there is one.

#[cfg(not(loom))]
pub(super) use real::Event;

#[cfg(loom)]
pub(super) use modelled::Event;

#[cfg(not(loom))]
mod real {
    use std::fs::File;
    use std::io::{self, Write};
    use std::os::fd::{AsFd, BorrowedFd};

    use crate::uring::ring;

    #[derive(Debug)]
    pub(in crate::uring) struct Event {
        descriptor: File,
    }

    impl Event {
        pub(in crate::uring) fn new() -> io::Result<Self> {
            Ok(Self { descriptor: ring::event_descriptor()? })
        }

        pub(in crate::uring) fn descriptor(&self) -> BorrowedFd<'_> {
            self.descriptor.as_fd()
        }

        #[expect(
            clippy::host_endian_bytes,
            reason = "an eventfd takes a number as the host stores it"
        )]
        pub(in crate::uring) fn signal(&self) {
            let written = (&self.descriptor).write(&1u64.to_ne_bytes());
            // Only a full counter refuses, and one that is not zero wakes the reader anyway.
            debug_assert!(written.is_ok(), "{written:?}");
        }
    }
}

#[cfg(loom)]
mod modelled {
    use std::io;
    use std::os::fd::BorrowedFd;

    use crate::sync::{Condvar, Mutex, lock};

    #[derive(Debug)]
    pub(in crate::uring) struct Event {
        signalled: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        pub(in crate::uring) fn new() -> io::Result<Self> {
            Ok(Self { signalled: Mutex::new(false), changed: Condvar::new() })
        }

        pub(in crate::uring) fn descriptor(&self) -> BorrowedFd<'_> {
            unreachable!("no model has a ring of the kernel's")
        }

        pub(in crate::uring) fn signal(&self) {
            *lock(&self.signalled) = true;
            self.changed.notify_all();
        }

        /// What the kernel does for a thread that sleeps in a ring whose read is armed.
        #[cfg(test)]
        pub(in crate::uring) fn wait(&self) {
            let mut signalled = lock(&self.signalled);
            while !std::mem::replace(&mut *signalled, false) {
                signalled = crate::sync::wait(&self.changed, signalled);
            }
        }
    }
}
