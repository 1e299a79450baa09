#!/usr/bin/env bash
# One lease of a GPU, from the repository's root. What is to be kept is left under $OUT.
#
#   lease.sh shakedown SCALE          two minutes: every stage's step, then every stage trained for seconds, then a clip
#   lease.sh train SCALE MINUTES      all stages (`train all --minutes`), then the tables; weights are packed every 20 seconds
#   lease.sh stages SCALE STAGE MINUTES [STAGE MINUTES ...]      some stages, each from the shipped weights, then the tables
set -uo pipefail
task=$1 scale=$2 minutes=${3:-0}
OUT=${OUT:-/tmp/out}
PYTHON=${PYTHON:-python3}
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD
mkdir -p "$OUT"

pack() { # what came out so far: weights, logs
  tar -cf "$OUT/.weights.tar" -C data/weights manifest.json "$scale" && mv "$OUT/.weights.tar" "$OUT/weights.tar"
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
train() { "$PYTHON" -m minilumiere train "$1" --scale "$scale" --minutes "$2" --save-minutes 1 --ship "${@:3}" 2>>"$OUT/progress.txt"; }
if [ "$task" = train ]; then
  train all "$minutes"
else
  set -- "${@:3}"
  while [ $# -ge 2 ]; do
    train "$1" "$2" $([ -f "data/weights/$scale/$1.safetensors" ] && echo --from-shipped)
    shift 2
  done
fi
pack
kill $packing
date
export OMP_NUM_THREADS=3
for table in "--frames 16" "--frames 80" "--tasks" "--fast --frames 16" "--fast --frames 80"; do
  # shellcheck disable=SC2086
  timeout 140 "$PYTHON" -m minilumiere evaluate --scale "$scale" $table >"$OUT/evaluate${table// /}.txt" 2>&1 &
done
wait
cat "$OUT"/evaluate*.txt | tr '\r' '\n' | grep -v 'it/s\|s/it'
