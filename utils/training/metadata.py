"""Metadata of a run: plain values that describe it in its checkpoints and records."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from utils.options.checks import batch_norm_group_sizes
from utils.training.checkpoint import plain
from utils.training.distributed import world_size


class Images(Protocol):
    """A list of images (dataset.listing.ImageList)."""

    names: list[str]
    left_out: Sequence[str]

    def fingerprint(self) -> str: ...


def run_metadata(
    script: str, name: str, settings: dict[str, Any], listings: Mapping[str, Images | None]
) -> dict[str, Any]:
    """Metadata that every run has: script, name, settings, and its images.

    ``settings``: ``vars(args)``, and what was chosen for --precision auto and the like.
    ``listings``: images, by the names of the settings that identify them; None: not used.
    """
    found = {key: images for key, images in listings.items() if images is not None}
    sizes = [settings[key] for key in ("batch_size", "target_batch_size") if key in settings]
    groups = batch_norm_group_sizes(sizes, settings["accumulate"], world_size(), settings["bn"])
    is_frozen = settings["bn"] == "frozen"
    batch_norm = {
        "batch_norm_group_sizes": groups,
        "batch_norm_updates": 0 if is_frozen else settings["accumulate"],  # of a step
    }
    identities = {key: images.fingerprint() for key, images in found.items()}
    return {
        "script": script,
        "name": name,
        "settings": plain(settings | identities | batch_norm),
        "data_names": {key: images.names for key, images in found.items()},
        "left_out": [name for images in found.values() for name in images.left_out],
    }
