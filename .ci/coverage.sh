#!/usr/bin/env bash
# Line coverage of format, pager, io and engine by their own tests at small scale, or by all.
#
#   .ci/coverage.sh           runs the tests, prints each crate's coverage and its least covered files
#   .ci/coverage.sh --all     with the simulation and the integration tests, which takes much longer
#   .ci/coverage.sh --report  prints it again for the last run
#
# Fails when a crate is at 85 % or below. Not counted: code of tests (`tests.rs`, folders of tests,
# `mod tests` at the end of a file), loom models, planted bugs, and what only other systems compile.
# What only a child process that is killed or has no rights runs is not seen: it counts as missed.
# Needs cargo-llvm-cov and llvm-tools, which it installs.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0 LC_ALL=C
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_TEST_DEBUG=0
measured=(format pager io engine)
tested=(-p nephrite-format -p nephrite-io -p nephrite-pager -p nephrite)
list="${CARGO_TARGET_DIR:-target}/coverage.lcov"

command -v cargo-llvm-cov >/dev/null || cargo install -q --locked cargo-llvm-cov
rustup component add llvm-tools >/dev/null 2>&1
case "${1:-}" in
    '' | --report) ;;
    --all) tested+=(-p nephrite-simulation -p nephrite-tests) ;;
    *) sed -n '2,/^set/p' "$0" | grep '^#'; exit 64 ;;
esac
if [ "${1:-}" != --report ]; then
    cargo llvm-cov clean --workspace
    # A test that fails is for `cargo test` to tell; what it ran counts all the same.
    cargo llvm-cov --no-report --no-fail-fast --no-cfg-coverage "${tested[@]}" ||
        echo "-- some tests failed under the instrumentation"
fi
cargo llvm-cov report --lcov --output-path "$list"

awk -v crates="${measured[*]}" '
    # The line from which on a file is tests.
    function tests_from(file,    line, at, before) {
        at = 0
        while ((getline line < file) > 0) {
            at++
            if (line ~ /^mod tests \{/ && before ~ /^#\[cfg/) { close(file); return at }
            before = line
        }
        close(file)
        return at + 1
    }
    BEGIN { count = split(crates, order, " ") }
    /^SF:/ {
        file = substr($0, 4)
        skipped = file !~ /\/crates\/[a-z]+\/src\// ||
            file ~ /\/tests\/|\/tests\.rs$|\/stress\.rs$|\/loom_models|\/planted\.rs$/
        crate = file
        sub(/.*\/crates\//, "", crate)
        name = crate
        sub(/\/.*/, "", crate)
        if (!skipped) end = tests_from(file)
    }
    /^DA:/ && !skipped {
        split(substr($0, 4), entry, ",")
        if (end <= entry[1] + 0) next
        lines[crate]++; lines_of[name]++
        if (entry[2] + 0 == 0) { missed[crate]++; missed_of[name]++ }
    }
    END {
        printf "%-8s %7s %7s %8s\n", "crate", "lines", "missed", "covered"
        for (at = 1; at <= count; at++) {
            crate = order[at]
            if (lines[crate] == 0) { printf "%-8s nothing was measured\n", crate; low = 1; continue }
            covered = 100 * (1 - missed[crate] / lines[crate])
            printf "%-8s %7d %7d %7.2f%%\n", crate, lines[crate], missed[crate], covered
            if (covered <= 85) low = 1
        }
        for (name in lines_of) {
            split(name, part, "/")
            covered = 100 * (1 - missed_of[name] / lines_of[name])
            if (index(" " crates " ", " " part[1] " ") && covered < 75)
                printf "least: %6.2f%% of %4d lines: %s\n", covered, lines_of[name], name | "sort"
        }
        exit low
    }' "$list"
