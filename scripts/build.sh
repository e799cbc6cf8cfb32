#!/bin/sh
# Configures and builds a preset: build.sh [PRESET] (default release). Uses ccache when it is there.
set -eu
cd "$(dirname "$0")/.."
preset=${1:-release}
launcher=""
if command -v ccache >/dev/null; then launcher="-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"; fi
cmake --preset "$preset" $launcher >"/tmp/crumb-configure-$$.log" 2>&1 || { cat "/tmp/crumb-configure-$$.log" >&2; exit 1; }
rm -f "/tmp/crumb-configure-$$.log"
cmake --build --preset "$preset" -- --no-print-directory
