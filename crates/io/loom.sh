#!/usr/bin/env bash
# Runs the loom models of this crate: as shipped, and once for each planted bug, which the model
# named beside it must catch with the complaint named beside it. Takes about a minute.
# LOOM_MAX_PREEMPTIONS (default 2) bounds the search.
#   crates/io/loom.sh            all
#   crates/io/loom.sh models     as shipped only
#   crates/io/loom.sh BUG...     only these planted bugs
set -euo pipefail
cd "$(dirname "$0")/../.."
source .ci/planted.sh
export RUSTFLAGS="--cfg loom"
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
# The search is fast enough without link-time optimisation, and the builds are many.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0

# bug | model | part of the complaint
intake=uring::loom_models::intake latch=uring::loom_models::latch
driver=uring::loom_models::driver
gate=uring::loom_models::gate::a_shutdown_waits_for_the_rings_that_are_busy_and_no_other_becomes_so
bugs="
wake_unfenced|$intake::what_was_taken_in_is_served|deadlock
announce_unfenced|$intake::what_was_taken_in_is_served|deadlock
rest_unchecked|$driver::a_thread_that_sleeps_in_its_ring_is_woken|deadlock
wake_unfenced|$driver::a_thread_that_sleeps_in_its_ring_is_woken|deadlock
announce_unfenced|$driver::a_thread_that_sleeps_in_its_ring_is_woken|deadlock
over_relaxed|$intake::a_submitter_that_races_with_the_close_is_served_or_refused|a batch was lost
leave_silent|$intake::a_submitter_that_races_with_the_close_is_served_or_refused|deadlock
gate_unchecked|$intake::a_submitter_that_races_with_the_close_is_served_or_refused|a batch was lost
room_unfenced|$intake::who_waits_for_room_gets_it|deadlock
park_unchecked|$intake::what_was_taken_in_is_served|deadlock
park_unchecked|$intake::a_thread_without_a_ring_is_woken_too|deadlock
wake_unfenced|$driver::every_request_ends_and_so_does_the_thread|deadlock
held_wakes_forgotten|$driver::who_awaits_a_completion_is_woken|deadlock
wake_wiped_out|uring::loom_models::notify::a_wake_during_a_poll_leads_to_another_poll|deadlock
closed_gate_entered|$gate|a ring became busy after the end
last_ring_silent|$gate|deadlock
close_does_not_wait|$gate|a ring
latch_unlocked|$latch::watchers_learn_of_the_last_end|deadlock
latch_early|$latch::watchers_learn_of_the_last_end|operations of one thread are missing
waiter_registers_late|loom_models::completion::a_value_wakes_its_waiter|deadlock
sender_goes_silently|loom_models::completion::a_sender_that_goes_ends_the_wait|deadlock
counted_late|loom_models::ticket::who_awaits_finds_it_counted|not counted yet
orphan_counted_twice|loom_models::ticket::delivered_and_orphaned_make_up_submitted|out of balance
"

planted() { planted_must_fail "$1" "$2" "$3" "$binary" --exact "$2"; }

if [ $# -eq 0 ] || [ "$1" = models ]; then
    cargo test --release -p nephrite-io --lib loom_models
fi
if [ "${1:-}" = models ]; then exit; fi
binary=$(planted_build -p nephrite-io --lib --profile bench)
# With every bug asleep the models pass in this build too.
"$binary" -q loom_models >/dev/null
planted_each planted "$@"
