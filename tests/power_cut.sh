#!/usr/bin/env bash
# Cuts the power under the real engine, on a file system that forgets what was not synced; then
# shows that these cuts find engines that do not sync: with each planted bug in the process that
# writes, something that was acknowledged must be missed.
#   tests/power_cut.sh            all
#   tests/power_cut.sh BUG...     only these
#   NEPHRITE_TEST_ROUNDS=100000 tests/power_cut.sh none     to leave running
# Exit code 77 with the reason where /dev/fuse is missing or nothing may be mounted.
set -euo pipefail
cd "$(dirname "$0")/.."
source .ci/planted.sh
export CARGO_PROFILE_CHECKED_LTO=off CARGO_PROFILE_CHECKED_DEBUG=0

# bug of the process that writes | what it does
bugs="
acknowledged_before_sync|a synced write is acknowledged once it is written
durable_write_unsynced|the I/O layer leaves the sync of a durable write out
directory_sync_skipped|a segment's name is not synced before the manifest names it
log_directory_unsynced|a new log file's name is not synced
"

cuts=$(cargo test -q --profile checked -p nephrite-tests --test it --no-run \
    --message-format json | sed -n 's/.*"executable":"\([^"]*\/it-[^"]*\)".*/\1/p' | tail -1)
[ -n "$cuts" ] || { echo "the tests do not build"; exit 1; }

output=$(NEPHRITE_TEST_ROUNDS="${NEPHRITE_TEST_ROUNDS:-4}" "$cuts" power_cut --nocapture 2>&1) || {
    echo "$output"
    exit 1
}
grep -E "SKIPPED|rounds of power cuts" <<<"$output"
if grep -q SKIPPED <<<"$output"; then exit 77; fi

NEPHRITE_TEST_CRASH_WRITER="$(planted_engine)/crash_writer"
export NEPHRITE_TEST_CRASH_WRITER NEPHRITE_TEST_ROUNDS=60

planted() {
    local bug="$1" output
    if output=$(NEPHRITE_PLANTED_BUG="$bug" timeout 120 "$cuts" power_cuts_lose_nothing 2>&1); then
        echo "planted bug $bug: NOT caught in $NEPHRITE_TEST_ROUNDS power cuts"
        return 1
    fi
    echo "planted bug $bug: $(sed -n '/panicked at/{n;p;q}' <<<"$output" | cut -c1-250)"
}
planted_each planted "$@"
