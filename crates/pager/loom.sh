#!/usr/bin/env bash
# Runs the loom models of this crate: as shipped, and once for each planted bug, which the model
# named beside it must catch with the complaint named beside it. Takes a few minutes.
# LOOM_MAX_PREEMPTIONS (default 2) bounds the search.
#   crates/pager/loom.sh            all
#   crates/pager/loom.sh models     as shipped only
#   crates/pager/loom.sh BUG...     only these planted bugs
set -euo pipefail
cd "$(dirname "$0")/../.."
source .ci/planted.sh
export RUSTFLAGS="--cfg loom"
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-2}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
# The search is fast enough without link-time optimisation, and the builds are many.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=0

# bug | model | part of the complaint
bugs="
pin_relaxed|frame_state::readers_never_meet_the_writer|Causality violation
unpin_relaxed|frame_state::readers_never_meet_the_writer|Causality violation
claim_relaxed|frame_state::readers_never_meet_the_writer|Causality violation
publish_relaxed|frame_state::readers_never_meet_the_writer|Causality violation
claim_ignores_pins|frame_state::readers_never_meet_the_writer|Causality violation
free_list_keeps|free_list::no_frame_is_given_twice_or_lost|load into a frame in use
budget_store|pin_budget::units_taken_never_exceed_the_limit|left: (3,
wait_unmarked|pager::frame_wait|deadlock
collect_unlocked|pager::while_frames_are_free_nobody_is_refused|refused
bypass_unannounced|pager::bypass|deadlock
look_unchecked|pager::look|Causality violation
flight_unchecked|pager::single_flight|one load for two readers
hit_unchecked|pager::whole_path|stale or foreign page
orphan_leaks|pager::orphan|leaked
trace_uncounted|trace::every_read_is_taken_or_counted|a read was lost uncounted
slot_unchecked|slots::a_reader_sees_the_record_it_asked_for_or_none|a foreign record
row_unlooked|row_table::a_reader_never_sees_the_row_of_another_id|the row of another id
row_look_relaxed|row_table::a_line_that_was_written_twice_is_not_mixed|the row of another id
row_publish_relaxed|row_table::a_line_that_was_written_twice_is_not_mixed|the row of another id
row_two_writers|row_table::two_writers_do_not_mix_their_words|the line has room for one
snapshot_early|snapshot_cell::a_reader_sees_every_store_that_has_returned|right: (2, 2)
"

planted() {
    local bug="$1" model="loom_models::$2" complaint="$3"
    planted_must_fail "$bug" "$model" "$complaint" "$binary" --exact "$model"
}

if [ $# -eq 0 ] || [ "$1" = models ]; then
    cargo test --release -p nephrite-pager --lib loom_models
fi
if [ "${1:-}" = models ]; then exit; fi
binary=$(planted_build -p nephrite-pager --lib --profile bench)
# With every bug asleep the models pass in this build too.
"$binary" -q loom_models >/dev/null
planted_each planted "$@"
