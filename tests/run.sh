#!/bin/sh
# Builds and runs every test. The last line is ctest's count. Tests that need the real model or the
# evaluation data skip with a message where these are absent.
set -eu
cd "$(dirname "$0")/.."

sh scripts/packages.sh -y build test

# The Python packages some tests compare with; without a network those tests skip.
if [ ! -x build/python/bin/python3 ]; then python3 -m venv build/python || true; fi
if [ -x build/python/bin/pip ]; then
  build/python/bin/python3 -c 'import safetensors, numpy, matplotlib, gguf, openai, jsonschema' 2>/dev/null ||
    build/python/bin/pip install --quiet --disable-pip-version-check 'safetensors>=0.4' numpy matplotlib gguf openai jsonschema ||
    echo "run.sh: could not install safetensors, numpy, matplotlib, gguf, openai and jsonschema; their tests will skip" >&2
fi
python=build/python/bin/python3
[ -x $python ] || python=$(command -v python3)
sh scripts/build.sh release -DCRUMB_TESTS=ON "-DPython3_EXECUTABLE=$(realpath -s $python)"
sh models/fetch.sh || echo "run.sh: no real model; tests of it will skip" >&2

status=0
CTEST_OUTPUT_ON_FAILURE=1 ctest --preset release -j 2 "$@" >build/ctest.log 2>&1 || status=$?
grep -v -E '^ *(Start +[0-9]+:|[0-9]+/[0-9]+ Test .* Passed )' build/ctest.log | sed '/^$/d'
grep 'tests passed' build/ctest.log | tail -n 1
exit $status
