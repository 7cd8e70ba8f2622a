//! Priority of threads that nobody waits for.

/// Lets other threads go before the calling one when processors are short, for good. What the
/// system refuses is left as it was: only who runs first depends on it. Does nothing but on Linux,
/// where a thread has a priority of its own.
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

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// The nice value of the calling thread: the nineteenth field of its `stat`.
    fn niceness() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("every Linux has it");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in brackets");
        let nice = fields.split(' ').nth(16).expect("there are over forty fields");
        nice.parse().expect("it is a number")
    }

    #[test]
    fn only_the_calling_thread_gives_way() {
        let before = niceness();
        let other = std::thread::Builder::new().spawn(|| {
            give_way();
            niceness()
        });
        let other = other.expect("a thread").join().expect("it does not panic");
        assert_eq!(other, (before + 5).min(19));
        assert_eq!(niceness(), before);
    }
}
