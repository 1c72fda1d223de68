#!/usr/bin/env bash
# What is measured in the first minutes with a GPU, the most telling first; nothing is fetched from a network.
#   bash benchmarks/accelerator.sh                  all parts, nine minutes
#   bash benchmarks/accelerator.sh right cost       some of them
#   bash benchmarks/accelerator.sh --smoke [part]   a reduced version on the CPU, to try the script
# Each part writes OUT/<part>.json and OUT/log.txt as it goes, so that a run that is cut loses one part; called again, a
# part goes on. BUNDLE is what `make accelerator-bundle` made: data, weights, and the packages that a machine may lack.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-results/accelerator}
BUNDLE=${BUNDLE:-dist/accelerator}
PARTS=(right cost captured workloads meta)
declare -A SECONDS_OF=([right]=120 [cost]=130 [captured]=60 [workloads]=130 [meta]=100)

smoke=()
chosen=()
for word in "$@"; do
  case $word in
    --smoke) smoke=(--smoke) ;;
    right | cost | captured | workloads | meta) chosen+=("$word") ;;
    *) echo "$word is no part: choose of ${PARTS[*]}, or --smoke" >&2; exit 2 ;;
  esac
done
((${#chosen[@]})) || chosen=("${PARTS[@]}")

mkdir -p "$OUT"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if compgen -G "$BUNDLE/wheels/*.whl" >/dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$PYTHON" -m pip install --quiet --no-index --no-deps --target "$site" "$BUNDLE"/wheels/*.whl || exit
  export PYTHONPATH="$PYTHONPATH:$site" # last, so that what the machine has comes first
fi

status=0
for part in "${chosen[@]}"; do
  echo "== $part" | tee -a "$OUT/log.txt"
  # A part that does not end by itself is ended after twice its time.
  limit=$((2 * ${SECONDS_OF[$part]}))
  ((${#smoke[@]})) && limit=600
  timeout "$limit" \
    "$PYTHON" -m benchmarks.accelerator "$part" --out "$OUT" --bundle "$BUNDLE" "${smoke[@]}" 2>&1 |
    tee -a "$OUT/log.txt" || { status=1; echo "== $part ended with an error" | tee -a "$OUT/log.txt"; }
done
exit $status
