"""Does this GPU work with the project, and how fast is it? Laws first, then speeds.

Needs no network. Each finding is printed and written at once to FOLDER/checks and FOLDER/gpu.json;
an interrupted run goes on where it stopped when the same command is given again.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.check_gpu")

import os
import signal
import sys
import time
from pathlib import Path

import torch

from scripts.check_gpu import catalogue, hardware
from scripts.check_gpu.plan import STEPS, Check
from scripts.check_gpu.record import GOOD, Record, line, table
from scripts.check_gpu.supervisor import Supervisor, run_by_worth
from utils.files import output_folder
from utils.options.parser import new_parser, positive_float, user_errors_without_traceback

EPILOG = """examples:
  python -m scripts.check_gpu                            five minutes: the core of every step
  python -m scripts.check_gpu --minutes 30               more of every step
  python -m scripts.check_gpu --only training --minutes 10
  python -m scripts.check_gpu --only method --minutes 120 --gta5 $GTA5 --cityscapes $CITYSCAPES
  python -m scripts.check_gpu --device cpu --minutes 2   all steps at a small size, without a GPU
"""


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("checkpoints/check-gpu"),
        metavar="FOLDER",
        help="results go here",
    )
    parser.add_argument(
        "--minutes",
        type=positive_float,
        default=5,
        help="time for the whole; the core of every step comes first",
    )
    parser.add_argument(
        "--only",
        metavar="STEP",
        help=f"one step ({', '.join(STEPS)}), or checks as STEP/NAME, by the beginning",
    )
    parser.add_argument(
        "--again", action="store_true", help="repeat checks that have a good finding already"
    )
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: everything at a small size"
    )
    parser.add_argument(
        "--gta5",
        type=Path,
        metavar="ROOT",
        help="real source data for --only method; default: generated streets",
    )
    parser.add_argument(
        "--cityscapes", type=Path, metavar="ROOT", help="real target data for --only method"
    )
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="the checks' own files, some GB, go here; default: FOLDER/work",
    )
    args = parser.parse_args(argv)
    if (args.gta5 is None) != (args.cityscapes is None):
        parser.error(
            "--gta5 and --cityscapes go together: give both roots, or neither for generated streets"
        )
    reads_roots = not args.only or args.only.startswith("method") or "method".startswith(args.only)
    if args.gta5 and not reads_roots:
        parser.error("--gta5 and --cityscapes are read by --only method. Leave them out")
    return args


def main(args) -> int:
    checks = catalogue.select(args.only)
    if args.device == "cuda":
        problem, about = hardware.in_a_child(hardware.examine)
        if problem:
            raise ValueError(problem)
    else:
        about = hardware.describe(torch.device("cpu"))
    folder = output_folder(args.folder.absolute())
    record = Record(folder, about)
    print(
        hardware.headline(about),
        *hardware.left_out(about),
        f"Results: {folder}",
        "",
        sep="\n",
        flush=True,
    )

    kept = [] if args.again else [check for check in checks if record.kept(check)]
    if kept:
        print(
            f"{len(kept)} of {len(checks)} checks have a good finding with this code and hardware:",
            "kept (--again repeats them).",
        )

    def show(entry: dict) -> None:
        print(line(entry), flush=True)
        record.summarise(catalogue.select(None))

    paths = {
        name: None if path is None else str(path.absolute())
        for name, path in (("gta5", args.gta5), ("cityscapes", args.cityscapes))
    }
    work = output_folder((args.work or folder / "work").absolute())
    supervisor, start = Supervisor(record, show, paths | {"work": str(work)}), time.time()
    left, interrupted = [], False
    waiting = [check for check in checks if check not in kept]
    try:
        left = run_by_worth(supervisor, waiting, args.minutes)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        supervisor.stop()

    shown = [entry for entry in map(record.read, checks) if entry is not None]
    record.summarise(catalogue.select(None))
    print("\n" + table(shown), f"\n{time.time() - start:.0f} s.")
    print(
        f"All figures are in {folder / 'gpu.json'}, what the checks printed in {folder / 'logs'}."
    )
    return conclude(shown, left, interrupted)


def conclude(shown: list[dict], left: list[Check], interrupted: bool) -> int:
    """Says what is missing and what is not good; returns the exit status."""
    if left:
        print("Not begun or not finished in time:", ", ".join(check.key for check in left))
        print("The same command goes on with them.")
    if interrupted:
        print("Interrupted. What is done is kept; the same command goes on.")
        return 130
    bad = [f"{entry['step']}/{entry['name']}" for entry in shown if entry["status"] not in GOOD]
    if bad:
        print(f"{len(bad)} checks are not good: {', '.join(bad)}.")
        print('See docs/gpu.md, "When a check fails".')
    return int(bool(bad))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, _interrupt)
    with user_errors_without_traceback():
        sys.exit(main(parse_arguments()))
