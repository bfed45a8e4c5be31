#!/usr/bin/env bash
# The paper's ladder on the small real pair CARLA -> Cityscapes at 192x384: every row of docs/results.md's first table, one after the other.
# Usage: CARLA=ROOT CITYSCAPES=ROOT scripts/carla_ladder.sh [OUTPUT]     (PYTHON names the interpreter, default python)
# Rows that are finished are skipped and a stopped row goes on, so the command can be repeated.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CARLA:?name the folder with CARLA frames in the GTA5 tree: CARLA=ROOT}" "${CITYSCAPES:?name the small Cityscapes folder: CITYSCAPES=ROOT}"
output=${1:-checkpoints/carla}
python=${PYTHON:-python}
common=(--backbone resnet18 --backbone-weights none --lr 2e-2 --crop-size 128 256 --batch-size 4 --max-steps 1000 --schedule-steps 1000 --seed 0
        --workers 0 --validate-every 100 --log-every 50 --output "$output")

row() {  # NAME SCRIPT ARGUMENTS...
    local name=$1 script=$2
    shift 2
    [ ! -e "$output/$name.json" ] || return 0
    local resume=()
    [ ! -e "$output/$name/last.pt" ] || resume=(--resume)
    "$python" "$script" "${common[@]}" --name "$name" --cityscapes "$CITYSCAPES" "$@" "${resume[@]}"
    "$python" eval.py "$output/$name/last.pt" --cityscapes "$CITYSCAPES" --classes carla13 --workers 0 --json "$output/$name.json"
}

row source-only train.py --train-on gta5 --gta5 "$CARLA"
row light-lab-ada train_da.py --gta5 "$CARLA" --discriminator light --lab
row oracle train.py --train-on cityscapes
row source-only-lab train.py --train-on gta5 --gta5 "$CARLA" --lab
row light-ada train_da.py --gta5 "$CARLA" --discriminator light
row ada train_da.py --gta5 "$CARLA" --discriminator full
