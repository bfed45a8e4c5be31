#!/usr/bin/env bash
# Sets up an environment and runs the tests.
# Usage: scripts/test.sh [--all] [PYTEST ARGUMENTS]     --all adds the slow ones
# Tests on real frames run where REAL_DATA names their folder. VENV and PYTHON choose the environment: see scripts/environment.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
prepare_environment requirements-dev.txt

selection=(-m "not slow")
if [ "${1:-}" = --all ]; then
    selection=()
    shift
fi
# One process a core and one thread a process: the networks of the tests are too small for more.
# A file stays in one process, which makes its fixtures once.
OMP_NUM_THREADS=1 exec "$python" -m pytest --numprocesses auto --dist loadfile "${selection[@]}" "$@"
