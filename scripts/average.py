"""Averages the weights of snapshots of one run (SWA: Izmailov et al., UAI 2018).

The statistics of BatchNorm are averaged, too. With a target they are measured anew on its images,
without labels, as SWA has it; for snapshots of adaptation that was much worse where we measured it
(docs/adaptation.md). The new checkpoint is read by all scripts; compare it with its members.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.average")

import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataset.listing import ImageList
from dataset.loader import LoaderOptions
from dataset.recalibration import (
    StatisticsOptions,
    recalibration_batches,
    recalibration_images,
    statistics_text,
)
from dataset.target_flags import TargetFlags
from model.averaging import average_states
from model.loading import load_network
from model.uda.adabn import recalibrate_on
from utils.files import output_file, require_absent
from utils.options.checks import require_layouts, require_statistics_sizes
from utils.options.groups import (
    NO_SPLITS,
    add_device_arguments,
    add_statistics_arguments,
    add_unlabelled_arguments,
    add_workers_argument,
)
from utils.options.parser import from_arguments, new_parser, user_errors_without_traceback
from utils.training.checkpoint import metadata_of_network, read_checkpoint, save_checkpoint
from utils.training.environment import environment
from utils.training.precision import autocast_for, choose_device, choose_precision
from utils.training.provenance import inherited
from utils.training.resume_changes import differences, equal_image_lists

EPILOG = """examples:
  python -m scripts.average checkpoints/strong/step_00{30,35,40}000.pt --output average.pt
  python eval.py average.pt checkpoints/strong/last.pt --cityscapes $CITYSCAPES
"""


STATISTICS_FLAGS = ("split", "list", "batches", "batch_size", "crop_size", "seed")


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
    parser.add_argument(
        "checkpoints",
        type=Path,
        nargs="+",
        metavar="CHECKPOINT",
        help="snapshots of one run (step_*.pt), or its last.pt",
    )
    add_unlabelled_arguments(parser, required=False)
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="use only the images named in this file, one per line",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", required=True, help="the new checkpoint"
    )
    parser.add_argument(
        "--name", help="name of the network in tables; default: that of the run and -average"
    )
    add_statistics_arguments(parser)
    add_device_arguments(parser)
    add_workers_argument(parser)
    args = parser.parse_args(argv)
    require_layouts(parser, args.target, args.target_layout)
    given = parser.given(argv)
    if not args.target and not args.cityscapes:
        condition = "without --target or --cityscapes: statistics are then averaged"
        parser.refuse_unused(given, STATISTICS_FLAGS, condition)
    elif from_arguments(TargetFlags, vars(args)).scored_root is None:
        parser.refuse_unused(given, ["split"], NO_SPLITS)
    require_statistics_sizes(parser, args.batch_size, args.crop_size)
    return args


def run_name(checkpoint: dict[str, Any]) -> str:
    """The name of the run that a checkpoint is of."""
    return checkpoint.get("run", checkpoint["name"])


def read_members(paths: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """The checkpoints, by steps; of several of one step the first, since they are equal.

    Prints which are left out. Raises ValueError for fewer than two, or those of several runs.
    """
    members = {path: read_checkpoint(path) for path in dict.fromkeys(paths)}
    _require_one_run(members)
    of_step: dict[int, Path] = {}
    for path, member in members.items():
        same = of_step.setdefault(member["step"], path)
        if same != path:
            print(f"NOTE: {path} is left out: it is of step {member['step']}, as {same} is.")
    if len(of_step) < 2:
        raise ValueError(
            f"Found one checkpoint, {next(iter(members))}: an average needs two or more, of"
            " different steps."
        )
    return {of_step[step]: members[of_step[step]] for step in sorted(of_step)}


def _require_one_run(members: Mapping[Path, dict[str, Any]]) -> None:
    """Raises ValueError for checkpoints of several runs."""
    (first_path, first), *others = members.items()
    for path, member in others:
        equal = {*equal_image_lists(member, first), *equal_image_lists(first, member)}
        settings = {name: value for name, value in first["settings"].items() if name not in equal}
        different = differences(member["settings"], settings)
        if run_name(member) != run_name(first):
            different.insert(0, f"run: {run_name(first)} -> {run_name(member)}")
        if different or member["architecture"] != first["architecture"]:
            raise ValueError(
                f"{first_path} and {path} are of different runs ({'; '.join(different[:4])}): the"
                " mean of their weights is no network. Average snapshots of one run; of several"
                " runs make an ensemble by scripts.make_pseudo_labels."
            )


def averaged_metadata(
    args: Namespace,
    members: Mapping[Path, dict[str, Any]],
    used: ImageList | None,
    precision: str,
) -> dict[str, Any]:
    """Metadata of the new checkpoint: those of the last member, the settings, the images used.

    ``used``: the images of the statistics; None: they are averaged.
    """
    last = list(members.values())[-1]
    averaged = {
        "steps": [member["step"] for member in members.values()],
        "checkpoints": list(map(str, members)),
        "statistics": "mean",
        "git": environment()["git"],
    }
    if used is not None:
        averaged |= {
            "statistics": used.fingerprint(),
            "batch_size": args.batch_size,
            "crop_size": args.crop_size,
            "seed": args.seed,
            "precision": precision,
        }
    return {
        **metadata_of_network(last),
        **inherited([] if used is None else used.identities, *members.values()),
        "name": args.name or f"{run_name(last)}-average",
        "run": run_name(last),
        "settings": last["settings"] | {"averaged": averaged},
    }


def main(args: Namespace) -> None:
    require_absent(args.output)
    members, used = read_members(args.checkpoints), None
    device = choose_device(args.device)
    precision = choose_precision(args.precision, device)
    options = from_arguments(StatisticsOptions, vars(args))
    if args.target or args.cityscapes:
        listing = from_arguments(TargetFlags, vars(args)).images(args.split, args.list)
        used = recalibration_images(listing, options)
    output_file(args.output)

    # Each member's network for inference: the trained model, or its teacher.
    states = [load_network(member)[0].state_dict() for member in members.values()]
    model, normalize = load_network(list(members.values())[-1])
    model.load_state_dict(average_states(states))
    statistics = "the mean of their BatchNorm statistics."
    if used is not None:
        loading = LoaderOptions(args.workers, pin_memory=device.type == "cuda")
        batches = recalibration_batches(used, options, loading)
        batches = tqdm(batches, desc="statistics", unit="batch", disable=None, dynamic_ncols=True)
        images = (batch.image for batch in batches)
        recalibrate_on(model.to(device), normalize, images, autocast_for(device, precision))
        statistics = statistics_text(used, args.split)
    metadata = averaged_metadata(args, members, used, precision)
    save_checkpoint(args.output, {"model": model}, **metadata)
    steps = ", ".join(str(member["step"]) for member in members.values())
    print(
        f"{args.output}: {metadata['name']}, the mean weights of {len(members)} snapshots, steps"
        f" {steps}, with {statistics}"
    )
    words = ["python", "eval.py", args.output, *members, "--cityscapes", "ROOT"]
    print(f"Score it against its members: {shlex.join(map(str, words))}")


if __name__ == "__main__":
    with user_errors_without_traceback():
        main(parse_arguments())
