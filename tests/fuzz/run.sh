#!/bin/bash
# Fuzzes all targets for SECONDS in all: run.sh SECONDS [TARGET ...]. Workers take the target with
# the fewest executions so far, a slice of time after the other. Prints the ledger's lines; status 1
# if there is a finding. From the environment:
#   BIN    folder of the fuzz_* programs     (build/fuzz/tests/fuzz)
#   OUT    folder of logs, findings, grown corpora; what lies in it is continued (build/fuzz/out)
#   JOBS   workers (2)          SLICE  seconds of a slice (30)
#   CORES  processors for taskset, one worker each, e.g. "12-15" or "1,3"; none: not pinned
#   GOAL   executions of a target, those named first (0: the same for all)
#   MERGE  seconds at the end for minimising the grown corpora (0: not done)
set -u
here=$(cd "$(dirname "$0")" && pwd)
seconds=${1:?usage: run.sh SECONDS [TARGET ...]}
shift
BIN=${BIN:-$here/../../build/fuzz/tests/fuzz}
OUT=${OUT:-$here/../../build/fuzz/out}
SLICE=${SLICE:-30}
MERGE=${MERGE:-0}
GOAL=${GOAL:-0}
cores=()
for part in ${CORES:+${CORES//,/ }}; do
  mapfile -t -O ${#cores[@]} cores < <(seq "${part%-*}" "${part#*-}")
done
JOBS=${JOBS:-$([ ${#cores[@]} -gt 0 ] && echo ${#cores[@]} || echo 2)}
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for program in "$BIN"/fuzz_*; do
    [ -x "$program" ] && targets+=("$(basename "$program" | sed s/^fuzz_//)")
  done
fi
# A malloc's own place is enough of its stack, and a small quarantine stays in the cache: the
# programs run half as fast otherwise.
export ASAN_OPTIONS=malloc_context_size=2:quarantine_size_mb=32
export UBSAN_OPTIONS=print_stacktrace=1
mkdir -p "$OUT/state" "$OUT/logs"
begin=$(date +%s)
end=$((begin + seconds - MERGE))

value() { cat "$OUT/state/$1.$2" 2>/dev/null || echo 0; }

# The target with the fewest executions and claims; nothing if all have five findings. With a GOAL
# the first of those that are short of it.
claim() {
  local best="" least=-1 target n
  for target in "${targets[@]}"; do
    [ "$(value "$target" findings)" -lt 5 ] || continue
    n=$(value "$target" executions)
    [ "$GOAL" -gt 0 ] && n=$((n < GOAL ? 0 : n))
    n=$((n + $(value "$target" claims) * 1000000000))
    if [ $least -lt 0 ] || [ $n -lt $least ]; then least=$n best=$target; fi
  done
  [ -n "$best" ] && echo $(($(value "$best" claims) + 1)) >"$OUT/state/$best.claims"
  echo "$best"
}

# TARGET, bytes of an input, bytes in every eighth slice, dictionary. Short inputs are run many times
# as often and reach nearly all; the long slices are for what needs length.
options() { # TARGET SLICE
  while read -r name short long dict; do
    [ "$name" = "$1" ] || continue
    echo "-max_len=$([ $(($2 % 8)) -eq 7 ] && echo "$long" || echo "$short")" ${dict:+-dict=$here/$dict}
  done <<END
chat_template 256 4096 template.dict
config_json 256 4096 json.dict
crumb 512 16384 json.dict
gguf 512 16384 gguf.dict
safetensors 512 16384 json.dict
text 64 4096
tokenizer_json 256 4096 json.dict
tokenizer_model 256 4096
json_schema 96 2048 json.dict
http_request 256 2048 json.dict
image 512 4096
END
}

# Entropic scheduling costs more time than these fast targets themselves.
limits="-malloc_limit_mb=64 -rss_limit_mb=512 -timeout=2 -entropic=0"

slice() { # TARGET SECONDS LOG PIN
  local target=$1 log=$3
  mkdir -p "$OUT/corpus/$target" "$OUT/findings"
  local seed=$here/corpus/$target
  local TIMEFORMAT='%U %S'
  # shellcheck disable=SC2046,SC2086
  { time $4 "$BIN/fuzz_$target" $limits $(options "$target" "$(value "$target" slices)") -max_total_time="$2" \
      -print_final_stats=1 -artifact_prefix="$OUT/findings/$target-" "$OUT/corpus/$target" "$seed" >"$log" 2>&1
  } 2>"$log.time"
}

# Adds to TARGET's counters what LOG says; the lock is held. Milliseconds are the processor's.
account() { # TARGET STATUS LOG
  local runs edges
  runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$3" | tail -n 1)
  edges=$(grep -o 'cov: [0-9]*' "$3" | tail -n 1 | cut -c6-)
  echo $(($(value "$1" executions) + ${runs:-0})) >"$OUT/state/$1.executions"
  tail -n 1 "$3.time" | awk -v before="$(value "$1" ms)" '{ print int(before + 1000 * ($1 + $2)) }' >"$OUT/state/$1.ms.new"
  mv "$OUT/state/$1.ms.new" "$OUT/state/$1.ms"
  echo $(($(value "$1" slices) + 1)) >"$OUT/state/$1.slices"
  echo $(($(value "$1" claims) - 1)) >"$OUT/state/$1.claims"
  [ "${edges:-0}" -gt "$(value "$1" edges)" ] && echo "$edges" >"$OUT/state/$1.edges"
  if [ "$2" -ne 0 ]; then
    echo $(($(value "$1" findings) + 1)) >"$OUT/state/$1.findings"
    cp "$3" "$OUT/logs/finding-$1-$(value "$1" findings).log"
  fi
}

minimise() { # TARGET
  mkdir -p "$OUT/minimised/$1"
  # shellcheck disable=SC2086
  timeout "$MERGE" "$BIN/fuzz_$1" $limits -max_len=16384 -merge=1 "$OUT/minimised/$1" \
    "$here/corpus/$1" "$OUT/corpus/$1" >"$OUT/logs/merge-$1.log" 2>&1
}

worker() { # NUMBER
  local pin="" target status left i
  [ ${#cores[@]} -gt 0 ] && pin="taskset -c ${cores[$(($1 % ${#cores[@]}))]}"
  exec 9>"$OUT/lock"
  while left=$((end - $(date +%s))) && [ $left -gt 1 ]; do
    flock 9
    target=$(claim)
    flock -u 9
    [ -n "$target" ] || break
    status=0
    slice "$target" $((left < SLICE ? left : SLICE)) "$OUT/logs/worker-$1.log" "$pin" || status=$?
    flock 9
    account "$target" $status "$OUT/logs/worker-$1.log"
    flock -u 9
  done
  [ "$MERGE" -gt 0 ] || return 0
  for ((i = $1; i < ${#targets[@]}; i += JOBS)); do minimise "${targets[$i]}"; done
}

rm -f "$OUT"/state/*.claims
for ((i = 0; i < JOBS; ++i)); do worker $i & done
wait

for target in "${targets[@]}"; do
  echo "$target $(value "$target" executions) $(($(value "$target" ms) / 1000)) $(value "$target" edges) $(value "$target" findings)"
done | sed '1i target executions cpu_seconds edges findings' | tee "$OUT/ledger.txt"
findings=$(awk 'NR > 1 { n += $5 } END { print n + 0 }' "$OUT/ledger.txt")
[ "$findings" -eq 0 ] && exit 0
grep -hE 'finding:|ERROR:|SUMMARY:|runtime error|what\(\)' "$OUT"/logs/finding-*.log | head -n 40 >&2
exit 1
