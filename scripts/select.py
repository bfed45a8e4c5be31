"""Ranks snapshots, runs and seeds without labels of the target, and says which one to use.

Adaptation has no labels to choose a checkpoint by, and the last one is not always good. This script
predicts a sample of pixels of unlabelled target images with every candidate, once for each view,
and ranks the candidates by measures of these predictions. No label is opened.
"""

if not __package__:  # started by its path: nothing of the project can be imported
    raise SystemExit("error: start it in the project's folder: python -m scripts.select")

import math
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.class_set_file import recorded_class_set
from dataset.listing import ImageList, largest_image
from dataset.loader import LoaderOptions, evaluation_loader
from dataset.training_data import known_root, read_target
from model.inference.predictor import load_predictor
from model.inference.sampled_pixels import sampled_probabilities
from model.inference.tta import TTAView
from model.loading import full_architecture
from utils.benchmark.memory import check_memory
from utils.evaluation.label_free import (
    MEASURES,
    class_shares,
    consensus_agreement,
    infomax,
    judge,
    mean_entropy,
    ranks,
    share_distance,
    soft_neighborhood_density,
    view_agreement,
)
from utils.files import json_kind, output_file, read_json_object, told_apart, write_json
from utils.options.checks import require_layouts
from utils.options.groups import (
    NO_SPLITS,
    add_device_arguments,
    add_unlabelled_arguments,
    add_workers_argument,
)
from utils.options.parser import (
    new_parser,
    non_negative_int,
    positive_int,
    user_errors_without_traceback,
)
from utils.report.comparison import read_run_records, read_scores
from utils.report.curves import Curve, read_curves
from utils.report.label_free import measure_lines
from utils.report.tables import markdown_table, percent
from utils.training.checkpoint import read_checkpoint
from utils.training.precision import PRECISIONS, choose_device, choose_precision
from utils.training.snapshots import snapshot_files

EPILOG = """examples:
  the snapshots of one run (train_da.py --keep-every STEPS):
    python -m scripts.select checkpoints/strong --cityscapes $CITYSCAPES
  the last checkpoints of three seeds:
    python -m scripts.select checkpoints/seed{0,1,2}/last.pt --target "dashcam/**/*.jpg"
"""
VIEWS = (TTAView(1.0), TTAView(1.0, flip=True), TTAView(0.75), TTAView(1.25))
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
TEACHER_CURVE, TEACHER_STEPS = "pseudo_label/student_agreement", 100
"""Scalar of a run, and the steps before a checkpoint over which it is averaged."""


def parse_arguments(argv: list[str] | None = None) -> Namespace:
    parser = new_parser(__doc__, EPILOG)
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
    if known_root(args.cityscapes, args.target, args.target_layout) is None:
        parser.refuse_unused(parser.given(argv), ["split"], NO_SPLITS)
    return args


@dataclass
class Candidate:
    """A checkpoint and what was measured on it. ``folder``: its run."""

    path: Path
    metadata: dict[str, Any]
    values: dict[str, float | None] = field(default_factory=dict)
    shares: Tensor | None = None
    probabilities: Tensor | None = None  # (P, C) float16, of the first view

    @property
    def folder(self) -> Path:
        return self.path.absolute().parent

    @property
    def step(self) -> int:
        return self.metadata["step"]

    @property
    def is_average(self) -> bool:
        """Whether scripts.average made it."""
        return "averaged" in self.metadata["settings"]

    @property
    def run(self) -> tuple[str, str | None]:
        """Name and --output of its run, wherever the file lies now."""
        metadata = self.metadata
        return metadata.get("run", metadata["name"]), metadata["settings"].get("output")

    @property
    def key(self) -> tuple[str, int]:
        """What identifies it in files of scores: its run folder and its step."""
        return str(self.folder.resolve()), self.step


def checkpoint_files(path: Path) -> list[Path]:
    """The candidates of a run folder, by steps, or the file itself.

    Of last.pt and the snapshot of the same step, last.pt is taken; best.pt was chosen with labels.
    Raises FileNotFoundError for a folder without checkpoints.
    """
    if not path.is_dir():
        return [path]
    files, last = snapshot_files(path), path / "last.pt"
    if last.exists():
        step = read_checkpoint(last)["step"]
        files = [file for file in files if read_step(file) != step] + [last]
    if not files:
        raise FileNotFoundError(
            f"No checkpoint in {path}: no step_*.pt (train_da.py --keep-every STEPS) and no"
            " last.pt. Expected a run folder such as checkpoints/NAME, or checkpoints."
        )
    return files


def read_step(snapshot: Path) -> int:
    """The step of a snapshot, from the name of its file."""
    return int(snapshot.stem.removeprefix("step_"))


def find_candidates(paths: Sequence[Path]) -> list[Candidate]:
    """All candidates. Raises ValueError where they cannot be compared, or are fewer than two."""
    files = list(dict.fromkeys(file for path in paths for file in checkpoint_files(path)))
    candidates = []
    for file in files:
        checkpoint = read_checkpoint(file)
        metadata = {key: value for key, value in checkpoint.items() if key != "parts"}
        candidates.append(Candidate(file, metadata))
    if len(candidates) < 2:
        raise ValueError(
            f"Found one checkpoint, {files[0]}: there is nothing to rank. Name several, or a run"
            " that keeps snapshots (train_da.py --keep-every STEPS)."
        )
    first = candidates[0]
    for other in candidates[1:]:
        for what, value_of in COMPARED.items():
            one, two = value_of(first.metadata), value_of(other.metadata)
            if one != two:
                raise ValueError(
                    f"{first.path} and {other.path} differ in their {what}: {one} and {two}. The"
                    " measures cannot be compared across these: rank each kind by itself."
                )
    return candidates


def class_names(metadata: dict[str, Any]) -> list[str]:
    """Names of a checkpoint's classes."""
    return list(recorded_class_set(metadata).names)


COMPARED = {
    "classes": class_names,
    "architecture": full_architecture,
    "input": lambda metadata: metadata["input"],
}
"""What candidates of one ranking share."""


def sample_images(args: Namespace) -> ImageList:
    """Evenly spaced target images, without labels."""
    listing = read_target(
        args.cityscapes, args.target, args.split, args.list, layout=args.target_layout
    )
    count = min(args.images, len(listing))
    return listing.subset(np.linspace(0, len(listing) - 1, count).round().astype(int).tolist())


def predict_sample(
    args: Namespace, candidate: Candidate, listing: ImageList, device: torch.device, title: str
) -> Tensor:
    """Class probabilities of the sampled pixels in every view: (V, P, C) float32, on the CPU.

    The pixels of an image depend on the seed and on its position in ``listing`` only.
    """
    dtype = PRECISIONS[choose_precision(args.precision, device)]
    checkpoint = read_checkpoint(candidate.path)
    predictor = load_predictor(checkpoint, checkpoint["architecture"]["num_classes"], device, dtype)
    found, loading = [], LoaderOptions(args.workers, device.type == "cuda")
    batches = evaluation_loader(listing, loading)
    for batch in tqdm(batches, desc=title, unit="image", disable=None, dynamic_ncols=True):
        rng = np.random.default_rng((args.seed, int(batch.index[0])))
        points = torch.from_numpy(rng.random((args.pixels, 2)))
        found.append(sampled_probabilities(predictor, batch.image, points, VIEWS).cpu())
    return torch.cat(found, 1)


def measure(candidate: Candidate, probabilities: Tensor) -> None:
    """Fills in the measures that need this candidate alone; (V, P, C)."""
    classes = probabilities.argmax(-1)  # (V, P)
    candidate.shares = class_shares(classes[0], probabilities.shape[-1])
    candidate.probabilities = probabilities[0].half()
    candidate.values = {
        "entropy": mean_entropy(probabilities[0]),
        "infomax": infomax(probabilities[0]),
        "snd": soft_neighborhood_density(probabilities[0]),
        "views": view_agreement(classes),
        "last": float(candidate.step),
    }


def measure_together(candidates: Sequence[Candidate], expected: Tensor | None) -> None:
    """Fills in the measures that compare candidates, and those that their runs have logged."""
    if expected is None:
        expected = torch.stack([candidate.shares for candidate in candidates]).median(0).values
        expected = expected / expected.sum()
    probabilities = [candidate.probabilities for candidate in candidates]
    runs = runs_of(candidates)
    consensus = consensus_agreement(probabilities, runs)
    curves = {run: read_curves(Path(run)).get(TEACHER_CURVE) for run in dict.fromkeys(runs)}
    for candidate, run, agrees in zip(candidates, runs, consensus, strict=True):
        candidate.values |= {
            "shares": share_distance(candidate.shares, expected),
            "seeds": agrees,
            "teacher": teacher_agreement(curves[run], candidate.step),
        }


def runs_of(candidates: Sequence[Candidate]) -> list[str]:
    """The run folder of each candidate: its own, or for an average that of its snapshots."""
    of_run = {c.run: c.folder for c in candidates if not c.is_average}
    return [str(of_run.get(c.run, c.folder) if c.is_average else c.folder) for c in candidates]


def teacher_agreement(curve: Curve | None, step: int) -> float | None:
    """Mean agreement of teacher and student that a run logged shortly before ``step``."""
    values = [
        value
        for at, value in zip(*(curve or ((), ())), strict=True)
        if step - TEACHER_STEPS < at <= step
    ]
    return sum(values) / len(values) if values else None


def read_class_shares(path: Path, names: Sequence[str]) -> Tensor:
    """Expected shares (C,) that add up to 1. Raises ValueError for other classes or no shares."""
    expected = 'class shares such as {"road": 0.4, "sky": 0.1}'
    content = read_json_object(path, (), expected)
    unknown = sorted(set(content) - set(names))
    if unknown:
        raise ValueError(
            f"--class-shares {path}: unknown classes {', '.join(unknown)}. Expected shares of"
            f" {', '.join(names)}."
        )
    for name, share in content.items():
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not is_number or not math.isfinite(share):
            raise ValueError(
                f"--class-shares {path}: {name} has {json_kind(share)}. Expected numbers:"
                f" {expected}."
            )
    shares = torch.tensor([float(content.get(name, 0)) for name in names])
    if not shares.sum() > 0 or shares.min() < 0:
        raise ValueError(
            f"--class-shares {path}: expected shares of at least 0, not all of them 0."
        )
    return shares / shares.sum()


def rankings(candidates: Sequence[Candidate]) -> dict[str, list[float | None]]:
    """{measure: rank of each candidate}."""
    return {
        name: ranks([c.values.get(name) for c in candidates], entry.higher_is_better)
        for name, entry in MEASURES.items()
    }


def collapse_warnings(candidates: Sequence[Candidate]) -> list[str]:
    """Warnings that the runs recorded while they trained, each with the run's name."""
    found = []
    for folder in dict.fromkeys(candidate.folder for candidate in candidates):
        try:
            entries = read_run_records(folder) if (folder / "config.json").is_file() else []
        except ValueError as error:  # the ranking needs none of it
            found.append(f"WARNING: {error}")
            continue
        for entry in entries:
            name = f"{folder.parent.name}/{folder.name}"
            found += [f"{name}: {text}" for text in entry.get("warnings", [])]
    return found


def read_miou(files: Sequence[Path]) -> dict[tuple[str, int], float]:
    """{(run folder, step): mIoU} of files that eval.py wrote. Raises ValueError for others."""
    rows = [row for file in files for row in read_scores(file)["rows"]]
    return {
        (str(Path(row["checkpoint"]).absolute().parent.resolve()), row["step"]): row["miou"]
        for row in rows
        if row["miou"] is not None
    }


def judgement_table(candidates: Sequence[Candidate], miou: dict[tuple[str, int], float]) -> str:
    """How each measure ranks the scored candidates: within their runs, and all together."""
    scored = [c for c in candidates if c.key in miou]
    if len(scored) < 2:
        raise ValueError("--scores: fewer than two of the candidates have scores in these files.")
    scores, steps = [miou[c.key] for c in scored], [c.step for c in scored]
    tables = []
    for title, groups in (
        ("within each run", runs_of(scored)),
        ("all together", ["all"] * len(scored)),
    ):
        rows = []
        for name, entry in MEASURES.items():
            values = [c.values.get(name) for c in scored]
            choice = judge(values, scores, steps, groups, entry.higher_is_better)
            if choice is not None:
                columns = (choice.chosen, choice.last, choice.mean, choice.best)
                rows.append(
                    [entry.title, f"{choice.correlation:.2f}", *map(percent, columns)]
                    + [str(choice.candidates), str(choice.groups)]
                )
        header = [title, "rank correlation", "mIoU chosen", "last", "mean", "best"]
        if rows:  # none within runs of one scored checkpoint each
            tables.append(markdown_table([*header, "checkpoints", "groups"], rows))
    return "\n\n".join(tables)


def result(
    args: Namespace, candidates: Sequence[Candidate], listing: ImageList, chosen: Candidate
) -> dict[str, Any]:
    """All values, ranks and class shares as plain values, which scripts.summarise reads."""
    found, names = rankings(candidates), class_names(candidates[0].metadata)
    pictures = np.linspace(0, len(listing) - 1, min(MAX_PICTURES, len(listing))).round()
    shown = [candidate.metadata["name"] for candidate in candidates]
    shown = told_apart(shown, [candidate.path for candidate in candidates])  # seeds of one name
    return {
        "target": str(listing.root),
        "class_set": recorded_class_set(candidates[0].metadata).as_dict(),
        "images": len(listing),
        "pictures": [str(listing[int(index)].image) for index in pictures],
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
    text = "How far to trust it: little is known. "
    if measure in MEASURED:
        text += (
            "On 75 snapshots of 13 runs its rank correlation with mIoU was"
            f" {MEASURED[measure]:.2f}, that of the step {MEASURED['last']:.2f}; within a run no"
            " measure chose better than the last step. "
        )
    return text + "Look at the predictions before you decide (scripts.predict --compare)."


def main(args: Namespace) -> None:
    candidates, listing = find_candidates(args.candidates), sample_images(args)
    names = class_names(candidates[0].metadata)
    expected = args.class_shares and read_class_shares(args.class_shares, names)
    scores = args.scores and read_miou(args.scores)
    if args.json:
        paths = [candidate.path for candidate in candidates]
        read = [path for path in (args.list, args.class_shares, *(args.scores or ())) if path]
        output_file(args.json, [*paths, *read])
    device = choose_device(args.device)
    check_memory(*largest_image(listing), device)
    for number, candidate in enumerate(candidates, 1):
        title = f"{candidate.metadata['name']} ({number} of {len(candidates)})"
        measure(candidate, predict_sample(args, candidate, listing, device, title))
    measure_together(candidates, expected)

    found = rankings(candidates)
    chosen = [index for index, rank in enumerate(found[args.by]) if rank is not None]
    if not chosen:
        raise ValueError(f"--by {args.by}: no candidate has this measure. Choose another.")
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
