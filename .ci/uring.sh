#!/usr/bin/env bash
# Runs the tests of io and engine where rings work, where little memory may be locked, and where a
# system call filter forbids rings.
#   .ci/uring.sh [LEG...]      default: all of root user-64 user-512 user-8192 filtered
#
#   root       as root, rings forced: nothing may be skipped
#   user-N     as an unprivileged user who may lock N KiB, rings forced: no ring test may be skipped
#   filtered   under a filter that denies io_uring_setup: the engine has to degrade by itself
# Tests that leave something out print SKIPPED; each leg prints how often.
set -euo pipefail
cd "$(dirname "$0")/.."
legs=("$@")
[ $# -gt 0 ] || legs=(root user-64 user-512 user-8192 filtered)
[ "$(id -u)" -eq 0 ] || { echo "uring.sh: needs root, to become another user"; exit 64; }

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
nobody=65534
seconds="${URING_TEST_SECONDS:-120}"

# An unprivileged user may not be able to reach the target directory.
cargo test -q --no-run --lib --tests -p nephrite-io -p nephrite --message-format json >"$work/json"
cargo build -q -p nephrite-io --example without_uring --message-format json >"$work/launcher.json"
executables() { sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$1"; }
mkdir "$work/bin"
for binary in $(executables "$work/json"); do cp "$binary" "$work/bin/"; done
[ "$(ls "$work/bin" | wc -l)" -ge 4 ] || { echo "uring.sh: test binaries are missing"; exit 1; }
cp "$(executables "$work/launcher.json" | tail -1)" "$work/without_uring"

as_user() { setpriv --reuid="$nobody" --regid="$nobody" --clear-groups "$@"; }

# leg COMMAND...: every test binary under the command, in a scratch directory of its own
leg() {
    local name="$1" threads="$2" binary code=0 log="$work/log.$1" scratch="$work/scratch.$1"
    shift 2
    mkdir "$scratch"
    chmod 1777 "$scratch"
    for binary in "$work"/bin/*; do
        (cd "$scratch" && TMPDIR="$scratch" timeout --kill-after 10 "$seconds" "$@" "$binary" \
            --nocapture ${threads:+--test-threads="$threads"}) </dev/null >>"$log" 2>&1 || code=$?
    done
    local passed skipped
    passed=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "$log" | paste -sd+ | bc)
    skipped=$(grep -c '^SKIPPED' "$log" || true)
    echo "-- $name: ${passed:-0} passed, $skipped skipped, exit code $code"
    [ "$code" -eq 0 ] || { grep -E '\.\.\. FAILED|^test result: FAILED|^uring.sh|it::|memory allocation' "$log" | tail -30; return 1; }
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

failed=0
for name in "${legs[@]}"; do
    unset NEPHRITE_TEST_WITHOUT_URING NEPHRITE_TEST_WITHOUT_MOUNTS NEPHRITE_TEST_RING_ENTRIES
    may_skip='^$'
    export NEPHRITE_TEST_BACKEND=uring
    case "$name" in
        root) leg root "" env || failed=1 ;;
        user-*)
            # Mounts of an unprivileged user need user namespaces, which not every machine allows.
            if ! as_user unshare --user --map-root-user --mount true 2>/dev/null; then
                export NEPHRITE_TEST_WITHOUT_MOUNTS=1
                may_skip='no mounts'
            fi
            bytes=$((${name#user-} * 1024))
            threads=""
            # A limit that holds few rings: one test after the other.
            [ "$bytes" -gt 524288 ] || threads=1
            [ "$bytes" -gt 131072 ] || export NEPHRITE_TEST_RING_ENTRIES=32
            leg "$name" "$threads" prlimit --memlock="$bytes:$bytes" \
                setpriv --reuid="$nobody" --regid="$nobody" --clear-groups || failed=1
            ;;
        filtered)
            unset NEPHRITE_TEST_BACKEND
            export NEPHRITE_TEST_WITHOUT_URING=1
            leg filtered "" "$work/without_uring" || failed=1
            ;;
        *) echo "no leg is named $name"; exit 64 ;;
    esac
done
exit "$failed"
