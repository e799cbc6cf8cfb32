#!/bin/sh
# Holds the order of the folders: fails on any #include "folder/..." that is not an allowed arrow.
# usage: include_arrows.sh SOURCE_DIR
set -eu
cd "$1"

allowed() {
  case "$1" in
    kernels) echo kernels ;;
    tokenizer) echo tokenizer ;;
    models) echo models kernels ;;
    engine) echo engine models tokenizer kernels ;;
    quant) echo quant engine models kernels ;;
    bench) echo bench engine models tokenizer kernels ;;
    bench/quality) echo bench quant engine models tokenizer kernels ;;
    apps) echo apps bench quant engine models tokenizer kernels ;;
  esac
}

bad=0
arrows=0
for folder in kernels tokenizer models engine quant bench bench/quality apps; do
  # bench/quality stands above quant, the rest of bench below it.
  for target in $(find "$folder" -path "$folder/quality" -prune -o -name '*.h' -print -o -name '*.cpp' -print \
    -o -name '*.cu' -print -o -name '*.cuh' -print | xargs sed -n 's/^#include "\([a-z_]*\)\/.*/\1/p' | sort -u); do
    arrows=$((arrows + 1))
    case " $(allowed "$folder") " in
      *" $target "*) ;;
      *)
        bad=$((bad + 1))
        grep -rn "^#include \"$target/" "$folder" | { [ "$folder" = bench ] && grep -v '^bench/quality/' || cat; } | sed 's/^/forbidden arrow: /'
        ;;
    esac
  done
done
# A check that saw nothing proves nothing.
[ "$arrows" -ge 10 ] || { echo "only $arrows arrows seen in $1: wrong folder?"; exit 1; }
echo "$arrows arrows between folders, $bad forbidden"
[ "$bad" -eq 0 ]
