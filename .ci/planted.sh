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
