#!/usr/bin/env bash
# The whole method on generated streets, on a CPU, in minutes: environment, data, training of every row of a small Table II, scores, pictures.
# Usage: scripts/demo.sh [FOLDER]     FOLDER (default: checkpoints/demo) receives everything; run again, it goes on where it stopped.
# An illustration: short and with one seed. docs/results.md has the measurement. VENV and PYTHON choose the environment: see scripts/environment.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment requirements.txt

# A signal reaches the running command, which saves; the demo ends with it, and goes on when it is started again.
set -m  # a group of its own for the command: Ctrl-C comes here, and is handed on once
run() {
    local status=0
    "$@" &
    child=$!
    trap 'stopped=1; kill -TERM "$child" 2>/dev/null || true' INT TERM HUP
    while :; do  # a signal ends wait, not the command
        wait "$child" && status=0 || status=$?
        kill -0 "$child" 2>/dev/null || break
    done
    trap - INT TERM HUP
    if [ -n "${stopped:-}" ]; then
        echo "Stopped. Run this again to go on." >&2
        exit 130
    fi
    return "$status"
}

folder=${1:-checkpoints/demo}
data=$folder/data
run "$python" -m scripts.make_demo_data --output "$data" --source-images 300 --target-train 300 --target-val 50
# Every row has the same number of steps: a common start on the source, then as many again of source-only or of adaptation.
run "$python" -m scripts.reproduce --preset demo --gta5 "$data/gta5" --cityscapes "$data/cityscapes" --output "$folder" --one-table
rows=("$folder"/seed0/{source-only,ada,light-ada,light-lab-ada,strong,oracle}/last.pt)
streets=("$data"/cityscapes/leftImg8bit/val/*/*.png)
run "$python" -m scripts.predict "${streets[@]:0:5}" --labels "$data/cityscapes/gtFine" --compare "${rows[@]}" --output "$folder/pictures"
run "$python" -m scripts.preview_transfer --gta5 "$data/gta5" --cityscapes "$data/cityscapes" --output "$folder/transfer.png"

cat <<END

An illustration: a few hundred steps a row, one seed, generated streets. docs/results.md has what was measured with more.
  the report, for a browser            $folder/report.html    (tables, learning curves, classes, pictures; one file)
  image | ground truth | each method   $folder/pictures/comparison.png
  the LAB color transfer              $folder/transfer.png
  the table, also as CSV and LaTeX     $folder/tables.md
  everything that was logged           $python -m tensorboard.main --logdir $folder/seed0
To try the networks on your own images, videos and camera, in a browser (pip install -r requirements-app.txt):
  $python -m scripts.app ${rows[*]}
On the real data sets (README.md says how to obtain them), on a GPU:
  $python train_da.py --discriminator light --lab --gta5 \$GTA5 --cityscapes \$CITYSCAPES
  $python eval.py checkpoints/light-lab-resnet101-seed0/last.pt --cityscapes \$CITYSCAPES
END
