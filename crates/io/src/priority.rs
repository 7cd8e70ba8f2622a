//! When threads run that share too few processors: those that nobody waits for give way, those that
//! many wait for take short turns.
//!
//! Guarantee: only the calling thread is changed, and what the system refuses is left as it was:
//! nothing but who runs first depends on it. Does nothing but on Linux, where threads have a
//! priority and turns of their own.

use std::time::Duration;

/// Lets other threads go before the calling one when processors are short, for good.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    {
        /// About a third of the processor beside a thread that has not given way.
        const STEPS: i32 = 5;
        // SAFETY: it takes a number and touches no memory of ours. On Linux it is the calling
        // thread's priority, not the process's.
        let _ = unsafe { libc::nice(STEPS) };
    }
}

/// Asks for turns of this length on a processor that others want, for good. A thread has the same
/// share of the processor with short turns as with long ones; but when it wakes up it goes before a
/// running one whose turns are longer, instead of after that one's turn.
///
/// The kernel takes from 0.1 to 100 ms, since 6.12; its own choice is about 3 ms. Earlier ones, and
/// threads of a class with other rules (real time, batch, idle), are left as they are.
pub fn take_turns_of(length: Duration) {
    #[cfg(target_os = "linux")]
    linux::take_turns_of(length);
    #[cfg(not(target_os = "linux"))]
    let _ = length;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::mem::{self, MaybeUninit};
    use std::time::Duration;

    use libc::{SYS_sched_getattr, SYS_sched_setattr, sched_attr};

    /// Of the first version of the structure, which every kernel takes.
    const SIZE: u32 = 48;
    const _: () = assert!(mem::size_of::<sched_attr>() == SIZE as usize);

    /// The calling thread, in these calls.
    const SELF: libc::pid_t = 0;

    pub(super) fn take_turns_of(length: Duration) {
        let Some(mut attributes) = attributes() else { return };
        if i32::try_from(attributes.sched_policy) != Ok(libc::SCHED_OTHER) {
            return;
        }
        attributes.size = SIZE;
        // Of the flags only this one is a state; the rest say how the call is meant.
        attributes.sched_flags &= u64::from(libc::SCHED_FLAG_RESET_ON_FORK.cast_unsigned());
        attributes.sched_runtime = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the structure lives during the call, and has the size that it names.
        let _ = unsafe { libc::syscall(SYS_sched_setattr, SELF, &raw const attributes, 0) };
    }

    /// What the calling thread has: class, niceness, and from 6.12 on the length of its turns.
    pub(super) fn attributes() -> Option<sched_attr> {
        // Miri knows no such call.
        if cfg!(miri) {
            return None;
        }
        let mut attributes = MaybeUninit::<sched_attr>::zeroed();
        // SAFETY: the kernel writes at most as many bytes as it is told, which are ours.
        let outcome =
            unsafe { libc::syscall(SYS_sched_getattr, SELF, attributes.as_mut_ptr(), SIZE, 0) };
        // SAFETY: it is made of numbers, and was zeroed.
        (outcome == 0).then(|| unsafe { attributes.assume_init() })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// What a new thread has after `change`: niceness, and the length of its turns.
    fn after(change: impl FnOnce() + Send + 'static) -> (i32, Duration) {
        let thread = std::thread::Builder::new().spawn(|| {
            change();
            of_this_thread()
        });
        thread.expect("a thread").join().expect("it does not panic")
    }

    fn of_this_thread() -> (i32, Duration) {
        let attributes = linux::attributes().expect("every Linux tells");
        (attributes.sched_nice, Duration::from_nanos(attributes.sched_runtime))
    }

    #[test]
    fn only_the_calling_thread_gives_way() {
        let (before, _) = of_this_thread();

        assert_eq!(after(give_way).0, (before + 5).min(19));
        assert_eq!(of_this_thread().0, before);
    }

    #[test]
    fn the_calling_thread_takes_turns_and_its_niceness_stays() {
        let before = of_this_thread();
        let length = Duration::from_micros(200);

        let (niceness, turns) = after(move || {
            give_way();
            take_turns_of(length);
        });

        // An earlier kernel has no turns to tell of.
        assert_eq!(turns, if before.1.is_zero() { Duration::ZERO } else { length });
        assert_eq!(niceness, (before.0 + 5).min(19));
        assert_eq!(of_this_thread(), before);
    }
}
