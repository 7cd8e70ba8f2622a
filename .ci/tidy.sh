#!/usr/bin/env bash
# House style that no compiler checks. Prints every offence; exit code 1 if there is one.
#   - no line of a source file is longer than 100 columns
#   - every Rust file over 50 lines begins with a `//!` header, and none is above 500 lines
#   - dependencies between the crates point one way, and `format` and `engine` forbid unsafe code
#   - unsafe code lives in the files listed here, and nowhere else
#   - links in documents lead to files that exist; docs/architecture.md stays a map
#   - no path of a developer's machine
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    mapfile -t files < <(git ls-files --cached --others --exclude-standard | sort -u)
else
    mapfile -t files < <(find . -type f -not -path '*/target/*' -not -path './.git/*' | sed 's|^\./||')
fi
existing=() rust=() documents=()
for file in "${files[@]}"; do
    [ -f "$file" ] || continue
    existing+=("$file")
    case "$file" in
        *.rs) rust+=("$file") ;;
        *.md) documents+=("$file") ;;
    esac
done

offences=0
offence() {
    echo "tidy: $*"
    offences=$((offences + 1))
}
# Each line of standard input is an offence.
offences_from() {
    local line
    while IFS= read -r line; do offence "$1: $line"; done
}

offences_from "longer than 100 columns" < <(
    grep -nE '^.{101,}' "${rust[@]}" | cut -d: -f1,2 || true)

for file in "${rust[@]}"; do
    lines=$(wc -l <"$file")
    if [ 50 -lt "$lines" ] && ! head -1 "$file" | grep -q '^//!'; then
        offence "$file has $lines lines and no //! header"
    fi
    if [ 500 -lt "$lines" ]; then
        offence "$file has $lines lines: two concepts share it; give one a file of its own"
    fi
done

# package | the packages of this workspace that it may use
directions="
nephrite-format|
nephrite-io|
nephrite-pager|nephrite-io
nephrite|nephrite-format nephrite-io nephrite-pager
nephrite-simulation|nephrite nephrite-io
nephrite-cli|nephrite nephrite-io nephrite-simulation
"
while IFS='|' read -r package allowed; do
    [ -n "$package" ] || continue
    used=$(cargo tree --quiet -p "$package" --depth 1 -e normal --prefix none |
        sed 1d | cut -d' ' -f1 | grep -E '^nephrite' | sort -u || true)
    for dependency in $used; do
        [[ " $allowed " == *" $dependency "* ]] || offence "$package must not use $dependency"
    done
done <<<"$directions"

for root in crates/format/src/lib.rs crates/engine/src/lib.rs; do
    grep -q '^#!\[forbid(unsafe_code)\]' "$root" || offence "$root does not forbid unsafe code"
done

unsafe_allowed="
crates/pager/src/file.rs crates/pager/src/frame_array.rs crates/pager/src/frame_memory.rs
crates/pager/src/guard.rs crates/pager/src/load.rs crates/pager/src/shared.rs crates/pager/src/shared/loan.rs
crates/pager/src/part.rs crates/pager/src/retention.rs crates/pager/src/word_array.rs
crates/io/src/direct.rs crates/io/src/flagged.rs crates/io/src/mapping.rs crates/io/src/probe.rs
crates/io/src/fork.rs crates/io/src/free_space.rs crates/io/src/priority.rs crates/io/src/uring/ring.rs crates/io/examples/readbench.rs
crates/io/src/memory/aligned.rs crates/io/src/memory/allocation.rs
crates/io/src/memory/arena.rs crates/io/src/memory/chunk.rs crates/io/src/memory/prefetch.rs
benches/src/io/raw_ring.rs benches/src/io/others.rs
benches/src/rivals/flat.rs benches/src/rivals/lmdb.rs
benches/src/mapped.rs
"
for file in "${rust[@]}"; do
    case "$file" in
        */tests/* | tests/* | */tests.rs | */loom_models/* | fuzz/*) continue ;;
    esac
    if grep -qE '^[^/]*\bunsafe (\{|fn|impl)' "$file"; then
        [[ " ${unsafe_allowed//$'\n'/ } " == *" $file "* ]] || offence "unsafe code in $file"
    fi
done

for document in "${documents[@]}"; do
    while IFS= read -r link; do
        target="$(dirname "$document")/${link%%#*}"
        [ -e "$target" ] || offence "$document links to $link, which does not exist"
    done < <(grep -oE '\]\([^)]+\)' "$document" | sed -E 's/^\]\((.*)\)$/\1/' |
        grep -vE '^(https?:|mailto:|#)' || true)
done
if [ -f docs/architecture.md ] && [ 300 -lt "$(wc -l <docs/architecture.md)" ]; then
    offence "docs/architecture.md is longer than 300 lines: it is a map"
fi

offences_from "path of a developer's machine" < <(
    grep -nIE '(^|[^A-Za-z0-9._-])(/[w]ork/|/[r]oot/|/home/[a-z]|/Users/[a-z]|C:\\Users)' \
        "${existing[@]}" | grep -v '^\.ci/tidy\.sh:' || true)

if [ 0 -lt "$offences" ]; then
    echo "tidy: $offences offences"
    exit 1
fi
echo "tidy: ${#existing[@]} files, no offence"
