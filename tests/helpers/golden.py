"""Proof that a change of the code leaves its results alone: two git revisions, one machine, bit for
bit.

    python -m tests.helpers.golden e48f3af HEAD
    python -m tests.helpers.golden e48f3af .            # "." is the working tree

Each revision trains 4 steps of every configuration below, evaluates, predicts, labels and prepares
the same generated images. Compared are all tensors of the checkpoints (networks, optimizers,
teachers, random state), all scalars and pictures in TensorBoard, scores, and the files written.
The configurations are written in the flags of revision e48f3af. A newer revision names what it has
renamed in utils/options/renamed.py; tags of TensorBoard are in RENAMED_TAGS here. The comparison
goes through these tables and no other.
"""

import argparse
import contextlib
import hashlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

RENAMED_TAGS = {
    "mixing/pasted": "classmix/pasted_fraction",
    "teacher/sure": "pseudo_label/confident_fraction",
}
"""Tags of TensorBoard: {before: in a revision with the table}."""

SMALL = "--backbone resnet18 --backbone-weights none --crop-size 64 64 --device cpu --workers 0"
SMALL += " --log-every 1 --panel-every 2 --seed 3"
ADAPT = "--gta5 {data}/gta5 --cityscapes {data}/cityscapes --max-steps 4"
SUPERVISED = "--cityscapes {data}/cityscapes --max-steps 4"

TRAINING = {
    "supervised": ("train", f"{SUPERVISED} --train-on cityscapes --validate-every 2"),
    "supervised-authors": ("train", f"{SUPERVISED} --recipe authors --train-on cityscapes"),
    "source-only": (
        "train",
        (
            f"{SUPERVISED} --train-on gta5 --gta5 {{data}}/gta5 --lab 0.5 --jitter --blur 0.5"
            " --rare-classes --max-class-share 0.5 --pixel-weights class --fusion-channels 32"
        ),
    ),
    "source-only-ohem": (
        "train",
        (
            "--max-steps 4 --train-on gta5 --gta5 {data}/gta5 --pixel-weights hard --warmup 2"
            " --new-layer-rate 10"
        ),
    ),
    "full": ("train_da", f"{ADAPT} --discriminator full"),
    "light": ("train_da", f"{ADAPT} --validate-every 2"),
    "light-joint": ("train_da", f"{ADAPT} --domain-batches joint"),
    "light-two-levels": ("train_da", f"{ADAPT} --lambda-adv-aux 0.005"),
    "light-least-squares": ("train_da", f"{ADAPT} --adversarial-loss least-squares"),
    "advent": ("train_da", f"{ADAPT} --discriminator-input entropy --d-lr 1e-4"),
    "light-lab": ("train_da", f"{ADAPT} --lab"),
    "light-lab-by-class": ("train_da", f"{ADAPT} --lab --lab-by-class"),
    "light-fda": ("train_da", f"{ADAPT} --fda"),
    "light-frozen": ("train_da", f"{ADAPT} --bn frozen"),
    "light-accumulate": ("train_da", f"{ADAPT} --accumulate 2"),
    "light-authors": ("train_da", f"{ADAPT} --recipe authors"),
    "light-own-images": (
        "train_da",
        "--gta5 {data}/gta5 --target-images {data}/cityscapes/leftImg8bit/train --max-steps 4",
    ),
    "light-prepared": (
        "train_da",
        "--gta5 {out}/prepared --cityscapes {data}/cityscapes --max-steps 4 --lab",
    ),
    "minent": ("train_da", f"{ADAPT} --method minent --pixel-weights class"),
    "pseudo-labels": (
        "train_da",
        f"{ADAPT} --method pseudo-labels --pseudo-labels {{data}}/cityscapes",
    ),
    "self-training": ("train_da", f"{ADAPT} --method self-training --confidence 0.1"),
    "self-training-joint": (
        "train_da",
        (
            f"{ADAPT} --method self-training --confidence 0.1 --confidence-per pixel"
            " --domain-batches joint --teacher-statistics target --teacher-scales 0.75 1"
        ),
    ),
    "strong": (
        "train_da",
        f"{ADAPT} --recipe strong --confidence 0.1 --accumulate 2 --batch-size 8",
    ),
    "strong-scales": (
        "train_da",
        (
            f"{ADAPT} --recipe strong --confidence 0.1 --teacher-scales 1 1.5 --target-scales 0.75"
            " 1 --pixel-weights hard --ignore-rows 0.1 0.2 --mixed-jitter 0.5 --mixed-blur 1"
        ),
    ),
}
"""{name: (script, arguments)}; each runs in float32 and, where there are bf16 instructions,
bf16.
"""

RESUMED = ("light", "strong")
"""These are also stopped after 2 steps and continued, and start another run with --init."""

AFTERWARDS = {
    "eval": (
        "{runs}/light-fp32/last.pt {runs}/strong-fp32/last.pt --cityscapes {data}/cityscapes"
        " --json {out}/eval.json --pictures {out}/eval-pictures --device cpu --workers 0"
        " --save-predictions {out}/eval-predictions --precision fp32"
    ),
    "eval-tta": (
        "{runs}/supervised-fp32/last.pt --gta5 {data}/gta5 --json {out}/eval-tta.json"
        " --tta multiscale --classes carla13 --device cpu --workers 0 --precision fp32"
    ),
    "scripts.predict": (
        "{data}/cityscapes/leftImg8bit/val --model {runs}/light-fp32/last.pt"
        " --output {out}/predictions --device cpu"
    ),
    "scripts.make_pseudo_labels": (
        "{runs}/strong-fp32/last.pt --cityscapes {data}/cityscapes"
        " --output {out}/pseudo-labels --keep 0.7 --device cpu --workers 0"
    ),
    "scripts.recalibrate": (
        "{runs}/light-fp32/last.pt --cityscapes {data}/cityscapes"
        " --output {out}/recalibrated.pt --device cpu --workers 0 --crop-size 64 64"
    ),
    "scripts.make_demo_data": (
        "--output {out}/demo --source-images 2 --target-train 2 --target-val 1"
    ),
}
"""{module, perhaps with a dash and a word: arguments}, run after the training, each once."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("revisions", nargs=2, metavar="REVISION", help='"." is the working tree')
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="records of commits to reuse")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these training configurations")
    parser.add_argument(
        "--record", nargs=2, type=Path, metavar=("DATA", "OUT"), help=argparse.SUPPRESS
    )
    args = parser.parse_args()
    if args.record:
        record(*args.record, args.only or list(TRAINING))
        return
    with tempfile.TemporaryDirectory() as temporary:
        keep = (args.keep or Path(temporary)).absolute()
        data = keep / "data"
        if not data.exists():
            write_data(data)
        before, after = (recorded(name, data, keep, args.only) for name in args.revisions)
        found = list(differences(before, after))
    print("\n".join(found) or f"{' and '.join(args.revisions)}: the same, bit for bit.")
    sys.exit(bool(found))


def write_data(data: Path) -> None:
    """Small data sets in the trees of GTA5 and Cityscapes."""
    from tests.conftest import write_cityscapes, write_gta5

    write_gta5(data / "gta5", 6)
    write_cityscapes(data / "cityscapes", {"train": 5, "val": 3})


def recorded(revision: str, data: Path, keep: Path, only: list[str] | None) -> Path:
    """The folder with what ``revision`` computes; a commit that was recorded before is not run."""
    here = Path(__file__).parents[2]
    if revision == ".":
        out = Path(tempfile.mkdtemp(dir=keep, prefix="working-tree-"))
        run_in(here, data, out, only)
        return out
    commit = subprocess.run(
        ["git", "rev-parse", revision], cwd=here, capture_output=True, text=True, check=True
    ).stdout.strip()
    out = keep / "-".join([commit, *(only or [])])
    if not (out / "done").exists():
        checkout = keep / f"{commit}.checkout"
        subprocess.run(
            ["git", "worktree", "add", "--force", "--detach", checkout, commit],
            cwd=here,
            check=True,
        )
        try:
            run_in(checkout, data, out, only)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=here, check=True)
    return out


def run_in(checkout: Path, data: Path, out: Path, only: list[str] | None) -> None:
    """Records in a process of its own, which imports the modules of ``checkout``."""
    names = ["--only", *only] if only else []
    command = [sys.executable, Path(__file__).absolute(), ".", ".", "--record", data, out, *names]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    subprocess.run(command, cwd=checkout, env=environment, check=True)


def record(data: Path, out: Path, names: list[str]) -> None:
    """Runs everything with the modules of the current folder."""
    torch.set_num_threads(1)
    places = {"data": data, "out": out, "runs": out / "runs"}
    prepare = f"--gta5 {data}/gta5 --output {out}/prepared --workers 1"
    subprocess.run(
        [sys.executable, "-m", "scripts.prepare", *prepare.split()],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with_bf16 = "avx512_bf16" in Path("/proc/cpuinfo").read_text()
    for precision in ("fp32", "bf16") if with_bf16 else ("fp32",):
        for name in names:
            script, text = TRAINING[name]
            common = f"{SMALL} --precision {precision} --output {out}/runs"
            run(script, f"{text} {common} --name {name}-{precision}".format(**places))
            if name in RESUMED:
                for more in ("--max-steps 2", "--resume"):
                    again = f"{text} {common} --name {name}-{precision}-resumed {more}"
                    run(script, again.format(**places))
                init = f"{text} {common} --name {name}-{precision}-init"
                init += f" --init {out}/runs/{name}-{precision}/last.pt"
                run(script, init.format(**places))
    if names == list(TRAINING):
        for name, text in AFTERWARDS.items():
            argv = translated(text.format(**places).split())
            subprocess.run(
                [sys.executable, "-m", name.split("-")[0], *argv],
                check=True,
                stdout=subprocess.DEVNULL,
            )
    (out / "done").touch()


def run(module: str, arguments: str) -> None:
    """Calls an entry script in this process; what it prints is shown only if it fails."""
    script, printed = importlib.import_module(module), io.StringIO()
    entry = {"train": "train", "train_da": "adapt"}[module]
    argv = translated(arguments.split())
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            getattr(script, entry)(script.parse_arguments(argv))
    except BaseException:
        print(module, *argv, "\n", printed.getvalue())
        raise


def translated(argv: list[str]) -> list[str]:
    """Arguments in the words of the current folder's revision."""
    table = renamed_table()
    return table.new_arguments(argv) if table else argv


def renamed_table():
    """The table of old to new words; None at a revision that has none."""
    try:
        return importlib.import_module("utils.options.renamed")
    except ModuleNotFoundError:
        return None


def differences(before: Path, after: Path):
    """A line for everything that differs."""
    files = {
        folder: {
            str(path.relative_to(folder)): path
            for path in folder.rglob("*")
            if path.is_file() and path.suffix in (".pt", ".png", ".npy", ".json", ".jpg")
        }
        for folder in (before, after)
    }
    for name in sorted(files[before].keys() ^ files[after].keys()):
        yield f"{name}: in one revision only"
    for name in sorted(files[before].keys() & files[after].keys()):
        one, other = files[before][name], files[after][name]
        if name.endswith(".pt"):
            yield from checkpoint_differences(name, one, other)
        elif name.startswith("eval") and name.endswith(".json"):
            yield from score_differences(name, one, other)
        elif name.endswith((".png", ".npy", ".jpg")) and digest(one) != digest(other):
            yield f"{name}: other bytes"
    for one in sorted((before / "runs").iterdir()):
        yield from event_differences(one.name, one, after / "runs" / one.name)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checkpoint_differences(name: str, one: Path, other: Path):
    """Both are read by this checkout, which knows the names of older files."""
    from utils.training.checkpoint import read_checkpoint

    flat_one, flat_other = (dict(flat(read_checkpoint(path))) for path in (one, other))
    keep = ("parts", "step", "best", "random", "architecture", "input", "inference_network")
    names = {key for key in flat_one.keys() | flat_other.keys() if key.startswith(keep)}
    for key in sorted(names):
        a, b = flat_one.get(key), flat_other.get(key)
        if not same(a, b):
            yield f"{name}: {key} differs"


def flat(value: object, key: str = ""):
    """(path, leaf) of nested dicts and lists."""
    if isinstance(value, dict | list | tuple):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, value


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return type(a) is type(b) and (a == b or (a != a and b != b))


def score_differences(name: str, one: Path, other: Path):
    """Scores and confusion matrices of every row."""
    rows_one, rows_other = (json.loads(path.read_text())["rows"] for path in (one, other))
    for number, (a, b) in enumerate(zip(rows_one, rows_other, strict=True)):
        for key in ("matrix", "miou", "iou", "pixel_accuracy", "mean_class_accuracy", "ignored"):
            if json.dumps(a[key]) != json.dumps(b[key]):
                yield f"{name}: {key} of row {number} differs"


MONITORING = ("target_share/", "target_confidence/", "pseudo_label/student_agreement")
"""Scalars that only monitor a run and are younger than the oldest revisions."""


def event_differences(name: str, one: Path, other: Path):
    """Scalars (but times) and pictures in TensorBoard."""
    table = renamed_table()
    new_tags = RENAMED_TAGS if table else {}
    a, b = (
        {
            (new_tags.get(tag, tag), step): value
            for (tag, step), value in read_events(folder).items()
        }
        for folder in (one, other)
    )
    for key in sorted(a.keys() | b.keys()):
        if not same(a.get(key), b.get(key)):
            yield (
                f"{name}: {key[0]} at step {key[1]}: {str(a.get(key))[:40]} and"
                f" {str(b.get(key))[:40]}"
            )


def read_events(folder: Path) -> dict[tuple[str, int], object]:
    """{(tag, step): a number, or the digest of a picture}."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = events.Tags()
    found = {
        (tag, event.step): float(np.float32(event.value))
        for tag in tags["scalars"]
        if not tag.startswith(("time/", *MONITORING))
        for event in events.Scalars(tag)
    }
    pictures = {
        (tag, event.step): hashlib.sha256(event.encoded_image_string).hexdigest()
        for tag in tags["images"]
        for event in events.Images(tag)
    }
    return found | pictures


if __name__ == "__main__":
    main()
