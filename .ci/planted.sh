# Shared by the scripts that show that planted bugs are found; to be sourced.
# The bugs of a crate are in one build, asleep: NEPHRITE_PLANTED_BUG wakes one by its name.
# Callers set `bugs`, lines of `bug | ... | part of the complaint`.

export RUST_BACKTRACE=0

# planted_must_fail BUG WHAT COMPLAINT COMMAND...: with the bug awake the command must fail, and say
# the complaint. WHAT names the command in the messages.
planted_must_fail() {
    local bug="$1" what="$2" complaint="$3" output
    shift 3
    if output=$(NEPHRITE_PLANTED_BUG="$bug" timeout 300 "$@" 2>&1); then
        echo "planted bug $bug: NOT caught by $what"
        return 1
    fi
    if ! grep -qF -- "$complaint" <<<"$output"; then
        echo "planted bug $bug: $what failed without saying '$complaint':"
        tail -40 <<<"$output"
        return 1
    fi
    echo "planted bug $bug: caught by $what"
}

# planted_asleep WHAT COMMAND...: with every bug asleep the command must succeed.
planted_asleep() {
    local what="$1" output
    shift
    if ! output=$(timeout 300 "$@" 2>&1); then
        echo "planted bugs: with all of them asleep, $what does not pass:"
        tail -40 <<<"$output"
        return 1
    fi
}

# planted_each FUNCTION [BUG...]: calls the function with the fields of each line of `bugs`, or of
# those that are named; fails if one call does.
planted_each() {
    local function="$1" code=0 bug second third fourth
    shift
    while IFS='|' read -r bug second third fourth; do
        if [ -n "$bug" ] && { [ $# -eq 0 ] || [[ " $* " == *" $bug "* ]]; }; then
            "$function" "$bug" "$second" "$third" "$fourth" || code=1
        fi
    done <<<"$bugs"
    return "$code"
}

# planted_build CARGO_ARGUMENTS...: builds a test binary of one crate with its bugs; prints its path.
# The flag goes to this crate only, so that its dependencies are built once.
planted_build() {
    cargo rustc -q "$@" --message-format json -- --cfg 'planted_bug="any"' |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

# planted_engine: builds the simulation's hunt and the process of `tests/power_cut.sh` together, so
# that the engine with its bugs is built once; prints the folder that has them. Most of that time is
# the optimiser's: at level 1 the build takes 122 s of processor time in place of 202, and a hunt
# that finds nothing 51 in place of 41.
planted_engine() (
    # All crates have their bugs here, and so a target directory of their own.
    export RUSTFLAGS='--cfg planted_bug="any"' CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/planted"
    export CARGO_PROFILE_CHECKED_LTO=off CARGO_PROFILE_CHECKED_DEBUG=0
    export CARGO_PROFILE_CHECKED_OPT_LEVEL=1
    cargo build -q --profile checked -p nephrite-simulation --example planted \
        -p nephrite-tests --bin crash_writer --no-default-features
    realpath "$CARGO_TARGET_DIR/checked"
)
