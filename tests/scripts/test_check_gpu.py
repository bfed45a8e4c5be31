"""The command scripts.check_gpu: what it runs, keeps and says. Without a GPU."""

import ast
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.check_gpu import __main__ as entry
from scripts.check_gpu import catalogue, hardware, method, supervisor, worker
from scripts.check_gpu.plan import CORE_SHARE, STEPS, Check, Context
from scripts.check_gpu.record import Record, source_digest
from scripts.check_gpu.supervisor import START_S, Supervisor, run_by_worth
from tests.helpers.forked import ForkedScript, ForkingSubprocess, run_forked
from tests.scripts import check_gpu_catalogue as endings

ROOT = Path(__file__).parents[2]
ABOUT = {"device": "cpu", "gpu": None, "torch": torch.__version__}
NO_PATHS = {"gta5": None, "cityscapes": None, "work": None}
QUICK = "laws/TF32"
"""A check of less than a second."""
QUICK_FILE = "checks/laws-tf32-off-in-fp32.json"
WITHOUT_OPTIONAL = """
import sys
for name in ("ptflops", "pytest", "onnx", "onnxruntime", "onnxscript", "matplotlib"):
    sys.modules[name] = None  # importing it is an error
for name in list(sys.modules):  # what is imported already is imported once more
    if name.split(".")[0] in ("model", "dataset", "utils", "scripts", "train", "train_da", "eval"):
        del sys.modules[name]
import scripts.check_gpu.__main__, train, train_da, eval
import scripts.predict.__main__, scripts.export.__main__, scripts.prepare
try:
    import ptflops
except ImportError:
    print("no ptflops")
"""


def run(*command: object, **environment: str) -> subprocess.CompletedProcess:
    """Runs a command in the repository to its end, on one thread."""
    variables = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=400,
    )


def check_gpu(folder: Path, *arguments: str) -> int:
    """Runs scripts.check_gpu on the CPU, in this process; returns its status."""
    return entry.main(entry.parse_arguments([str(folder), "--device", "cpu", *arguments]))


@pytest.fixture(scope="module")
def forked_workers():
    """The supervisor's workers are forked: they start at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "subprocess", ForkingSubprocess)
        yield


@pytest.fixture(scope="module")
def checked(tmp_path_factory, forked_workers) -> Path:
    """The folder of a run of one quick check."""
    folder = tmp_path_factory.mktemp("checked")
    assert check_gpu(folder, "--only", QUICK) == 0
    return folder


@pytest.mark.slow
def test_every_step_runs_in_two_minutes(tmp_path):
    """--device cpu --minutes 2 runs checks of every step, and nothing fails.

    On a machine that does other work the same command goes on, twice at most.
    """
    for _ in range(3):
        start = time.monotonic()
        command = [sys.executable, "-m", "scripts.check_gpu", tmp_path, "--device", "cpu"]
        ended = run(*command, "--minutes", "2")
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert time.monotonic() - start < 180
        found = json.loads((tmp_path / "gpu.json").read_text())["checks"]
        if {check["step"] for check in found} == set(STEPS):
            break
    assert {check["step"] for check in found} == set(STEPS)
    assert {check["status"] for check in found} <= {"passed", "measured", "not here"}


def test_a_second_run_keeps_what_is_there(checked, capsys):
    """A good finding is kept, and repeated with --again."""
    first = json.loads((checked / QUICK_FILE).read_text())
    assert check_gpu(checked, "--only", QUICK) == 0
    assert "1 of 1 checks have a good finding" in capsys.readouterr().out
    assert json.loads((checked / QUICK_FILE).read_text()) == first
    assert check_gpu(checked, "--only", QUICK, "--again") == 0
    assert json.loads((checked / QUICK_FILE).read_text())["written"] > first["written"]


def test_gpu_json_names_machine_versions_and_code(checked):
    """gpu.json holds the hardware, the versions, the git revision and every figure."""
    written = json.loads((checked / "gpu.json").read_text())
    assert {"git", "torch", "cpu", "gpu", "versions", "platform"} <= written["machine"].keys()
    assert written["identity"]["source"] == source_digest()
    assert written["checks"][0]["figures"]["relative_error"] < 1e-5


def test_other_code_or_hardware_is_measured_anew(tmp_path):
    """A finding counts only with the same code and hardware."""
    check = endings.find("laws/good")
    Record(tmp_path, ABOUT).write(check, "passed", "fine", {}, 1.0)
    assert Record(tmp_path, ABOUT).kept(check)
    assert not Record(tmp_path, ABOUT | {"gpu": "another"}).kept(check)


def test_a_crash_or_a_hang_costs_one_finding(tmp_path, forked_workers):
    """Broken, failing, killed and hanging checks leave a finding each, and the others run."""
    seen = {}

    def note(entry: dict) -> None:
        seen[entry["name"]] = entry

    watch = Supervisor(Record(tmp_path, ABOUT), note, NO_PATHS, endings.__name__)
    deadline = time.time() + 200
    assert watch.run(list(endings.CHECKS), deadline, deadline) == []
    assert {name: entry["status"] for name, entry in seen.items()} == {
        "broken": "FAILED",
        "not here": "not here",
        "mistaken": "FAILED",
        "killed": "STOPPED",
        "good": "passed",
        "hangs": "STOPPED",
        "alone": "passed",
    }
    assert "found 2, expected 1" in seen["broken"]["text"]
    assert "KeyError" in seen["mistaken"]["text"]
    assert "SIGKILL" in seen["killed"]["text"]
    assert "limit" in seen["hangs"]["text"]
    assert not list((tmp_path / "checks").glob("*writing*"))


def test_the_log_names_where_a_law_broke(tmp_path):
    """A law that does not hold leaves its traceback in the log, as an error does."""
    context = Context(torch.device("cpu"), tmp_path, small=True, seconds=1)
    with contextlib.redirect_stderr(io.StringIO()) as log:
        assert worker.outcome(endings.find("laws/broken"), context)[0] == "FAILED"
    assert "in broken" in log.getvalue()
    assert "found 2, expected 1" in log.getvalue()


def test_no_time_leaves_checks_for_the_next_run(tmp_path, forked_workers, monkeypatch):
    """A check that the end of the time stops has no finding."""
    monkeypatch.setattr(supervisor, "LEAST_S", 1)
    record = Record(tmp_path, ABOUT)
    watch = Supervisor(record, lambda _entry: None, NO_PATHS, endings.__name__)
    hangs = endings.find("laws/hangs")._replace(limit_s=600)
    assert run_by_worth(watch, [hangs], minutes=2 / 60) == [hangs]
    assert record.read(hangs) is None


class Calls:
    """Stands in for the supervisor: notes what it is told, and each check takes no time."""

    def __init__(self, device: str, waits: tuple[str, ...] = ()):
        self.record = SimpleNamespace(about={"device": device})
        self.calls, self.waits = [], waits

    def run(self, checks: list[Check], until: float, deadline: float) -> list[Check]:
        self.calls.append(([check.key for check in checks], until, deadline))
        core = len(self.calls) <= len(STEPS)
        return [check for check in checks if core and check.key in self.waits]


@pytest.mark.parametrize("minutes", [5, 9, 30])
def test_equal_time_leaves_time_to_the_others(minutes):
    """The check that fills its time has its share; a law without a finding, and then the checks
    outside the core, come after it with what is left.
    """
    start, calls = time.time(), Calls("cuda", ("laws/pinned equals blocking",))
    assert run_by_worth(calls, list(catalogue.CHECKS), minutes) == []
    *_, (filling, until, deadline), (late, *_), (others, *_) = calls.calls
    assert filling == ["method/equal time"]
    assert until - start == pytest.approx(60 * minutes * CORE_SHARE["cuda"]["method"], abs=1)
    assert deadline - start == pytest.approx(60 * minutes, abs=1)
    assert late == ["laws/pinned equals blocking"]
    assert {"laws/compiles", "training/profile", "training/loader, PNG"} < set(others)


def test_equal_time_alone_has_all_the_time():
    """--only method gives the whole time to training and scoring."""
    start, calls = time.time(), Calls("cuda")
    run_by_worth(calls, catalogue.select("method"), 240)
    assert calls.calls[0][1] - start == pytest.approx(240 * 60, abs=1)


def test_a_check_knows_how_long_it_may_take():
    """Its limit, or what is left: of its share where it fills its time, else of the whole."""
    job = {"until": time.time() + 50, "deadline": time.time() + 500}
    filling = catalogue.find("method/equal time")
    assert worker.seconds_for(filling, job) == pytest.approx(50, abs=1)
    assert worker.seconds_for(filling._replace(fills=False), job) == pytest.approx(500, abs=1)
    assert worker.seconds_for(endings.find("laws/hangs"), job) == 0.5
    assert worker.seconds_for(filling, job | {"until": 0}) == 0


def test_scoring_has_its_time():
    """Of the seconds left, at least 40 and a fifth are for scoring, where there are so many."""
    assert method.training_seconds(60, small=False) == 5
    assert method.training_seconds(4000, small=False) == 800
    assert method.training_seconds(10, small=False) == 1
    assert method.training_seconds(100, small=True) == 1


def test_a_check_without_its_least_time_waits(tmp_path):
    """A check is not begun on a GPU with less time than it needs."""
    watch = Supervisor(Record(tmp_path, ABOUT | {"device": "cuda"}), print, NO_PATHS)
    filling, deadline = catalogue.find("method/equal time"), time.time() + 50
    assert watch.run([filling], deadline, deadline) == [filling]
    assert watch.process is None


def test_a_worker_ends_with_its_parent():
    """A worker whose supervisor is killed ends, with all that it started."""
    starts = (
        "import os, subprocess, sys, time\n"
        "worker = 'import time; from scripts.check_gpu import worker; import threading;'\n"
        "worker += 'ends = worker.end_with_parent;'\n"
        "worker += f'threading.Thread(target=ends, args=({os.getpid()},)).start();'\n"
        "worker += 'print(\"begins\", flush=True); time.sleep(100)'\n"
        "subprocess.Popen([sys.executable, '-c', worker], start_new_session=True)\n"
        "time.sleep(100)\n"
    )
    command = [sys.executable, "-c", starts]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "begins\n"
        parent.kill()
        assert parent.communicate(timeout=60)[0] == ""  # it is closed: the worker has ended, too


def test_the_checks_files_may_lie_elsewhere(tmp_path, forked_workers):
    """With --work DIR the folder holds results alone; without, the files lie below it."""
    assert check_gpu(tmp_path / "a", "--only", QUICK, "--work", str(tmp_path / "work")) == 0
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"checks", "gpu.json", "job.json", "logs"}
    job = json.loads((tmp_path / "a/job.json").read_text())
    assert job["work"] == str(tmp_path / "work")
    watch = Supervisor(Record(tmp_path / "b", ABOUT), print, NO_PATHS)
    assert watch.paths["work"] == str(tmp_path / "b/work")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_keeps_what_is_done(tmp_path, number):
    """SIGTERM, or a lost terminal, ends the command with its table; the findings so far stay."""
    words = (tmp_path, "--device", "cpu", "--only", "laws")
    with ForkedScript("scripts.check_gpu", *words) as running:
        end = time.monotonic() + 2 * START_S
        while not (tmp_path / QUICK_FILE).exists() and time.monotonic() < end:
            time.sleep(0.1)
        os.kill(running.pid, number)
        assert running.wait(60) == 130
        assert "goes on" in running.stdout
    checks = json.loads((tmp_path / "gpu.json").read_text())["checks"]
    assert checks[0]["name"] == "TF32 off in fp32"


def test_a_missing_gpu_is_explained():
    """Without CUDA the command says what is wrong, how to mend it, and offers --device cpu."""
    cpu_build = hardware.explain("2.6.0+cpu", None, "550.54")
    no_driver = hardware.explain("2.6.0", "12.4", None)
    too_old = hardware.explain("2.6.0", "12.4", "450.80", "The NVIDIA driver is too old")
    another = hardware.explain("2.6.0", "12.4", "550.54", "out of memory")
    assert "pip install torch" in cpu_build
    assert "Install NVIDIA's driver" in no_driver
    assert "driver 450.80 is too old" in too_old
    assert "out of memory" in another
    assert all("--device cpu" in text for text in (cpu_build, no_driver, too_old, another))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_gpu_is_asked_about_in_a_child():
    """The command itself holds no CUDA; a driver that ends the child is an error with a remedy."""
    assert hardware.in_a_child(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="nvidia-smi"):
        hardware.in_a_child(die)


def test_memory_in_use_by_others_is_shown():
    """The headline says how much memory others use, and warns of much."""
    about = {"device": "cuda", "gpu": "A", "driver": "1", "cuda": "12", "torch": "2"}
    about |= {"memory_gb": 80.0}
    crowded = hardware.headline(about | {"memory_free_at_start_gb": 40.0})
    assert "In use at the start: 40.0 GB" in crowded
    assert "WARNING" in crowded
    assert "WARNING" not in hardware.headline(about | {"memory_free_at_start_gb": 79.5})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_the_command_names_the_remedy(tmp_path):
    """No traceback: an error that names the remedy."""
    ended = run_forked("scripts.check_gpu", tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")
    assert "--device cpu" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_unknown_step_is_refused():
    """--only names a step or the beginning of STEP/NAME; every check has a name of its own."""
    with pytest.raises(ValueError, match="no such step"):
        catalogue.select("speed")
    assert {check.step for check in catalogue.select("laws")} == {"laws"}
    assert len({check.key for check in catalogue.CHECKS}) == len(catalogue.CHECKS)


def test_the_shell_script_names_what_it_tried(tmp_path):
    """An interpreter without torch is no use, and is named."""
    ended = run(ROOT / "scripts/check_gpu.sh", PYTHON=str(tmp_path / "no-python"))
    assert ended.returncode == 1
    assert "no-python" in ended.stderr


def test_optional_packages_are_optional(tmp_path):
    """The command, and the scripts that it runs, start without them."""
    script = tmp_path / "starts.py"
    script.write_text(WITHOUT_OPTIONAL)
    ended = run_forked(str(script))
    assert ended.returncode == 0, ended.stderr
    assert "no ptflops" in ended.stdout


def test_it_imports_no_other_script():
    """The package imports itself, the reference implementation and the three folders."""
    allowed = ("scripts.check_gpu", "scripts.baselines")
    for path in (ROOT / "scripts/check_gpu").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom):
                continue
            names = [node.module]
            if node.module == "scripts":
                names = [f"scripts.{alias.name}" for alias in node.names]
            first = names[0].split(".")[0]
            if first in ("scripts", "train", "train_da", "eval", "tests"):
                assert all(name.startswith(allowed) for name in names), path
