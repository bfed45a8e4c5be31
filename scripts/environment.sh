# Sourced by demo.sh and test.sh: sets $python to the interpreter of a virtual environment that satisfies the given requirements file,
# making the environment where it is missing, half-made, or made for other requirements. No root, and no network once it is there.
#   VENV    folder of the environment (default: .venv in the repository)
#   PYTHON  interpreter to make it with (default: the first of python3, python3.14 ... python3.11 that is new enough)

fail() { echo "error: $*" >&2; exit 1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is needed; found $(python3 --version 2>&1 || echo 'no python3'). Install one, or name it: PYTHON=/path/to/python3.11 $0"
}

prepare_environment() {  # REQUIREMENTS_FILE
    local requirements=$1 venv=${VENV:-.venv} base wanted
    wanted=$(cat requirements*.txt | cksum)
    python=$venv/bin/python
    # The stamp is written last: an interrupted set-up has none, and is made again.
    if [ "$(cat "$venv/$requirements.installed" 2>/dev/null)" = "$wanted" ] && "$python" -c '' 2>/dev/null; then
        return
    fi
    base=$(find_python)
    echo "Setting up $venv for $requirements with $("$base" --version); this downloads PyTorch once (several GB)."
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ]; then
        fail "$venv exists and is no virtual environment. Move it away, or choose another folder: VENV=FOLDER $0"
    fi
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        rm -rf "$venv"
        "$base" -m venv "$venv" || fail "$base cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv; then run $0 again."
    fi
    "$python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" \
        || fail "pip could not install $requirements. Check the network and the space on the disk (about 6 GB), then run $0 again: it goes on."
    echo "$wanted" > "$venv/$requirements.installed"
}
