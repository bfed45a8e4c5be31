#!/usr/bin/env bash
# The whole method on generated streets, on a CPU, in minutes: environment, data, training of every row of a small Table II, scores, pictures.
# Usage: scripts/demo.sh [FOLDER]     FOLDER (default: checkpoints/demo) receives everything; run again, it goes on where it stopped.
# An illustration: short and with one seed. docs/results.md has the measurement. VENV and PYTHON choose the environment: see scripts/environment.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment requirements.txt

folder=${1:-checkpoints/demo}
data=$folder/data
steps=${DEMO_STEPS:-300}     # of the source-only start; each further row takes as many again
"$python" -m scripts.make_demo_data --output "$data" --source-images 300 --target-train 300 --target-val 50

common=(--backbone resnet18 --backbone-weights none --crop-size 128 256 --batch-size 4 --lr 2e-2 --scales 0.75 1.0 1.5 --seed 0
        --output "$folder" --save-every 100 --log-every 50)

row() {  # NAME SCRIPT ARGUMENTS...
    local name=$1 script=$2 resume=()
    shift 2
    if [ -e "$folder/$name/last.pt" ]; then
        resume=(--resume)
    fi
    echo "== $name"
    "$python" "$script" "${common[@]}" --name "$name" "$@" "${resume[@]}"
}

# Every row has the same number of steps: a common start on the source, then as many again of source-only or of adaptation.
start=(--init "$folder/start/last.pt" --gta5 "$data/gta5" --max-steps "$steps" --schedule-steps "$steps")
row start train.py --train-on gta5 --gta5 "$data/gta5" --max-steps "$steps" --schedule-steps "$((2 * steps))"
row source-only train.py --train-on gta5 "${start[@]}"
row ada train_da.py --discriminator full --cityscapes "$data/cityscapes" "${start[@]}"
row light-ada train_da.py --discriminator light --cityscapes "$data/cityscapes" "${start[@]}"
row light-lab-ada train_da.py --discriminator light --lab --cityscapes "$data/cityscapes" "${start[@]}"
row oracle train.py --train-on cityscapes --cityscapes "$data/cityscapes" --max-steps "$((2 * steps))" --validate-every 0

rows=("$folder"/{source-only,ada,light-ada,light-lab-ada,oracle}/last.pt)
"$python" eval.py "${rows[@]}" --cityscapes "$data/cityscapes" --json "$folder/scores.json"
"$python" -m scripts.predict "$data/cityscapes/leftImg8bit/val" --compare "${rows[@]}" --output "$folder/pictures" --limit 6
"$python" -m scripts.preview_transfer --gta5 "$data/gta5" --cityscapes "$data/cityscapes" --output "$folder/transfer.png"

cat <<END

An illustration: $((2 * steps)) steps a row, one seed, generated streets. docs/results.md says what was measured with three seeds.
  image | ground truth | each method   $folder/pictures
  the LAB colour transfer              $folder/transfer.png
  learning curves                      $python -m tensorboard.main --logdir $folder
On the real data sets (README.md says how to obtain them), on a GPU:
  $python train_da.py --discriminator light --lab --gta5 \$GTA5 --cityscapes \$CITYSCAPES
  $python eval.py checkpoints/light-lab-resnet101-seed0/last.pt --cityscapes \$CITYSCAPES
END
