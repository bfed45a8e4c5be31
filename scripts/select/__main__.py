"""Ranks snapshots, runs and seeds without labels of the target, and says which one to use.

Adaptation has no labels to choose a checkpoint by, and the last one is not always good. This script
predicts a sample of pixels of unlabelled target images with every candidate, once for each view,
and ranks the candidates by measures of these predictions. No label is opened.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.select")

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataset.class_set_file import recorded_class_set
from dataset.evenly import evenly
from dataset.listing import ImageList, largest_image
from dataset.target_flags import TargetFlags
from scripts.select.candidates import (
    Candidate,
    class_names,
    collapse_warnings,
    find_candidates,
)
from scripts.select.judgement import judgement_table, read_miou, require_scored
from scripts.select.measuring import (
    Sampling,
    measure,
    measure_together,
    predict_sample,
    rankings,
    read_class_shares,
    require_measure,
)
from utils.benchmark.memory import check_memory
from utils.evaluation.label_free import MEASURES
from utils.files import output_file, told_apart, write_json
from utils.options.checks import require_layouts
from utils.options.groups import (
    NO_SPLITS,
    add_device_arguments,
    add_unlabelled_arguments,
    add_workers_argument,
)
from utils.options.parser import (
    from_arguments,
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)
from utils.report.label_free import measure_lines
from utils.report.tables import markdown_table
from utils.training.precision import PRECISIONS, choose_device, choose_precision

EPILOG = """examples:
  the snapshots of one run (train_da.py --keep-every STEPS):
    python -m scripts.select checkpoints/strong --cityscapes $CITYSCAPES
  the last checkpoints of three seeds:
    python -m scripts.select checkpoints/seed{0,1,2}/last.pt --target "dashcam/**/*.jpg"
"""
RECOMMENDED = "infomax"
"""The measure that chooses by default."""
MEASURED = {
    "entropy": 0.72,
    "infomax": 0.86,
    "snd": -0.61,
    "views": -0.02,
    "teacher": 0.71,
    "seeds": 0.58,
    "shares": 0.43,
    "last": 0.87,
}
"""Rank correlation with mIoU within a run: the mean of 13 runs with 75 snapshots in all, on CARLA
-> Cityscapes (docs/adaptation.md); of six self-training runs for the agreement with the teacher.
"""
MAX_PICTURES = 8
"""Images that scripts.summarise may show, named in the file of --json."""


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
    parser.prog = "python -m scripts.select"
    parser.add_argument(
        "candidates",
        type=Path,
        nargs="+",
        metavar="RUN|CHECKPOINT",
        help="run folder (its snapshots and last.pt), or checkpoints",
    )
    add_unlabelled_arguments(parser)
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="use only the images named in FILE, one a line"
    )
    parser.add_argument(
        "--by",
        choices=tuple(MEASURES),
        default=RECOMMENDED,
        help="measure that chooses; the rankings of all are printed",
    )
    group = parser.add_argument_group("sample")
    group.add_argument(
        "--images",
        type=positive_int,
        default=64,
        metavar="N",
        help="number of target images, evenly spaced over the list",
    )
    group.add_argument(
        "--pixels", type=positive_int, default=512, metavar="N", help="pixels of each image"
    )
    group.add_argument("--seed", type=non_negative_int, default=0, help="seed of the pixels")
    parser.add_argument(
        "--class-shares",
        type=Path,
        metavar="FILE",
        help="expected class shares as JSON, {class: share}; default: the median of the candidates",
    )
    parser.add_argument(
        "--scores",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="for research: scores of the candidates (eval.py --json), to judge the measures by",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values and rankings")
    add_device_arguments(parser)
    add_workers_argument(parser)
    args = parser.parse_args(argv)
    require_layouts(parser, args.target, args.target_layout)
    if from_arguments(TargetFlags, vars(args)).scored_root is None:
        parser.refuse_unused(parser.given(argv), ["split"], NO_SPLITS)
    return args


def sample_images(args: Namespace) -> ImageList:
    """Evenly spaced target images, without labels."""
    listing = from_arguments(TargetFlags, vars(args)).images(args.split, args.list)
    return listing.subset(evenly(range(len(listing)), args.images))


def result(
    args: Namespace, candidates: Sequence[Candidate], listing: ImageList, chosen: Candidate
) -> dict[str, Any]:
    """All values, ranks and class shares as plain values, which scripts.summarise reads."""
    found, names = rankings(candidates), class_names(candidates[0].metadata)
    shown = [candidate.metadata["name"] for candidate in candidates]
    shown = told_apart(shown, [candidate.path for candidate in candidates])  # seeds of one name
    return {
        "target": str(listing.root),
        "class_set": recorded_class_set(candidates[0].metadata).as_dict(),
        "images": len(listing),
        "pictures": [str(frame.image) for frame in evenly(listing, MAX_PICTURES)],
        "fingerprint": listing.fingerprint(),
        "pixels": args.pixels,
        "seed": args.seed,
        "by": args.by,
        "chosen": str(chosen.path),
        "measures": {name: entry.title for name, entry in MEASURES.items()},
        "candidates": [
            {
                "checkpoint": str(candidate.path),
                "name": shown[index],
                "step": candidate.step,
                "values": candidate.values,
                "ranks": {name: found[name][index] for name in MEASURES},
                "class_shares": dict(zip(names, candidate.shares.tolist(), strict=True)),
            }
            for index, candidate in enumerate(candidates)
        ],
        "warnings": collapse_warnings(candidates),
    }


def trust(measure: str) -> str:
    """How far a choice by this measure can be trusted, in words."""
    return (
        "How far to trust it: little is known. On 75 snapshots of 13 runs its rank correlation with"
        f" mIoU was {MEASURED[measure]:.2f}, that of the step {MEASURED['last']:.2f}; within a run"
        " no measure chose better than the last step. Look at the predictions before you decide"
        " (scripts.predict --compare)."
    )


def main(args: Namespace) -> None:
    candidates, listing = find_candidates(args.candidates), sample_images(args)
    names = class_names(candidates[0].metadata)
    expected = args.class_shares and read_class_shares(args.class_shares, names)
    scores = args.scores and read_miou(args.scores)
    if args.json:
        paths = [candidate.path for candidate in candidates]
        read = [path for path in (args.list, args.class_shares, *(args.scores or ())) if path]
        output_file(args.json, [*paths, *read])
    require_measure(args.by, candidates)
    if scores is not None:
        require_scored(candidates, scores)
    device = choose_device(args.device)
    check_memory(*largest_image(listing), device)
    dtype = PRECISIONS[choose_precision(args.precision, device)]
    sampling = Sampling(args.pixels, args.seed, dtype, args.workers)
    for number, candidate in enumerate(candidates, 1):
        title = f"{candidate.metadata['name']} ({number} of {len(candidates)})"
        measure(candidate, predict_sample(candidate, listing, sampling, device, title))
    measure_together(candidates, expected)

    found = rankings(candidates)
    chosen = [index for index, rank in enumerate(found[args.by]) if rank is not None]
    best = candidates[min(chosen, key=lambda index: found[args.by][index])]
    print(
        f"\n{len(candidates)} checkpoints on {len(listing)} unlabelled images of {listing.root},"
        f" {args.pixels} pixels of each; rank in parentheses, 1 is best.\n"
    )
    content = result(args, candidates, listing, best)
    print(markdown_table(*measure_lines(content)))
    print(*(f"\n{warning}" for warning in content["warnings"]), sep="")
    if scores:
        print(f"\n{judgement_table(candidates, scores)}\n")
    print(f"Use {best.path}: first by {MEASURES[args.by].title} ({MEASURES[args.by].source}).")
    print(trust(args.by))
    if args.json:
        write_json(args.json, content)


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
