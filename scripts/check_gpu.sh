#!/usr/bin/env bash
# Does this GPU work with the project, and how fast is it? Five minutes, no network; docs/gpu.md says how to read it.
# Usage: scripts/check_gpu.sh [FOLDER] [ARGUMENTS]     see: scripts/check_gpu.sh --help
# PYTHON names an interpreter with torch >= 2.6, torchvision, numpy, opencv, tqdm and tensorboard. Default: that of the project's
# own environment (VENV, else .venv) where there is one, else the first of python, python3 that can import torch. Nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

candidates=("${VENV:-.venv}/bin/python" python python3)
for candidate in ${PYTHON:-"${candidates[@]}"}; do
    if "$candidate" -c 'import torch' 2>/dev/null; then
        exec "$candidate" -m scripts.check_gpu "$@"
    fi
done
echo "error: no interpreter that can import torch; tried ${PYTHON:-${candidates[*]}}." \
    "Name one: PYTHON=/path/to/python $0, or make an environment: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt" >&2
exit 1
