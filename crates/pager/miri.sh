#!/usr/bin/env bash
# Runs the unit tests of this crate under Miri, and shows that Miri sees the bug that loom cannot:
# an orphaned frame that does not keep the cache alive (a use after free). Takes about five minutes.
#   crates/pager/miri.sh [FILTER]   with a filter: only these tests, no planted bug
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/miri"
cargo +nightly miri test -p nephrite-pager --lib "$@"
if [ $# -ne 0 ]; then exit; fi
if output=$(RUSTFLAGS='--cfg planted_bug="orphan_uncounted"' cargo +nightly miri test \
    -p nephrite-pager --lib a_guard_outlives_file_and_cache 2>&1); then
    echo "planted bug orphan_uncounted: NOT caught"
    exit 1
fi
grep -q "Undefined Behavior" <<<"$output" || { tail -40 <<<"$output"; exit 1; }
echo "planted bug orphan_uncounted: caught by Miri"
