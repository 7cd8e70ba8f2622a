#!/usr/bin/env bash
# Shows that the simulation finds the mistakes that storage engines make: each bug planted in the
# engine (or in the I/O layer under it) must be caught, and is printed with what caught it. One
# build; with every bug asleep the same runs must hold.
#   crates/simulation/planted.sh            all
#   crates/simulation/planted.sh BUG...     only these
set -euo pipefail
cd "$(dirname "$0")/../.."
source .ci/planted.sh
# bug | what it does | the hunt to begin with, in place of seeds: what found it before
bugs="
directory_sync_skipped|a segment's name is not synced before the manifest names it
directory_sync_repeated|after a failed sync of names the next one that succeeds is believed|calls
log_directory_unsynced|a new log file's name is not synced
log_header_unsynced|the header of a log segment is not synced before the manifest names it
rename_unsynced|a new manifest's name is not synced
parents_unsynced|only the directory right above a new store is synced
acknowledged_before_sync|a synced write is acknowledged once it is written
durable_write_unsynced|the I/O layer leaves the sync of a durable write out
full_segment_unsynced|a sync leaves the log segments out that filled up before it
segment_unsynced|the log is released before the segment that replaces it is synced
commit_unsynced|a manifest change is published before it is durable
bulk_rows_unsynced|rows that bypass the log are not durable before the record that names them
short_count_ignored|a short write counts as a whole one
sync_retried|the I/O layer asks again after a failed sync, and believes it|calls
poison_forgotten|the log goes on after a failed write or sync|calls
segment_rewritten|a segment that the manifest may name is written again
unsure_frame_followed|a manifest frame whose sync failed is followed by others|calls
identity_left_out|checksums of pages leave out file and place
mark_counted|a frame that only marks what is durable counts as a record|scripts
bulk_rows_unchecked|recovery believes rows that do not match their checksum|calls
rejected_frame_kept|recovery leaves a log frame that does not count as it is|lives
replaced_frame_counts|recovery takes a log frame although a later segment replaces it|lives
batch_cut_in_replay|recovery leaves out the last operation of a batch
log_reused_early|log segments are released before the manifest says so|log
log_never_held|full log segments are recycled at once
log_skipped_unflushed|a close that could not flush everything skips the log all the same|calls
file_number_reused|numbers of files that a crash left are given out again
tombstone_dropped_in_flush|flushes drop tombstones that hide older segments
tombstone_dropped_in_compaction|compactions drop them|lives
neighbour_buried|flushes note the wrong row as hidden, which a compaction then leaves out
oldest_version_kept|compactions keep the oldest version of an id
inputs_removed_early|compactions remove their inputs before the manifest forgets them
filter_incomplete|some ids are missing in the filter of a segment
seen_ids_incomplete|flushes do not note some of the ids that they write
snapshot_sees_later|snapshots see what is written after them
count_keeps_deleted|deletes do not lower the number of records
named_rows_removed|a file is removed although log records name rows in it|calls
loan_kept|the cache does not give back what writers need|lives
manifest_goes_on|the manifest takes more changes after one of unknown outcome
"

hunt="$(planted_engine)/examples/planted"

planted() {
    local bug="$1" first="${3:-seeds}" output
    if output=$(NEPHRITE_PLANTED_BUG="$bug" timeout 300 "$hunt" "$first" 2>&1); then
        echo "planted bug $bug: $(tail -1 <<<"$output" | cut -c1-300)"
    else
        echo "planted bug $bug: NOT caught: $(tail -1 <<<"$output")"
        return 1
    fi
}

# With every bug asleep nothing may be caught.
if asleep=$("$hunt" 2>&1); then
    echo "with all bugs asleep: $asleep"
    exit 1
fi
grep -q "^not caught by" <<<"$asleep" || { echo "$asleep"; exit 1; }
planted_each planted "$@"
