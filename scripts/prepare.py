"""Checks a raw data set, decodes it once and measures it, so that training reads only the pixels
that it needs.

The prepared root has the tree of the raw one, with uncompressed arrays (.npy) in place of PNGs;
every script accepts it wherever it accepts the raw root. Files that are damaged or do not fit
together are left out and listed, with the remedy. An interrupted run goes on where it stopped when
the same command is given again; so does one whose raw data has changed.
"""

import shlex
import sys
from argparse import ArgumentTypeError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2

from dataset.cityscapes import cityscapes_tree
from dataset.gta5 import gta5_tree
from dataset.labels import CLASS_NAMES
from dataset.listing import DatasetLayout, read_name_list
from dataset.prepared.build import (
    PrepareJob,
    PrepareReport,
    check,
    gigabytes,
    prepare,
    write_report,
)
from dataset.prepared.check import KINDS
from dataset.prepared.journal import FOLDER
from dataset.synthia import synthia_tree
from utils.options.parser import (
    available_cores,
    new_parser,
    positive_int,
    user_errors_without_traceback,
)
from utils.report.tables import markdown_table

EPILOG = """examples:
  what is wrong with my copy? (writes nothing; exit status 1 when anything is)
    python -m scripts.prepare --gta5 $GTA5 --check
  prepare both data sets
    python -m scripts.prepare --gta5 $GTA5 --output $GTA5_PREPARED
    python -m scripts.prepare --cityscapes $CITYSCAPES --output $CITYSCAPES_PREPARED
  on eight machines that share a file system (SLURM: sbatch --array=1-8); nothing is to be merged afterwards
    python -m scripts.prepare --gta5 $GTA5 --output $GTA5_PREPARED --shard $SLURM_ARRAY_TASK_ID/8
then train with --gta5 $GTA5_PREPARED --cityscapes $CITYSCAPES_PREPARED
"""


def shard(text: str) -> tuple[int, int]:
    """An argparse type: "I/N" with 1 <= I <= N."""
    try:
        part, total = (int(number) for number in text.split("/"))
    except ValueError as error:
        raise ArgumentTypeError(f"expected I/N, such as 3/8, found {text}") from error
    if not 1 <= part <= total:
        raise ArgumentTypeError(f"expected I/N with I from 1 to N, found {text}")
    return part, total


def parse_arguments(argv: list[str] | None = None):
    parser = new_parser(__doc__, EPILOG)
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--gta5",
        type=Path,
        metavar="ROOT",
        help="the raw root of GTA5: folder with images/ and labels/",
    )
    data.add_argument(
        "--cityscapes",
        type=Path,
        metavar="ROOT",
        help="the raw root of Cityscapes: folder with leftImg8bit/ and gtFine/",
    )
    data.add_argument(
        "--synthia",
        type=Path,
        metavar="ROOT",
        help="the raw root of SYNTHIA-RAND-CITYSCAPES: folder with RGB/ and GT/LABELS/",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=("train", "val"),
        default=["train", "val"],
        help="of Cityscapes",
    )
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="prepare only the images that this file names, one a line (with one split only)",
    )
    parser.add_argument(
        "--without-labels",
        action="store_true",
        help="prepare images alone: a target needs no labels",
    )
    parser.add_argument(
        "--lab-copies",
        action="store_true",
        help=(
            "store every image a second time, in LAB, as numbers of its own colors: training with"
            " --lab then takes a third of the time for a source image, and the images twice the"
            " disk or less (4 to 8 MB more for an image of GTA5). Of no use for Cityscapes"
        ),
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--output",
        type=Path,
        metavar="PREPARED",
        help="the prepared root: a new folder, or one to complete or bring up to date",
    )
    target.add_argument(
        "--check", action="store_true", help="only look: decode everything, report, write nothing"
    )
    parser.add_argument(
        "--shard",
        type=shard,
        default=(1, 1),
        metavar="I/N",
        help="do the I-th of N parts, to split the work over machines",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        default=available_cores(),
        help="processes that decode, on this machine",
    )
    args = parser.parse_args(argv)
    if args.list and args.cityscapes and len(args.splits) > 1:
        parser.error("--list needs --splits with one split: its names are below that split")
    return args


def text_of(report: PrepareReport, root: Path) -> str:
    """The report as people read it."""
    lines = [
        f"{report.data} under {root}: {report.good} good images, {len(report.problems)} problems"
    ]
    if report.good:
        sizes = ", ".join(
            f"{height}x{width}: {count}" for (height, width), count in report.sizes.most_common(5)
        )
        more = f", and {len(report.sizes) - 5} others" if len(report.sizes) > 5 else ""
        lines += [f"sizes (height x width): {sizes}{more}; {gigabytes(report.bytes)} decoded"]
    if report.classes.any():
        shares = 100 * report.classes / report.classes.sum()
        rows = [
            [name, f"{share:.3f}"]
            for name, share in zip((*CLASS_NAMES, "(ignored)"), shares, strict=True)
        ]
        lines += ["", markdown_table(["class", "% of pixels"], rows)]
        absent = [
            name for name, count in zip(CLASS_NAMES, report.classes, strict=False) if count == 0
        ]
        lines += [f"no pixel of: {', '.join(absent)}"] if absent else []
    for kind in KINDS:
        found = sorted(problem for problem in report.problems if problem.kind == kind)
        if found:
            lines += ["", f"{kind}: {len(found)}", *(f"  {problem.text}" for problem in found)]
    return "\n".join(lines)


def trees(args) -> list[tuple[str, DatasetLayout]]:
    labels = not args.without_labels
    root = args.gta5 or args.cityscapes or args.synthia
    if (root / FOLDER).is_dir():
        raise ValueError(f"{root} is a prepared root already; expected the raw one with its PNGs.")
    if args.gta5:
        return [("gta5", gta5_tree(args.gta5, labels))]
    if args.synthia:
        return [("synthia", synthia_tree(args.synthia, labels))]
    return [
        (f"cityscapes-{split}", cityscapes_tree(args.cityscapes, split, labels))
        for split in args.splits
    ]


def main(args) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    wanted = None if args.list is None else read_name_list(args.list)
    command = shlex.join(["python", "-m", "scripts.prepare", *sys.argv[1:]])
    problems = 0
    for data, tree in trees(args):
        job = PrepareJob(
            tree,
            data,
            not args.without_labels,
            args.lab_copies,
            wanted,
            str(args.list),
            args.shard,
            args.workers,
        )
        report = check(job) if args.check else prepare(job, args.output, command)
        text = text_of(report, tree.root)
        print("\n" + text)
        problems += len(report.problems)
        if args.output:
            write_report(args.output, job, text)
            left_out = (
                f"; left out: see above, and {FOLDER}/{data}-*.txt there" if report.problems else ""
            )
            print(
                f"\n{args.output}: {report.made} images of {data} prepared now,"
                f" {report.good - report.made} there already{left_out}."
            )
    if args.check and problems:
        sys.exit(1)


if __name__ == "__main__":
    with user_errors_without_traceback():
        try:
            main(parse_arguments())
        except KeyboardInterrupt:
            sys.exit(
                "\nInterrupted. What was prepared is whole: give the same command again and it goes"
                " on from there."
            )
        except BrokenProcessPool:
            sys.exit(
                "error: a worker was killed, probably for want of memory. Give the same command"
                " again with fewer --workers."
            )
