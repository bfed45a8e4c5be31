"""scripts/environment.sh: what it makes of missing interpreters, of what lies in the way, and of
interrupted set-ups.

The interpreter is a stand-in that makes an "environment" with a copy of itself and notes what pip
is asked for: nothing is installed.
"""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INTERPRETER = """#!/usr/bin/env bash
case "$1 $2" in
    "--version ") echo "Python 3.12.0" ;;
    "-m venv") mkdir -p "$3/bin"; touch "$3/pyvenv.cfg"; cp "$0" "$3/bin/python" ;;
    "-m pip") echo "$*" >> pip.log ;;
esac
"""


@pytest.fixture
def prepare(tmp_path):
    """Runs the set-up in a folder of its own, with a stand-in interpreter that ``changes`` have
    been made to.
    """
    (tmp_path / "requirements.txt").write_text("torch\n")

    def run(*changes: tuple[str, str]) -> subprocess.CompletedProcess:
        text = INTERPRETER
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "python").write_text(text)
        (tmp_path / "python").chmod(0o755)
        command = (
            f"set -euo pipefail; source {ROOT}/scripts/environment.sh; prepare_environment"
            " requirements.txt; echo ready $python"
        )
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(tmp_path / "python")}
        return subprocess.run(
            ["bash", "-c", command, "set-up"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    return run


def installs(folder: Path) -> int:
    return (folder / "pip.log").read_text().count("install") if (folder / "pip.log").exists() else 0


def test_it_is_made_once_and_again_for_other_requirements(prepare, tmp_path):
    for expected in (1, 1):
        done = prepare()
        assert done.stdout.endswith("ready .venv/bin/python\n"), done.stderr
        assert installs(tmp_path) == expected
    (tmp_path / "requirements.txt").write_text("torch\nnumpy\n")
    prepare()
    assert installs(tmp_path) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ('case "$1 $2" in', 'case "$1 $2" in\n    -c*) exit 1 ;;'),
            "3.11 or newer is needed; found {python}, which is Python 3.12.0. Install one, or",
        ),
        (
            ("#!/usr/bin/env bash", "#!/nowhere"),
            "3.11 or newer is needed; found none (looked for {python}). Install one, or",
        ),
        (('cp "$0" "$3/bin/python"', "exit 1"), "apt install python3-venv"),
        (
            ('echo "$*" >> pip.log', '[ "$3" = --version ]'),
            "pip could not install requirements.txt. Check the network and the space",
        ),
    ],
    ids=["too old", "none", "no venv module", "no network"],
)
def test_what_is_missing_is_named_and_the_same_command_goes_on(prepare, tmp_path, change, message):
    done = prepare(change)
    assert done.returncode == 1
    assert message.format(python=tmp_path / "python") in done.stderr
    done = prepare()
    if "pip.log" in change[0]:  # the environment stands, with the stand-in that cannot install
        (tmp_path / ".venv/bin/python").write_text(INTERPRETER)
        done = prepare()
    assert "ready" in done.stdout, done.stderr


def test_a_set_up_that_was_killed_is_begun_anew(prepare, tmp_path):
    killed = prepare(
        ('touch "$3/pyvenv.cfg"', 'touch "$3/pyvenv.cfg" "$3/half"; kill -9 $PPID; sleep 5')
    )
    assert killed.returncode == -9
    assert (tmp_path / ".venv/half").exists()
    assert "ready" in prepare().stdout
    assert not (tmp_path / ".venv/half").exists()


def test_an_environment_whose_interpreter_is_gone_is_made_again(prepare, tmp_path):
    prepare()
    (tmp_path / ".venv/bin/python").unlink()
    assert "ready" in prepare().stdout
    assert installs(tmp_path) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"thesis.tex": ""}, "is no virtual environment. Move it away"),
        ({"pyvenv.cfg": "", "mine": ""}, "has no working pip: another tool made it"),
    ],
)
def test_what_others_made_is_left_alone(prepare, tmp_path, content, message):
    (tmp_path / ".venv").mkdir()
    for name, text in content.items():
        (tmp_path / ".venv" / name).write_text(text)
    done = prepare()
    assert done.returncode == 1
    assert message in done.stderr
    assert "VENV=FOLDER" in done.stderr
    assert {path.name for path in (tmp_path / ".venv").iterdir()} == content.keys()


def test_an_empty_folder_is_used(prepare, tmp_path):
    (tmp_path / ".venv").mkdir()
    assert "ready" in prepare().stdout
