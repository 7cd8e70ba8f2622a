//! Runs code one processor instruction at a time, and counts those that lock memory.
//!
//! Every lock there is (of std, `async-lock`, `parking_lot`, the C library) is taken by an atomic
//! read-modify-write, and on x86-64 that is an instruction with the prefix `lock`, or an exchange
//! with memory. So when all such instructions are accounted for by something else, no lock was
//! taken. The trap flag of the processor raises SIGTRAP after each instruction; the handler looks
//! at the next one. Needs no right and no debugger. System calls are not looked into.
//! Not counted: what the allocator does (`resident` counts allocations otherwise).

use std::{
    arch::asm,
    mem::MaybeUninit,
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::IN_ALLOCATOR;

/// The instructions counted, by the one thread that is being stepped.
static LOCKED: AtomicUsize = AtomicUsize::new(0);
/// Instructions looked at.
static STEPS: AtomicUsize = AtomicUsize::new(0);
/// One thread at a time.
static STEPPING: Mutex<()> = Mutex::new(());

/// The instructions that lock memory while `work` runs on this thread.
pub(crate) fn locked_while(work: impl FnOnce()) -> usize {
    let _one = STEPPING.lock().unwrap_or_else(PoisonError::into_inner);
    handle_steps();
    LOCKED.store(0, Ordering::Relaxed); // this thread's own, and so below
    STEPS.store(0, Ordering::Relaxed);
    step_from_here();
    work();
    run_from_here();
    assert_ne!(STEPS.load(Ordering::Relaxed), 0, "the processor does not step");
    LOCKED.load(Ordering::Relaxed)
}

fn handle_steps() {
    // SAFETY: all zeros are a valid `sigaction`: no flags, nothing blocked.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = on_step as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler touches atomics and a plain cell of its thread.
    let outcome = unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) };
    assert_eq!(outcome, 0);
}

extern "C" fn on_step(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel hands over the context that it will go on with.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let next = context.uc_mcontext.gregs[libc::REG_RIP as usize];
    STEPS.fetch_add(1, Ordering::Relaxed);
    if !IN_ALLOCATOR.get() && usize::try_from(next).is_ok_and(locks_memory) {
        LOCKED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether the instruction at this address is an atomic read-modify-write.
fn locks_memory(address: usize) -> bool {
    // SAFETY: an instruction about to run is readable; no byte behind its opcode's first two that
    // is not part of it is read.
    let byte = |at: usize| unsafe { *ptr::with_exposed_provenance::<u8>(address + at) };
    for at in 0..15 {
        match byte(at) {
            0xf0 => return true,
            0x66 | 0x67 | 0xf2 | 0xf3 | 0x2e | 0x36 | 0x3e | 0x26 | 0x64 | 0x65 | 0x40..=0x4f => {}
            // An exchange, with memory unless both operands are registers.
            0x86 | 0x87 => return byte(at + 1) >> 6 != 3,
            _ => return false,
        }
    }
    false
}

#[inline(never)]
fn step_from_here() {
    // SAFETY: sets the trap flag, whose handler is there; pushes and pops on a stack that the
    // compiler knows is used.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
}

#[inline(never)]
fn run_from_here() {
    // SAFETY: clears the trap flag; otherwise as above.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
}

#[test]
fn locks_are_seen() {
    let (lock, readers) = (Mutex::new(1), std::sync::RwLock::new(2));
    let mut sum = 0;

    let none = locked_while(|| sum += std::hint::black_box(1));
    let mutex = locked_while(|| sum += *lock.lock().unwrap());
    let read = locked_while(|| sum += *readers.read().unwrap());

    assert_eq!((none, sum), (0, 4));
    assert!(2 <= mutex && 2 <= read, "{mutex} and {read} instead of taking and letting go");
}
