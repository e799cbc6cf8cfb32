#!/bin/sh
# From a fresh clone to a chat: installs missing packages, builds, and chats with the checkpoint in
# models/default/ (where it was taken out: SmolLM2-135M-Instruct, fetched and quantized to INT4 here).
# Without a terminal it asks three questions and ends. Options: -y (install without asking).
set -eu
cd "$(dirname "$0")/.."

echo "[1/3] packages" >&2
sh scripts/packages.sh "$@" build
echo "[2/3] build" >&2
sh scripts/build.sh release -DCRUMB_TESTS=OFF >&2

echo "[3/3] model" >&2
crumb=build/release/crumb
model=$(find models/default -name '*.crumb' 2>/dev/null | sort | head -n 1)
if [ -z "$model" ]; then
  model=models/checkpoints/SmolLM2-135M-Instruct.int4.crumb
  if [ ! -f "$model" ]; then
    sh models/fetch.sh
    "$crumb" quantize models/checkpoints/SmolLM2-135M-Instruct.Q4_1.gguf -o "$model"
  fi
fi

if [ -t 0 ] && [ -t 1 ]; then exec "$crumb" chat -m "$model"; fi
printf '%s\n' 'What is the capital of France?' 'List three fruits.' 'Write one sentence about the sea.' |
  "$crumb" chat -m "$model" --temp 0 -n 64
