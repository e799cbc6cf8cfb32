#!/bin/sh
# JSON comes by models/json.h, whose values end without taking memory: fails on the library's own header elsewhere.
# The tokenizer includes nothing of ours and ends no JSON. usage: json_include.sh SOURCE_DIR
set -eu
cd "$1"
found=$(grep -rl --include='*.h' --include='*.cpp' '#include <nlohmann/json.hpp>' \
  engine models quant bench apps tests | sort)
wrong=$(echo "$found" | grep -v -x -e 'models/json.h' -e 'tests/tokenizer/.*' -e 'tests/fuzz/chat_template.cpp' || true)
# A check that saw nothing proves nothing.
echo "$found" | grep -q -x 'models/json.h' || { echo "models/json.h not seen in $1: wrong folder?"; exit 1; }
[ -z "$wrong" ] || { echo "include models/json.h instead of <nlohmann/json.hpp>: $wrong"; exit 1; }
echo "nlohmann/json.hpp is included where it may be"
