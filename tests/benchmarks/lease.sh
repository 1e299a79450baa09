#!/usr/bin/env bash
# One lease of a GPU, from the repository's root. What is to be kept is left under $OUT.
#
#   lease.sh shakedown SCALE          two minutes: every stage's step, then every stage trained for seconds, then a clip
#   lease.sh train SCALE MINUTES      all stages (`train all --minutes`), then the tables; weights are packed every 20 seconds
#   lease.sh stages SCALE STAGE MINUTES [STAGE MINUTES ...]      some stages, each from its shipped weights if there are any:
#                                     delete a stage's file in data/weights first, and it begins with fresh ones;
#                                     OTHER/STAGE is one of another scale
#
# With COMPILE="t2i base" these stages' nets are compiled, and their steps profiled, beside the training of the stages before
# them, and then used if that pays. At the end `evaluate` makes TABLES, a line of options each, BESIDE of them at a time, each
# within EVALUATE seconds; then sampling is timed, if TIMES is set.
set -uo pipefail
task=$1 scale=$2 minutes=${3:-0}
OUT=${OUT:-/tmp/out}
PYTHON=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD TORCHINDUCTOR_COMPILE_THREADS=6
mkdir -p "$OUT"

pack() { # what came out so far: weights in parts of 15 MB, logs
  rm -rf "$OUT/.parts" && mkdir "$OUT/.parts"
  tar -cf - -C data/weights . | split -b 15M - "$OUT/.parts/weights.tar."
  mv "$OUT"/.parts/* "$OUT"/
  tar -czf "$OUT/.logs.tgz" runs/*/log.jsonl 2>/dev/null && mv "$OUT/.logs.tgz" "$OUT/logs.tgz"
}

rm -rf runs
if [ "$task" = shakedown ]; then
  nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
  timeout 70 "$PYTHON" tests/benchmarks/shakedown.py --scale "$scale" || echo "shakedown.py: exit $?"
  timeout 60 "$PYTHON" tests/benchmarks/shakedown.py --scale "$scale" --stages t2i base --times 2 || echo "exit $?"
  timeout 100 "$PYTHON" -m minilumiere train all --scale "$scale" --minutes 0.4 --ship 2>&1 | tr '\r' '\n' | grep -v 'it/s\|?it' || echo "train: exit $?"
  timeout 40 "$PYTHON" -m minilumiere generate "a red 3 moving right" --scale "$scale" --frames 80 -o "$OUT/shakedown.gif"
  pack
  exit 0
fi
(while sleep 20; do pack; done) &
packing=$!
if [ "$task" = train ]; then
  "$PYTHON" -m minilumiere train all --scale "$scale" --minutes "$minutes" --save-minutes 1 --ship 2>>"$OUT/progress.txt"
else
  mkdir -p runs/compiled
  echo "${COMPILE:-}" >runs/compiled/asked
  for stage in ${COMPILE:-}; do
    ("$PYTHON" tests/benchmarks/shakedown.py --scale "$scale" --stages "$stage" --steps 6 \
      --compile runs/compiled --profile "$stage" >"$OUT/compiled-$stage.txt" 2>&1 || echo 0 >"runs/compiled/$stage") &
  done
  "$PYTHON" tests/benchmarks/lease.py --scale "$scale" --compile runs/compiled "${@:3}" 2>>"$OUT/progress.txt"
fi
pack
kill $packing
date
export OMP_NUM_THREADS=4
xargs -d '\n' -P "${BESIDE:-2}" -I{} bash -c \
  'table="$3"; timeout "$2" "$0" -m minilumiere evaluate --scale "$1" $table >"$4/evaluate${table// /}.txt" 2>&1' \
  "$PYTHON" "$scale" "${EVALUATE:-140}" {} "$OUT" <<<"${TABLES:---samples 128 --frames 80 --no-super-resolution}"
for table in "$OUT"/evaluate*.txt; do tr '\r' '\n' <"$table" | grep -v 'it/s\|s/it'; done
date
if [ -n "${TIMES:-}" ]; then
  timeout 40 "$PYTHON" tests/benchmarks/scales.py --scale "$scale" --stages --frames 16 80 160 320 --graphs >"$OUT/sampling.txt" 2>&1
  cat "$OUT/sampling.txt"
  date
fi
touch "$OUT/done"
