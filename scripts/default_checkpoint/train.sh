#!/bin/sh
# train.sh TEACHER.gguf SCRIPTS WORK: the default checkpoint once more, on one NVIDIA GPU (about 16 minutes on an H100):
# WORK/student.crumb. SCRIPTS is what make_scripts.py wrote. Run again after an interruption, it goes on.
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

# NAME ROWS MIN_P SEED: the teacher's text, 512 tokens a row.
text() {
  [ -f "$1.bin" ] || "$train" generate --teacher "$teacher" --script "$scripts/$1.json" --rows "$2" --min-p "$3" \
    --seed "$4" -o "$1.bin"
}
text chat 20480 0.02 11
text asked 16384 0.01 12
text prefixed 24576 0.004 13
text free 8192 0.004 14
cp "$scripts/natural.bin" natural.bin
[ -f kept.bin ] || "$train" generate --teacher "$teacher" --script "$scripts/chat.json" --rows 128 --batch 128 \
  --first-row 1000000 --seed 99 -o kept.bin

"$train" train --teacher "$teacher" --start start.crumb --recipe "$here/train.json" --state state -o student.crumb
