# Sourced by demo.sh and test.sh: sets $python to the interpreter of a virtual environment that satisfies the given requirements file,
# making the environment where it is missing, half-made, or made for other requirements. No root, and no network once it is there.
#   VENV    folder of the environment (default: .venv in the repository)
#   PYTHON  interpreter to make it with (default: the first of python3, python3.14 ... python3.11 that is new enough)

fail() { echo "error: $*" >&2; exit 1; }

find_python() {
    local candidate version found=
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
        version=$("$candidate" --version 2>/dev/null) && found+="${found:+, }$candidate, which is $version"
    done
    fail "Python 3.11 or newer is needed; found ${found:-none (looked for ${PYTHON:-python3})}. Install one, or name it: PYTHON=/path/to/python3.11 $0"
}

prepare_environment() {  # REQUIREMENTS_FILE
    local requirements=$1 venv=${VENV:-.venv} base wanted stamp
    wanted=$(cat requirements*.txt | cksum)
    python=$venv/bin/python stamp=$venv/$1.installed
    # The stamp is written last: an interrupted set-up has none, and goes on.
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && "$python" -c '' 2>/dev/null; then
        return
    fi
    base=$(find_python)
    if [ -e "$venv/.being-made" ] || { compgen -G "$venv/*.installed" >/dev/null && ! "$python" -m pip --version >/dev/null 2>&1; }; then
        rm -rf "$venv"  # ours, and half-made or without the interpreter that it was made with
    fi
    if [ -e "$venv" ] && [ ! -e "$venv/pyvenv.cfg" ] && { [ ! -d "$venv" ] || [ -n "$(ls -A "$venv")" ]; }; then
        fail "$venv exists and is no virtual environment. Move it away, or choose another folder: VENV=FOLDER $0"
    fi
    echo "Setting up $venv for $requirements with $("$base" --version); this downloads PyTorch once (several GB)."
    if [ ! -e "$venv/pyvenv.cfg" ]; then
        mkdir -p "$venv" && touch "$venv/.being-made" || fail "Cannot write into $venv. Choose another folder: VENV=FOLDER $0"
        "$base" -m venv "$venv" || fail "$base cannot make a virtual environment in $venv. If its venv module is missing, on Debian and Ubuntu:" \
            "apt install python3-venv. If there is no room: free some, or choose another folder, VENV=FOLDER. Then run $0 again."
        rm "$venv/.being-made"
    fi
    "$python" -m pip --version >/dev/null 2>&1 \
        || fail "$venv has no working pip: another tool made it, or it is damaged. Move it away, or choose another folder: VENV=FOLDER $0"
    "$python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements" \
        || fail "pip could not install $requirements. Check the network and the space on the disk (about 6 GB), then run $0 again: it goes on."
    echo "$wanted" > "$stamp"
}
