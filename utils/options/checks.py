"""Checks of flags that several entry scripts share: each ends with what to do instead.

The parsed Namespace stays in the entry script.
"""

import argparse
from collections.abc import Collection
from pathlib import Path

from utils.options.parser import Parser


def require_suffix(parser: argparse.ArgumentParser, flag: str, path: Path, suffix: str) -> None:
    """Ends with a message for a file to write whose name has another suffix than its format."""
    if path.suffix.lower() != suffix:
        parser.error(f"{flag} {path}: expected a name that ends with {suffix}")


def require_layouts(
    parser: argparse.ArgumentParser,
    target: Collection[str] | None,
    target_layout: str | None,
    source: Path | None = None,
    source_layout: str | None = None,
) -> None:
    """Ends with a message for a layout of images that are not given."""
    if target_layout and not target:
        parser.error("--target-layout describes --target ROOT: give --target, or leave it out")
    if source_layout and not source:
        parser.error("--source-layout describes --source ROOT: give --source, or leave it out")


def require_statistics_sizes(
    parser: argparse.ArgumentParser, batch_size: int, crop_size: tuple[int, int] | None
) -> None:
    """Ends with a message for sizes on which no statistics can be measured."""
    if batch_size < 2:
        parser.error(
            "--batch-size needs at least 2: the attention's BatchNorm cannot normalize the single"
            " value of one image"
        )
    if crop_size and min(crop_size) < 32:
        parser.error(
            "--crop-size needs at least 32 pixels each way: the network halves its input five times"
        )


def require_training_sizes(
    parser: argparse.ArgumentParser,
    batch_sizes: list[int],
    crop_size: tuple[int, int],
    accumulate: int,
    processes: int,
    bn: str,
) -> None:
    """Ends with a message for sizes that cannot be trained.

    That is: unequal micro-batches, one image per BatchNorm, or a crop under 32 pixels.
    """
    parts = accumulate * processes
    for size in batch_sizes:
        if size % parts:
            parser.error(
                f"a batch of {size} images cannot be shared by {processes} processes x"
                f" {accumulate} micro-batches; choose a multiple of {parts}"
            )
    smallest = min(batch_sizes) // parts
    if smallest * (processes if bn == "sync" else 1) < 2 and bn != "frozen":
        larger = f" (with {processes} processes x {accumulate} micro-batches: {2 * parts})"
        parser.error(
            f"BatchNorm needs at least 2 images, found {smallest} in a micro-batch: the attention's"
            " BatchNorm cannot normalize a single 1x1 map. Give a larger"
            f" batch{larger if parts > 1 else ''}, --bn sync with several GPUs, or --bn frozen"
        )
    if min(crop_size) < 32:
        parser.error(
            f"--crop-size needs at least 32 pixels each way, found {crop_size[0]} {crop_size[1]}:"
            " the network halves its input five times"
        )


def require_style(
    parser: argparse.ArgumentParser, lab: float, class_balanced: bool, given: Collection[str]
) -> None:
    """Ends with a message for an option of --lab that the command line gives without it."""
    if class_balanced and "lab_class_balanced" in given and not lab:
        parser.error(
            "--lab-class-balanced: without effect without --lab. Add --lab, or leave it out"
        )


def refuse_unused_weights(
    parser: Parser, init: Path | None, backbone_weights: str, given: Collection[str]
) -> None:
    """Ends with a message for backbone weights that --init would replace."""
    if init and backbone_weights != "none":  # none: what a set of commands has in common
        condition = "with --init, which brings the backbone"
        parser.refuse_unused(given, ["backbone_weights"], condition)


def refuse_unused_adjustment(
    parser: Parser, fraction: float, pixel_weights: str, given: Collection[str]
) -> None:
    """Ends with a message for a logit adjustment without class weights."""
    if fraction and pixel_weights != "class":
        parser.refuse_unused(given, ["logit_adjustment"], "without --pixel-weights class")


def replaced_settings(parser: Parser, given: Collection[str]) -> dict[str, None]:
    """Settings of a recipe that flags of another name replace: {name: None}.

    A --target that is given replaces the --cityscapes of a recipe, and the other way round. Not
    where the recipe has both: then one is learned from and the other is scored.
    """
    replaced = set()
    for name, other in (("target", "cityscapes"), ("cityscapes", "target")):
        if name in given and parser.get_default(name) is None:
            replaced |= {other, "target_layout"}  # a layout describes the recipe's --target
    if "epochs" in given:
        replaced.add("max_steps")
    return dict.fromkeys(replaced - set(given))


def require_schedule(max_steps: int, schedule_steps: int) -> None:
    """Raises ValueError for steps whose learning rate would be 0."""
    if max_steps > schedule_steps:
        raise ValueError(
            f"--max-steps {max_steps} is beyond --schedule-steps {schedule_steps}, where the"
            " learning rate reaches 0: later steps would learn nothing. Give"
            f" --schedule-steps {max_steps} or more, or fewer steps"
        )


def require_validation(parser: argparse.ArgumentParser, val_list: Path | None, every: int) -> None:
    """Ends with a message for a list of scored images where none are scored."""
    if val_list and not every:
        parser.error(
            "--val-list: without effect, because nothing is scored. Add --validate-every STEPS, or"
            " leave it out"
        )


def require_snapshots(
    parser: argparse.ArgumentParser, keep_every: int, keep_last: int | None
) -> None:
    """Ends with a message for a number of snapshots where none are kept."""
    if keep_last is not None and not keep_every:
        parser.error(
            "--keep-last: without effect, because no snapshots are kept. Add --keep-every STEPS, or"
            " leave it out"
        )


def batch_norm_group_sizes(
    batch_sizes: list[int], accumulate: int, processes: int, bn: str
) -> list[int] | str:
    """Number of images that each BatchNorm normalizes together; "none" if it is frozen."""
    if bn == "frozen":
        return "none"
    return [size // accumulate // (1 if bn == "sync" else processes) for size in batch_sizes]
