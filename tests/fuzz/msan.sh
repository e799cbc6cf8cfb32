#!/bin/sh
# Builds the fuzz targets of the byte readers with MemorySanitizer: msan.sh [FOLDER] (build/msan).
# The standard library is not built with it. Its templates are compiled here (no extern templates),
# and kept apart from libFuzzer's by making all symbols local; msan_library.cpp wraps the rest.
# Targets that call the sentencepiece library cannot be built this way: it would have to be, too.
set -eu
cd "$(dirname "$0")/../.."
out=${1:-build/msan}
mkdir -p "$out"
targets="gguf safetensors config_json crumb"
launcher=$(command -v ccache || true)
flags="-std=c++20 -O1 -g1 -fno-omit-frame-pointer -ffp-contract=off -I. -D_GLIBCXX_EXTERN_TEMPLATE=0
  -DXXH_INLINE_ALL -fsanitize=memory,fuzzer-no-link -fsanitize-memory-track-origins=1"
string=NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE
wraps="--wrap=_ZNSt13runtime_errorC1ERK$string --wrap=_ZNSt13runtime_errorC2ERK$string
  --wrap=_ZNSt13runtime_errorC1EPKc --wrap=_ZNSt13runtime_errorC2EPKc
  --wrap=_ZSt29_Rb_tree_insert_and_rebalancebPSt18_Rb_tree_node_baseS0_RS_"

compile() {
  object=$out/$(echo "$1" | tr / _).o
  # shellcheck disable=SC2086
  $launcher clang++-14 $flags $2 -c "$1" -o "$object"
  echo "$object"
}
readers=""
for source in models/*.cpp kernels/pack.cpp; do
  case $source in
    *export_* | *writer.cpp | *tiny_model.cpp) ;;  # write files; not called
    *) readers="$readers $(compile "$source" "")" ;;
  esac
done
readers="$readers $(compile tests/fuzz/msan_library.cpp "")"
for target in $targets; do
  object=$(compile tests/fuzz/$target.cpp "")
  # shellcheck disable=SC2086
  ld -r --force-group-allocation $wraps $readers "$object" -o "$out/$target.o"
  objcopy --keep-global-symbol=LLVMFuzzerTestOneInput --keep-global-symbol=__msan_track_origins \
    "$out/$target.o"
  clang++-14 -fsanitize=memory,fuzzer -no-pie "$out/$target.o" -o "$out/fuzz_$target"
done
