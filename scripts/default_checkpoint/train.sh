#!/bin/sh
# train.sh TEACHER.gguf SCRIPTS WORK: the default checkpoint once more, on one NVIDIA GPU (about 115 minutes on an H100):
# WORK/student4.crumb. SCRIPTS is what make_scripts.py wrote. Run again after an interruption, it goes on.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..
crumb=$root/build/release/crumb
train=$root/build/cuda/crumb-train-cuda
teacher=$(realpath "$1")
scripts=$(realpath "$2")
mkdir -p "$3"
cd "$3"

# Codes of the head by LDLQ; the matrices' only as cells to start from. INT3 for v_proj, INT2 for all others.
[ -f start.crumb ] || "$crumb" quantize "$teacher" -o start.crumb --recipe "$here/start.json" --calib "$scripts/c4.txt"

# FILE SCRIPT ROWS MIN_P SEED [TEMPERATURE [MODEL]]: text of 512 tokens a row, the teacher's if nothing else is said.
text() {
  [ -f "$1.bin" ] || "$train" generate --teacher "${7:-$teacher}" --script "$scripts/$2.json" --rows "$3" --min-p "$4" \
    --seed "$5" --temperature "${6:-1}" -o "$1.bin"
}
text chat chat 20480 0.02 11
text asked asked 16384 0.01 12
text prefixed prefixed 24576 0.004 13
text free free 8192 0.004 14
cp "$scripts/natural.bin" natural.bin
[ -f kept.bin ] || "$train" generate --teacher "$teacher" --script "$scripts/chat.json" --rows 128 --batch 128 \
  --first-row 1000000 --seed 99 -o kept.bin

"$train" train --teacher "$teacher" --start start.crumb --recipe "$here/train.json" --state state -o student.crumb

# On from there with new text, 250 M tokens more: every master starts in the middle of its cell, the optimiser is new.
text chat2 chat 57344 0.02 21
text asked2 asked 36864 0.01 22
text prefixed2 prefixed 32768 0.004 23
text free2 free 36864 0.004 24
text prefixed3 prefixed 16384 0.01 25
"$train" train --teacher "$teacher" --start student.crumb --masters student.crumb --recipe "$here/go_on.json" \
  --state state2 -o student2.crumb

# And on, the embedding and head trained too: 338 M tokens (made on two GPUs, --gpus 2: the sums of a step in another order).
text chat3 chat 69632 0.02 31
text asked3 asked 45056 0.01 32
text prefixed4 prefixed 53248 0.004 33
text free3 free 28672 0.004 34
"$train" train --teacher "$teacher" --start student2.crumb --masters student2.crumb --recipe "$here/with_head.json" \
  --state state3 -o student3.crumb

# And on, with answers nearer to the most likely ones and with the student's own, which its greedy answers resemble more
# than the teacher's at temperature 1: 326 M tokens (two GPUs).
text chat4 chat 57344 0.02 41
text asked4 asked 32768 0.01 42
text asked5 asked 16384 0 45 0.4
text prefixed5 prefixed 40960 0.004 43
text free4 free 16384 0.004 44
text own4 asked 16384 0.02 46 1 student3.crumb
text own5 asked 12288 0 47 0.5 student3.crumb
"$train" train --teacher "$teacher" --start student3.crumb --masters student3.crumb --recipe "$here/with_own_text.json" \
  --state state4 -o student4.crumb
