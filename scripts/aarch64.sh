#!/bin/sh
# The NEON kernels under qemu-user: aarch64.sh kernels | engine
#   kernels  their tests on a CPU with I8MM, one with DotProd alone, and one with neither (about 3 minutes)
#   engine   the whole crumb: SmolLM2 as INT4 says the same 64 greedy tokens, and has the same logits
#            bits, as on this machine, with each of the three tables (about 10 minutes)
set -eu
cd "$(dirname "$0")/.."
sh scripts/packages.sh -y arm

kernels() {
  sh scripts/build.sh aarch64 >build/aarch64.log 2>&1 || { tail -n 40 build/aarch64.log >&2; exit 1; }
  # max: everything; neoverse-n1: DotProd; cortex-a53: ARMv8.0.
  for pair in max:neon_i8mm neoverse-n1:neon_dotprod cortex-a53:neon; do
    cpu=${pair%:*} best=${pair#*:}
    echo "== kernels_test on qemu's $cpu (best table: $best)"
    CRUMB_BEST_BACKEND=$best qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu "$cpu" \
      build/aarch64/tests/kernels/kernels_test --gtest_brief=1 | grep -v -E '^(Skipped|this CPU|\[  SKIPPED)' | tail -n 20
  done
}

emulated() {
  root=$PWD/build/aarch64-root
  qemu-aarch64-static -L /usr/aarch64-linux-gnu -cpu max \
    -E LD_LIBRARY_PATH="$root/usr/lib/aarch64-linux-gnu:$root/lib/aarch64-linux-gnu" \
    build/aarch64-engine/crumb "$@"
}

hashes() { sed -n 's/.*"logits_hash": "\([0-9a-f]*\)".*/\1/p'; }

engine() {
  model=$(sh models/fetch.sh) || { echo "aarch64.sh: no real model; nothing compared" >&2; exit 0; }
  sh scripts/build.sh release >/dev/null
  sh scripts/aarch64_root.sh
  sh scripts/build.sh aarch64-engine >build/aarch64.log 2>&1 || { tail -n 40 build/aarch64.log >&2; exit 1; }
  file=build/aarch64-int4.crumb
  build/release/crumb quantize "$model" -o $file --bits 4 --group row --grid seq --embed-bits 4 --embed-group row --force -q
  prompt="Write a short story about a lighthouse."
  build/release/crumb run -m $file --temp 0 -n 64 "$prompt" >build/aarch64-expected.txt
  want=$(build/release/crumb bench -m $file -p 32 -n 4 -r 1 -t 2 -o json -q | hashes)
  status=0
  for isa in neon_i8mm neon_dotprod neon; do
    start=$(date +%s)
    CRUMB_ISA=$isa emulated run -m $file --temp 0 -n 64 -t 2 "$prompt" >build/aarch64-found.txt
    took=$(($(date +%s) - start))
    found=$(CRUMB_ISA=$isa emulated bench -m $file -p 32 -n 4 -r 1 -t 2 -o json -q | hashes)
    if cmp -s build/aarch64-expected.txt build/aarch64-found.txt && [ "$want" = "$found" ]; then
      echo "$isa: the same 64 tokens and logits as here ($took s)"
    else
      echo "$isa: DIFFERS from here (logits $found, expected $want)"
      diff build/aarch64-expected.txt build/aarch64-found.txt || true
      status=1
    fi
  done
  exit $status
}

case "${1:-}" in
  kernels) kernels ;;
  engine) engine ;;
  *) echo "usage: aarch64.sh kernels | engine" >&2; exit 2 ;;
esac
