"""The measures of the candidates: predictions of sampled pixels, their values and ranks."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from dataset.listing import ImageList
from dataset.loader import LoaderOptions, evaluation_loader
from model.inference.predictor import load_predictor
from model.inference.sampled_pixels import sampled_probabilities
from model.inference.tta import TTAView
from scripts.select.candidates import Candidate, runs_of
from utils.evaluation.label_free import (
    MEASURES,
    class_shares,
    consensus_agreement,
    infomax,
    mean_entropy,
    ranks,
    share_distance,
    soft_neighborhood_density,
    view_agreement,
)
from utils.files import json_kind, read_json_object
from utils.report.curves import Curve, read_curves

VIEWS = (TTAView(1.0), TTAView(1.0, flip=True), TTAView(0.75), TTAView(1.25))
TEACHER_CURVE, TEACHER_STEPS = "pseudo_label/student_agreement", 100
"""Scalar of a run, and the steps before a checkpoint over which it is averaged."""


class Sampling(NamedTuple):
    """``pixels`` of each image, drawn by ``seed``; ``dtype`` of the weights; loader ``workers``."""

    pixels: int
    seed: int
    dtype: torch.dtype
    workers: int


def predict_sample(
    candidate: Candidate, listing: ImageList, sampling: Sampling, device: torch.device, title: str
) -> Tensor:
    """Class probabilities of the sampled pixels in every view: (V, P, C) float32, on the CPU.

    The pixels of an image depend on the seed and on its position in ``listing`` only.
    """
    checkpoint = candidate.read()
    num_classes = checkpoint["architecture"]["num_classes"]
    predictor = load_predictor(checkpoint, num_classes, device, sampling.dtype)
    found, loading = [], LoaderOptions(sampling.workers, device.type == "cuda")
    batches = evaluation_loader(listing, loading)
    for batch in tqdm(batches, desc=title, unit="image", disable=None, dynamic_ncols=True):
        rng = np.random.default_rng((sampling.seed, int(batch.index[0])))
        points = torch.from_numpy(rng.random((sampling.pixels, 2)))
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
    teachers = teacher_agreements(candidates)
    for candidate, agrees, teacher in zip(candidates, consensus, teachers, strict=True):
        candidate.values |= {
            "shares": share_distance(candidate.shares, expected),
            "seeds": agrees,
            "teacher": teacher,
        }


def require_measure(name: str, candidates: Sequence[Candidate]) -> None:
    """Raises ValueError where no candidate can have the measure, before anything is predicted."""
    if name == "teacher" and not any(value is not None for value in teacher_agreements(candidates)):
        raise ValueError(
            "--by teacher: no run of the candidates has logged the agreement of teacher and"
            " student, which --method self-training does. Choose another measure."
        )
    if name == "seeds" and len(set(runs_of(candidates))) == 1:
        raise ValueError("--by seeds: all candidates are of one run. Choose another measure.")


def teacher_agreements(candidates: Sequence[Candidate]) -> list[float | None]:
    """What the run of each candidate logged, by ``teacher_agreement``."""
    runs = runs_of(candidates)
    curves = {run: read_curves(Path(run)).get(TEACHER_CURVE) for run in dict.fromkeys(runs)}
    pairs = zip(candidates, runs, strict=True)
    return [teacher_agreement(curves[run], candidate.step) for candidate, run in pairs]


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
