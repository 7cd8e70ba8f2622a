#!/usr/bin/env bash
# Runs the tests of the engine's crates, built for Windows, under Wine.
#   .ci/wine.sh [PACKAGE...]      default: format, pager, io, engine
# Wine 8 has no bcryptprimitives.dll, from which Rust's standard library takes random numbers: a
# small one of our own forwards its only function to advapi32.
# Wine is not Windows: what passes here compiles, links and takes the Windows code paths; locks,
# sharing modes and flushes are those of Wine.
set -euo pipefail
cd "$(dirname "$0")/.."
target=x86_64-pc-windows-gnu
seconds="${WINE_TEST_SECONDS:-240}"
packages=("$@")
[ $# -gt 0 ] || packages=(nephrite-format nephrite-pager nephrite-io nephrite)

work="$(mktemp -d)"
trap 'WINEPREFIX="$work/prefix" wineserver -k 2>/dev/null || true; rm -rf "$work"' EXIT
cat >"$work/random.c" <<'C'
#include <windows.h>
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length) {
    return SystemFunction036(data, (ULONG)length);
}
C
x86_64-w64-mingw32-gcc -O1 -shared -o "$work/bcryptprimitives.dll" "$work/random.c" -ladvapi32

export WINEPREFIX="$work/prefix" WINEDEBUG=-all WINEPATH="$work"
export TMP="Z:$work" TEMP="Z:$work"
timeout 120 wineboot --init >/dev/null 2>&1 || true

failed=0
for package in "${packages[@]}"; do
    binaries=$(cargo test -q --no-run --lib --tests --target "$target" -p "$package" --message-format json |
        sed -n 's/.*"executable":"\([^"]*\.exe\)".*/\1/p')
    [ -n "$binaries" ] || { echo "no test binaries of $package"; failed=1; }
    for binary in $binaries; do
        echo "== $package: $(basename "$binary")"
        code=0
        timeout --kill-after 10 "$seconds" wine "$binary" </dev/null || code=$?
        if [ "$code" -ne 0 ]; then
            echo "== $package: $(basename "$binary") FAILED (exit code $code)"
            failed=1
        fi
    done
done
exit "$failed"
