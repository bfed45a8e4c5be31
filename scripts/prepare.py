"""Checks a raw data set, decodes it once and measures it, so that training reads only crops.

The prepared root has the tree of the raw one, with uncompressed arrays (.npy) in place of PNGs;
every script accepts it in place of the raw root. Files that are damaged or do not fit together are
left out and listed, with the remedy. The same command given again continues an interrupted run, and
updates a prepared root whose raw data has changed.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.prepare")

import argparse
import shlex
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import cv2

from dataset.class_set_file import load_class_set
from dataset.find import printable
from dataset.layout import find_pairs
from dataset.layout_file import Layout, load_layout
from dataset.listing import DataFiles
from dataset.name_list import read_name_list
from dataset.prepared.build import check, gigabytes, prepare, write_report
from dataset.prepared.check import KINDS, Problem
from dataset.prepared.job import PrepareJob, PrepareReport
from dataset.prepared.journal import FOLDER, is_prepared
from dataset.recognition import detect
from utils.locks import FileLock
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
  any other data set: recognized, or in a layout that is named or described in a file
    python -m scripts.prepare --source data/acdc --output data/acdc_prepared
    python -m scripts.prepare --source drone --layout drone.toml --check
  on eight machines that share a file system (SLURM: sbatch --array=1-8), without merging
    python -m scripts.prepare --gta5 $GTA5 --output $GTA5_PREPARED --shard $SLURM_ARRAY_TASK_ID/8
then train with --gta5 $GTA5_PREPARED --cityscapes $CITYSCAPES_PREPARED
"""


DEFAULT_SPLITS = ("train", "val")
ONE_SPLIT = "--list needs --splits with one split: its names are below that split"


def shard(text: str) -> tuple[int, int]:
    """An argparse type: "I/N" with 1 <= I <= N."""
    try:
        part, total = (int(number) for number in text.split("/"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected I/N, such as 3/8, found {text}") from error
    if not 1 <= part <= total:
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, found {text}")
    return part, total


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, EPILOG)
    _add_data_arguments(parser)
    _add_output_arguments(parser)
    parser.add_argument("--lab-copies", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.gta5 or args.synthia:
        parser.refuse_unused(parser.given(argv), ["splits"], "with data that has no splits")
    if args.list and args.cityscapes and len(args.splits or DEFAULT_SPLITS) > 1:
        parser.error(ONE_SPLIT)
    if args.layout and not args.source:
        parser.error("--layout describes the tree of --source ROOT: give --source, or leave it out")
    if args.lab_copies:
        parser.error(
            "--lab-copies was removed: LAB is as fast as needed without copies. Give the command"
            " without it; copies that exist are ignored (folders *_lab) and may be deleted."
        )
    return args


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """The raw root, and which of its images to prepare."""
    group = parser.add_argument_group("data")
    root = group.add_mutually_exclusive_group(required=True)
    for name, folders in (
        ("GTA5", "images/ and labels/"),
        ("Cityscapes", "leftImg8bit/ and gtFine/"),
        ("SYNTHIA", "RGB/ and GT/LABELS/ (SYNTHIA-RAND-CITYSCAPES)"),
    ):
        root.add_argument(
            f"--{name.lower()}",
            type=Path,
            metavar="ROOT",
            help=f"raw root of {name}: the folder with {folders}",
        )
    root.add_argument(
        "--source", type=Path, metavar="ROOT", help="raw root of any data set, see --layout"
    )
    group.add_argument(
        "--layout",
        metavar="NAME|FILE.toml",
        help="layout of --source, such as bdd100k, or a file (docs/data.md); default: recognized",
    )
    group.add_argument(
        "--class-set",
        metavar="NAME|FILE.toml",
        help="classes of the labels; default: those of the layout",
    )
    group.add_argument(
        "--splits",
        nargs="+",
        metavar="SPLIT",
        help="splits to prepare; default: train and val, as far as they have labels",
    )
    group.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="prepare only the images that this file names, one per line (one split only)",
    )
    group.add_argument(
        "--without-labels",
        action="store_true",
        help="prepare images alone: a target needs no labels",
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write, and how to share the work."""
    group = parser.add_argument_group("output")
    target = group.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--output",
        type=Path,
        metavar="PREPARED",
        help="the prepared root: a new folder, or one to complete or to update",
    )
    target.add_argument(
        "--check", action="store_true", help="check and report only: decode all, write nothing"
    )
    group.add_argument(
        "--shard",
        type=shard,
        default="1/1",
        metavar="I/N",
        help="prepare the I-th of N parts, to split the work over machines",
    )
    group.add_argument(
        "--workers",
        type=positive_int,
        default=available_cores(),
        help="number of processes on this machine",
    )


def report_text(report: PrepareReport, root: Path) -> str:
    """The report for users: counts, sizes, classes, and every problem with its remedy."""
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
        percent = 100 * report.classes / report.classes.sum()
        names = (*report.class_names, "(ignored)")
        rows = [[name, f"{value:.3f}"] for name, value in zip(names, percent, strict=True)]
        lines += ["", markdown_table(["class", "% of pixels"], rows)]
        absent = [
            name
            for name, count in zip(report.class_names, report.classes, strict=False)
            if count == 0
        ]
        lines += [f"no pixel of: {', '.join(absent)}"] if absent else []
    for kind in KINDS:
        problems = sorted(problem for problem in report.problems if problem.kind == kind)
        if problems:
            lines += [
                "",
                f"{kind}: {len(problems)}",
                *(f"  {problem.text}" for problem in problems),
            ]
    return "\n".join(lines)


def layouts(args: argparse.Namespace) -> list[tuple[str, DataFiles, list[Problem]]]:
    """(name in the prepared root, files, files of one name) of each data set or split to prepare.

    Files of one name are problems where they are only to be reported; else they are an error.
    """
    labels = not args.without_labels
    root = args.gta5 or args.cityscapes or args.synthia or args.source
    if is_prepared(root):
        raise ValueError(f"{root} is a prepared root already; expected the raw one with its PNGs.")
    layout = args_layout(args)
    class_set = None if args.class_set is None else load_class_set(args.class_set)
    splits = splits_to_prepare(layout, labels, args.splits)
    if args.list and len(splits) > 1:
        raise ValueError(ONE_SPLIT)
    if args.source:
        print(f"{printable(root)}: {layout.title}, {' and '.join(map(layout.split_text, splits))}")
    unlabelled = [name for name in DEFAULT_SPLITS if name in layout.splits and name not in splits]
    if unlabelled and not args.splits:
        print(
            f"NOTE: {unlabelled[0]} is left out: the layout names no labels for it. As a target it"
            f" needs none: add --splits {unlabelled[0]} --without-labels."
        )
    found = []
    for split in splits:
        twins: list[tuple[str, str]] = []
        collect = twins if args.check else None
        tree = find_pairs(layout, root, split, labels, class_set, collect)
        found.append((layout.data_name(split), tree, [twin_problem(*pair) for pair in twins]))
    return found


def splits_to_prepare(layout: Layout, labels: bool, given: list[str] | None) -> list[str]:
    """The splits that --splits names; by default the only one, or train and val.

    ``labels``: only those with labels. Raises ValueError where none is left, and for another split
    than the only one.
    """
    if len(layout.splits) == 1:
        only = list(layout.splits)
        if given and set(given) != set(only):
            raise ValueError(
                f"--splits {' '.join(given)}: {layout.title} has the one split {only[0]}. Leave"
                " --splits out."
            )
        return only
    possible = layout.labelled_splits() if labels else list(layout.splits)
    splits = given or [name for name in DEFAULT_SPLITS if name in possible]
    if not splits:
        kind = " with labels" if labels else ""
        remedy = f"Name some of {', '.join(possible)} by --splits." if possible else ""
        raise ValueError(
            f"{layout.title} has no split {' or '.join(DEFAULT_SPLITS)}{kind}: nothing would be"
            f" prepared. {remedy or 'Add --without-labels, or labels to the layout.'}"
        )
    return splits


def args_layout(args: argparse.Namespace) -> Layout:
    """The layout that the flags name, or that --source is recognized by."""
    for name in ("gta5", "cityscapes", "synthia"):
        if getattr(args, name):
            return load_layout(name)
    return load_layout(args.layout) if args.layout else detect(args.source)


def twin_problem(first: str, second: str) -> Problem:
    """The problem of two files that differ in their suffix only."""
    text = f"{first} and {second}: it is unclear which one is meant. Remove one of them."
    return Problem("two of one name", first, text)


def main(args: argparse.Namespace) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    wanted = None if args.list is None else read_name_list(args.list)
    command = shlex.join(["python", "-m", "scripts.prepare", *sys.argv[1:]])
    labels, problems = not args.without_labels, 0
    for data, tree, twins in layouts(args):
        job = PrepareJob(tree, data, labels, wanted, str(args.list), args.shard, args.workers)
        report = check(job) if args.check else prepare(job, args.output, command, FileLock)
        report.problems += twins
        text = report_text(report, tree.root)
        print("\n" + printable(text))
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
                "\nInterrupted. Images prepared until now are complete: give the same command again"
                " to continue."
            )
        except BrokenProcessPool:
            sys.exit(
                "error: a worker was killed, probably for lack of memory. Give the same command"
                " again with fewer --workers."
            )
