//! Getting a ring out of the kernel at hand: newest setup first, smaller where memory is short.
//!
//! | rung | flags | kernel |
//! |---|---|---|
//! | 1 | SINGLE_ISSUER, DEFER_TASKRUN, SUBMIT_ALL, CLAMP | 6.1 |
//! | 2 | COOP_TASKRUN, TASKRUN_FLAG, SUBMIT_ALL, CLAMP | 5.19 |
//! | 3 | CLAMP | 5.11 |
//!
//! A rung that the kernel does not know (EINVAL) leads to the next. A ring takes at most a quarter
//! of the memory that its user may lock, so that there is some for others of that user; where that,
//! or what the kernel has left, is too little, the entries are halved, down to 32. The kernel gives
//! back the memory of a closed ring some fifty milliseconds after the close, and that of a setup
//! which failed no sooner. So where even 32 do not fit, but the limit has room for them, that
//! smallest size alone is tried a few times more, with growing pauses: whoever tries often keeps
//! the memory taken by trying.
//! Anything else is the answer, and is explained with its cure.
//! Where a kernel thread is to poll the submission queue (SQPOLL), that is tried first; a kernel
//! that refuses it still gives an ordinary ring, and the refusal is kept for the report.

use std::io;
use std::time::Duration;

use io_uring::{Builder, IoUring, Probe, opcode};

use crate::environment;

/// Fewest entries that are still worth a ring.
const ENTRIES_MIN: u32 = 32;

/// Kernel worker threads of a ring at most: for file work that would block it, and for the rest.
/// Each counts against the process limits of the user or container.
const WORKERS_MAX: [u32; 2] = [16, 4];

/// What became of the setup.
#[derive(Debug, Clone)]
pub(super) struct RingFacts {
    pub(super) flags: &'static [&'static str],
    pub(super) entries: u32,
    /// Why no kernel thread polls although one was asked for.
    pub(super) polling_refusal: Option<String>,
}

struct Rung {
    flags: &'static [&'static str],
    apply: fn(&mut Builder),
}

const LADDER: [Rung; 3] = [
    Rung {
        flags: &["SINGLE_ISSUER", "DEFER_TASKRUN", "SUBMIT_ALL", "CLAMP", "CQSIZE"],
        apply: |builder| {
            builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all();
        },
    },
    Rung {
        flags: &["COOP_TASKRUN", "TASKRUN_FLAG", "SUBMIT_ALL", "CLAMP", "CQSIZE"],
        apply: |builder| {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        },
    },
    Rung { flags: &["CLAMP", "CQSIZE"], apply: |_| {} },
];

/// Tasks cannot be deferred where a kernel thread submits.
const POLLED: Rung = Rung { flags: &["SQPOLL", "SINGLE_ISSUER", "CLAMP", "CQSIZE"], apply: |_| {} };

/// A ring whose completions are polled for; there is no other to fall back to.
const POLLING: Rung = Rung {
    flags: &["IOPOLL", "SINGLE_ISSUER", "CLAMP", "CQSIZE"],
    apply: |builder| {
        builder.setup_iopoll().setup_single_issuer();
    },
};

/// Pauses before a setup without enough lockable memory is tried again. The kernel needs some 50 ms
/// to give memory back, and longer under load.
const MEMORY_PAUSES: [Duration; 5] = [
    Duration::from_millis(40),
    Duration::from_millis(80),
    Duration::from_millis(160),
    Duration::from_millis(240),
    Duration::from_millis(480),
];

/// What the smallest ring locks: a page for its entries, and one for its queues.
const RING_BYTES_MIN: u64 = 2 * 4096;

/// Builds a ring whose submission queue a kernel thread polls, until it has found nothing for as
/// long as `idle`; an ordinary one where that is refused.
pub(super) fn build_polled(entries: u32, idle: Duration) -> Result<(IoUring, RingFacts), String> {
    let idle_milliseconds = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    let mut builder = IoUring::builder();
    builder.dontfork().setup_clamp().setup_cqsize(entries * 2);
    builder.setup_sqpoll(idle_milliseconds).setup_single_issuer();
    let refusal = match builder.build(entries) {
        Ok(ring) => return accept(ring, &POLLED),
        Err(error) => format!("the kernel refuses a thread that polls submissions: {error}"),
    };
    let (ring, facts) = build(entries)?;
    Ok((ring, RingFacts { polling_refusal: Some(refusal), ..facts }))
}

/// Builds a ring that takes direct transfers only, and whose user polls for their completions.
pub(super) fn build_polling(entries: u32) -> Result<(IoUring, RingFacts), String> {
    let entries = affordable(entries, environment::lockable_bytes());
    match build_rung(&POLLING, entries) {
        Err(error) if is(&error, libc::EINVAL) => {
            Err("this kernel has no rings that poll for completions (EINVAL)".to_owned())
        }
        Err(error) => Err(explain(&error)),
        Ok(ring) => accept(ring, &POLLING),
    }
}

/// Builds a ring on the calling thread, the only one that may use it.
pub(super) fn build(entries: u32) -> Result<(IoUring, RingFacts), String> {
    let mut outcome = climb(affordable(entries, environment::lockable_bytes()));
    if outcome.as_ref().is_err_and(|error| is(error, libc::ENOMEM)) {
        outcome = with_memory_to_come(RING_BYTES_MIN, outcome, || climb(ENTRIES_MIN));
    }
    match outcome {
        Err(error) => Err(explain(&error)),
        Ok((ring, rung)) => accept(ring, rung),
    }
}

/// After a refusal for want of lockable memory: tries again as others give theirs back, unless
/// `bytes` are more than may be locked at all.
pub(super) fn with_memory_to_come<T>(
    bytes: u64,
    refused: io::Result<T>,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let limit = environment::lockable_bytes();
    let mut outcome = refused;
    for pause in MEMORY_PAUSES {
        let lacks_memory = outcome.as_ref().is_err_and(|error| is(error, libc::ENOMEM));
        if !lacks_memory || limit.is_some_and(|limit| limit < bytes) {
            break;
        }
        // There is no event for memory that others give back.
        std::thread::park_timeout(pause);
        outcome = attempt();
    }
    outcome
}

/// Builds a ring on the calling thread, which is not to wait for it.
pub(super) fn build_at_once(entries: u32) -> Result<(IoUring, RingFacts), String> {
    match climb(affordable(entries, environment::lockable_bytes())) {
        Err(error) => Err(explain(&error)),
        Ok((ring, rung)) => accept(ring, rung),
    }
}

/// As many of the entries that are wanted as a quarter of the limit allows.
fn affordable(entries_wanted: u32, lockable_bytes: Option<u64>) -> u32 {
    // A submission entry, two completions, and an index.
    let ring_bytes = |entries: u32| u64::from(entries) * (64 + 2 * 16 + 4);
    let mut entries = entries_wanted;
    while ENTRIES_MIN < entries
        && lockable_bytes.is_some_and(|limit| limit / 4 < ring_bytes(entries))
    {
        entries /= 2;
    }
    entries
}

/// The first rung that the kernel takes.
fn climb(entries: u32) -> io::Result<(IoUring, &'static Rung)> {
    let mut outcome = Err(io::Error::from_raw_os_error(libc::EINVAL));
    for rung in &LADDER {
        outcome = build_rung(rung, entries).map(|ring| (ring, rung));
        if !outcome.as_ref().is_err_and(|error| is(error, libc::EINVAL)) {
            break;
        }
    }
    outcome
}

fn is(error: &io::Error, number: i32) -> bool {
    error.raw_os_error() == Some(number)
}

fn build_rung(rung: &Rung, entries_wanted: u32) -> io::Result<IoUring> {
    let mut entries = entries_wanted;
    loop {
        let mut builder = IoUring::builder();
        builder.dontfork().setup_clamp().setup_cqsize(entries * 2);
        (rung.apply)(&mut builder);
        match builder.build(entries) {
            Err(error) if is(&error, libc::ENOMEM) && ENTRIES_MIN < entries => {
                entries /= 2;
            }
            outcome => return outcome,
        }
    }
}

fn accept(ring: IoUring, rung: &Rung) -> Result<(IoUring, RingFacts), String> {
    let parameters = ring.params();
    if !parameters.is_feature_nodrop() || !parameters.is_feature_ext_arg() {
        return Err(
            "the kernel's rings lack NODROP or EXT_ARG; Linux 5.11 or later is needed".to_owned()
        );
    }
    let mut probe = Probe::new();
    // Filters may refuse the question while they allow the operations: the trial decides then.
    if ring.submitter().register_probe(&mut probe).is_ok() {
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
        if !needed.into_iter().all(|code| probe.is_supported(code)) {
            return Err("the kernel's rings lack READ, WRITE or FSYNC".to_owned());
        }
    }
    let mut workers = WORKERS_MAX;
    // Older kernels cannot limit their workers; that costs threads, not correctness.
    let _ = ring.submitter().register_iowq_max_workers(&mut workers);
    let entries = parameters.sq_entries();
    Ok((ring, RingFacts { flags: rung.flags, entries, polling_refusal: None }))
}

/// What a failed setup means, and what to do about it.
pub(super) fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            let limits = environment::limits();
            blocked(limits.io_uring_disabled, limits.seccomp.as_deref())
        }
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring, or a sandbox hides it (ENOSYS); run on \
                               Linux 5.11 or later, outside the sandbox"
                .to_owned()
        }
        Some(libc::ENOMEM) => format!(
            "the memory lock limit is too low even for a ring of {ENTRIES_MIN} entries (ENOMEM); \
             raise it (`ulimit -l`, LimitMEMLOCK) to 8 MiB"
        ),
        Some(libc::EINVAL) => "the kernel refuses every way to set up a ring (EINVAL); Linux 5.11 \
                               or later is needed"
            .to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => {
            format!("no file descriptor is left for a ring ({error}); raise `ulimit -n`")
        }
        _ => format!("setting up a ring failed: {error}"),
    }
}

/// EPERM has two usual causes; the sysctl and the state of the filters tell them apart.
fn blocked(disabled: Option<u32>, seccomp: Option<&str>) -> String {
    match (disabled, seccomp) {
        (Some(1), _) => "io_uring is reserved to a group by the administrator (EPERM; \
                         kernel.io_uring_disabled = 1); join the group of the sysctl \
                         kernel.io_uring_group, or set kernel.io_uring_disabled to 0"
            .to_owned(),
        (Some(level @ 2..), _) => format!(
            "io_uring is switched off by the administrator (EPERM; kernel.io_uring_disabled = \
             {level}); set that sysctl to 0"
        ),
        (_, Some("none")) => "io_uring is forbidden (EPERM) although neither the sysctl \
                              kernel.io_uring_disabled nor a seccomp filter does it; look at the \
                              policy of the security module (SELinux, AppArmor)"
            .to_owned(),
        _ => "io_uring is blocked by a seccomp filter (EPERM; the default of Docker and \
              containerd); allow io_uring_setup, io_uring_enter and io_uring_register in its \
              profile"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_cause_has_a_cure() {
        for (number, cure) in [
            (libc::ENOSYS, "Linux 5.11"),
            (libc::ENOMEM, "ulimit -l"),
            (libc::EMFILE, "ulimit -n"),
            (libc::EINVAL, "Linux 5.11"),
        ] {
            let text = explain(&io::Error::from_raw_os_error(number));

            assert!(text.contains(cure), "{text}");
        }
    }

    #[test]
    fn what_forbids_rings_is_told_apart() {
        for (disabled, seccomp, cause, cure) in [
            (Some(1), Some("none"), "kernel.io_uring_disabled = 1", "kernel.io_uring_group"),
            (Some(2), Some("filter"), "kernel.io_uring_disabled = 2", "sysctl to 0"),
            (Some(0), Some("filter"), "seccomp filter", "io_uring_setup"),
            (None, None, "seccomp filter", "profile"),
            (Some(0), Some("none"), "nor a seccomp filter", "AppArmor"),
        ] {
            let text = blocked(disabled, seccomp);

            assert!(text.contains(cause) && text.contains(cure), "{text}");
        }
    }

    #[test]
    fn a_ring_leaves_room_for_others_of_its_user() {
        for (lockable, entries) in
            [(None, 256), (Some(8 << 20), 256), (Some(64 << 10), 128), (Some(0), 32)]
        {
            assert_eq!(affordable(256, lockable), entries, "{lockable:?}");
        }
    }

    fn refused(number: i32) -> io::Result<u32> {
        Err(io::Error::from_raw_os_error(number))
    }

    /// Each attempt keeps memory for a while itself, so there are few.
    #[test]
    fn memory_that_others_give_back_is_waited_for_in_few_attempts() {
        let mut attempts = 0;
        let third = with_memory_to_come(0, refused(libc::ENOMEM), || {
            attempts += 1;
            if attempts < 3 { refused(libc::ENOMEM) } else { Ok(7) }
        });

        assert_eq!((third.unwrap(), attempts), (7, 3));
    }

    #[test]
    fn what_waiting_cannot_cure_is_not_waited_for() {
        let never = || -> io::Result<u32> { panic!("tried again") };

        // The first is an error of another kind; the second has no limit that would be enough.
        let other = with_memory_to_come(0, refused(libc::EPERM), never);
        assert_eq!(other.unwrap_err().raw_os_error(), Some(libc::EPERM));
        if environment::lockable_bytes().is_some() {
            let beyond = with_memory_to_come(u64::MAX, refused(libc::ENOMEM), never);
            assert_eq!(beyond.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
        }
    }
}
