#!/bin/sh
# Configures and builds a preset: build.sh PRESET [-DOPTION=VALUE ...]. Uses ccache when it is there.
set -eu
cd "$(dirname "$0")/.."
preset=$1
shift
launcher=""
log=$(mktemp)
# Precompiled headers are used whatever macros and time they were made with: it is their text that counts.
export CCACHE_SLOPPINESS="${CCACHE_SLOPPINESS:-pch_defines,time_macros}"
if command -v ccache >/dev/null; then launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"; fi
cmake --preset "$preset" $launcher "$@" >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
rm -f "$log"
cmake --build --preset "$preset" -- --no-print-directory
