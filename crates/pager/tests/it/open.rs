//! Opening a cache on a system that has no memory left. The limit is one of Linux shells.

use std::process::Command;

use nephrite_pager::{Pager, PagerConfig, PagerError};

const CACHE_BYTES: usize = 1 << 30;
const CHILD: &str = "NEPHRITE_TEST_LITTLE_MEMORY";

/// Runs itself again under a limit on the address space that the cache does not fit into.
#[test]
fn a_cache_that_memory_does_not_suffice_for_is_an_error_at_open() {
    if std::env::var_os(CHILD).is_some() {
        let error = Pager::new(PagerConfig::new(CACHE_BYTES)).unwrap_err();
        assert!(matches!(error, PagerError::Memory(_)), "{error}");
        return;
    }
    let script = format!("ulimit -v {}; exec \"$0\" \"$@\"", CACHE_BYTES / 1024 - 1);
    let outcome = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "open::a_cache_that_memory_does_not_suffice_for_is_an_error_at_open"])
        .env(CHILD, "1")
        .output()
        .unwrap();

    let output = String::from_utf8_lossy(&outcome.stdout);
    assert!(outcome.status.success() && output.contains("1 passed"), "{output}");
}
