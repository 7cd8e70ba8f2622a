#!/usr/bin/env bash
# Shows that the tests of this crate find the mistakes that I/O layers make: each bug planted in the
# code must make the test named beside it fail, with the complaint named beside it. One build.
#   crates/io/planted.sh            all
#   crates/io/planted.sh BUG...     only these
# Bugs of ordering and waiting are in `loom.sh`.
set -euo pipefail
cd "$(dirname "$0")/../.."
source .ci/planted.sh

# bug | test | part of the complaint
results=uring::tests::results drops=uring::tests::drops
bugs="
short_count_ignored|$results::short_counts_are_resumed_until_every_byte_is_there|assertion
short_count_ignored|transfer::tests::a_short_count_goes_on_where_it_stopped|assertion
resumed_unaligned|transfer::tests::under_direct_io_a_short_count_goes_on_at_an_aligned_offset|assertion
durable_write_unsynced|$results::a_durable_write_syncs_after_its_last_byte|a sync has neither place
sync_retried|$results::a_failed_sync_is_not_asked_for_again|Result::unwrap_err
failure_forgotten|$results::a_failed_sync_is_not_asked_for_again|Result::unwrap_err
retries_unbounded|$results::interruptions_are_retried_and_end|Result::unwrap_err
cancellation_surfaces|$results::a_cancellation_that_nobody_asked_for_is_retried_once|is_ok()
generation_forgotten|$results::a_late_second_completion_does_not_end_the_next_operation_in_its_slot|assertion
sign_kept|$results::errors_keep_their_number_and_their_place|left: Some(-5)
every_error_degrades|$results::errors_of_files_do_not_take_the_ring_away|Result::unwrap_err
permit_of_the_wake_up|$results::the_kernel_never_has_more_than_the_ring_has_entries|left: 32
buffer_freed_early|$drops::a_buffer_lives_as_long_as_the_kernel_has_it|the buffer went while the kernel had it
drain_frees|$drops::a_drain_that_times_out_leaks_instead_of_freeing|memory that the kernel has was freed
"

binary=$(planted_build -p nephrite-io --lib --profile test)

planted() {
    local bug="$1" test="$2" complaint="$3"
    # With the bug asleep the test passes: it is there, and it is the bug that it finds.
    planted_asleep "$test" "$binary" --exact "$test" &&
        planted_exists "$test" &&
        planted_must_fail "$bug" "$test" "$complaint" "$binary" --exact "$test"
}
planted_exists() {
    [ -n "$("$binary" --list --exact "$1" 2>/dev/null | grep ': test$')" ] ||
        { echo "there is no test $1"; return 1; }
}

planted_each planted "$@"
