#!/usr/bin/env bash
# Runs the tests of io and engine where rings work, where little memory may be locked, and where a
# system call filter forbids rings.
#   .ci/uring.sh [LEG...]      default: all of root user-64 user-512 user-8192 filtered
#
#   root       as root, rings forced: nothing may be skipped
#   user-N     as an unprivileged user who may lock N KiB, rings forced: no ring test may be skipped
#   filtered   under a filter that denies io_uring_setup: the engine has to degrade by itself
# Tests that leave something out print SKIPPED; each leg prints how often.
#
# Linux counts locked memory per user, and gives back that of a closed ring only some time later. So
# where the limit holds few rings, each test is a process and a user of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
legs=("$@")
[ $# -gt 0 ] || legs=(root user-64 user-512 user-8192 filtered)
[ "$(id -u)" -eq 0 ] || { echo "uring.sh: needs root, to become another user"; exit 64; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
group=65534
# Far above those that systems give out, and others in another run at the same time.
first_user=$((1000000 + $$ % 1000 * 5000))
# Tests that panic on purpose would print theirs.
export RUST_BACKTRACE=0
seconds="${URING_TEST_SECONDS:-300}"

# With the features of the whole workspace: these are the binaries of `cargo test`, built once.
# An unprivileged user may not be able to reach the target directory.
cargo test -q --no-run --lib --tests --message-format json |
    grep -E '"manifest_path":"[^"]*/crates/(io|engine)/Cargo.toml"' >"$work/json"
cargo build -q -p nephrite-io --example without_uring --message-format json >"$work/launcher.json"
executables() { sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$1"; }
mkdir "$work/bin"
for binary in $(executables "$work/json"); do cp "$binary" "$work/bin/"; done
[ "$(ls "$work/bin" | wc -l)" -ge 4 ] || { echo "uring.sh: test binaries are missing"; exit 1; }
cp "$(executables "$work/launcher.json" | tail -1)" "$work/without_uring"

as_user() {
    local user="$1"
    shift
    setpriv --reuid="$user" --regid="$group" --clear-groups "$@"
}

# all_at_once NAME COMMAND...: every test binary under the command
all_at_once() {
    local binary code=0 log="$work/log.$1" scratch="$work/scratch.$1"
    shift
    for binary in "$work"/bin/*; do
        (cd "$scratch" && TMPDIR="$scratch" timeout --kill-after 10 "$seconds" "$@" "$binary" \
            --nocapture) </dev/null >>"$log" 2>&1 || code=$?
    done
    return "$code"
}

# one_by_one NAME BYTES USER: every test in a process of its own, as a user of its own
one_by_one() {
    local binary name bytes="$2" user="$3"
    export log="$work/log.$1" scratch="$work/scratch.$1"
    for binary in "$work"/bin/*; do
        for name in $("$binary" --list --format terse | sed -n 's/: test$//p'); do
            user=$((user + 1))
            echo "$bytes $user $binary $name"
        done
    done | xargs -P 2 -n 4 bash -c 'one_test "$@"' one_test || return 101
}
one_test() {
    local bytes="$1" user="$2" binary="$3" name="$4" code=0 output="$scratch.$2"
    (cd "$scratch" && TMPDIR="$scratch" timeout --kill-after 10 "$seconds" \
        prlimit --memlock="$bytes:$bytes" \
        setpriv --reuid="$user" --regid="$group" --clear-groups \
        "$binary" --exact "$name" --nocapture --test-threads=1) </dev/null >"$output" 2>&1 || code=$?
    flock "$log" bash -c 'cat "$1" >>"$2"' - "$output" "$log"
    rm "$output"
    return "$code"
}
export -f one_test
export seconds group

# leg NAME HOW...: the tests in a scratch directory of their own, and the count of what was left out
leg() {
    local name="$1" how="$2" code=0 log="$work/log.$1" scratch="$work/scratch.$1"
    shift 2
    mkdir "$scratch"
    chmod 1777 "$scratch"
    "$how" "$name" "$@" || code=$?
    local passed skipped
    passed=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "$log" | paste -sd+ | bc)
    skipped=$(grep -c '^SKIPPED' "$log" || true)
    echo "-- $name: ${passed:-0} passed, $skipped skipped, exit code $code"
    [ "$code" -eq 0 ] || { grep -E '\.\.\. FAILED|^test result: FAILED|^uring.sh|memory allocation' "$log" | tail -30; grep -A3 'panicked at' "$log" | tail -60; return 1; }
    [ "${passed:-0}" -gt 0 ] || return 1
    case "$name" in
        filtered) [ "$skipped" -gt 0 ] || { echo "the count of skipped tests does not count"; return 1; } ;;
        *)
            if grep '^SKIPPED' "$log" | grep -v "$may_skip" | sort | uniq -c | grep .; then
                echo "a test was skipped where rings work"
                return 1
            fi
            ;;
    esac
}

# run_leg NAME USER
run_leg() {
    local name="$1" user="$2" bytes
    may_skip='^$'
    export NEPHRITE_TEST_BACKEND=uring
    case "$name" in
        root) leg root all_at_once env ;;
        user-*)
            # Mounts of an unprivileged user need user namespaces, which not every machine allows.
            if ! as_user "$user" unshare --user --map-root-user --mount true 2>/dev/null; then
                export NEPHRITE_TEST_WITHOUT_MOUNTS=1
                may_skip='no mounts'
            fi
            bytes=$((${name#user-} * 1024))
            [ "$bytes" -gt 131072 ] || export NEPHRITE_TEST_RING_ENTRIES=32
            if [ "$bytes" -le 524288 ]; then
                leg "$name" one_by_one "$bytes" "$user"
            else
                leg "$name" all_at_once prlimit --memlock="$bytes:$bytes" \
                    setpriv --reuid="$user" --regid="$group" --clear-groups
            fi
            ;;
        filtered)
            unset NEPHRITE_TEST_BACKEND
            export NEPHRITE_TEST_WITHOUT_URING=1
            leg filtered all_at_once "$work/without_uring"
            ;;
        *) echo "no leg is named $name"; return 64 ;;
    esac
}

unset NEPHRITE_TEST_WITHOUT_URING NEPHRITE_TEST_WITHOUT_MOUNTS NEPHRITE_TEST_RING_ENTRIES
failed=0 user="$first_user"
for name in "${legs[@]}"; do
    (run_leg "$name" "$user") || failed=1
    user=$((user + 1000))
done
exit "$failed"
