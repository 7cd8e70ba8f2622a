#!/usr/bin/env bash
# Shows that the recorded counts find a slower read: with one more hash of the id in every read that
# memory can answer, the check must fail, and name that read. A build of its own: a minute.
set -euo pipefail
cd "$(dirname "$0")/../.."

export RUSTFLAGS='--cfg planted_bug="hash_of_every_read"'
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/planted-instructions"
cargo build -q --profile instructions -p nephrite-instructions
if output=$("$CARGO_TARGET_DIR/instructions/nephrite-instructions" \
    check crates/instructions/counts.txt 2>&1); then
    echo "$output"
    echo "planted slow-down hash_of_every_read: NOT found"
    exit 1
fi
echo "$output"
grep -qE '^get dense .*MORE THAN ALLOWED' <<<"$output" ||
    { echo "planted slow-down hash_of_every_read: the read of dense ids is not named"; exit 1; }
echo "planted slow-down hash_of_every_read: found"
