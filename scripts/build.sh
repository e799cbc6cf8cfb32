#!/bin/sh
# Configures and builds a preset: build.sh PRESET [-DOPTION=VALUE ...]. Uses ccache when it is there.
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift
launcher=""
log=$(mktemp)
if command -v ccache >/dev/null; then launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"; fi
cmake --preset "$preset" $launcher "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
rm -f "$log"
cmake --build --preset "$preset" -- --no-print-directory
