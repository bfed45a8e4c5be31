"""The target that flags name: --cityscapes ROOT, or --target ROOT|PATTERN and --target-layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset.cityscapes import cityscapes
from dataset.find import say_joined_splits
from dataset.layout_file import Layout, load_layout
from dataset.listing import ImageList, select_by_list
from dataset.listing_check import check_listing
from dataset.target import target_images, target_layout


@dataclass(frozen=True, kw_only=True)
class TargetFlags:
    """Where the target's images are. Given both, --target has the images, --cityscapes the scores.

    ``target_layout`` names the layout of --target ROOT; by default the root is recognized.
    """

    cityscapes: Path | None = None
    target: tuple[str, ...] | None = None
    target_layout: str | None = None

    @property
    def scored_root(self) -> Path | None:
        """The root of a known data set, whose val is scored; None for images without splits."""
        return self._target_root() if self.cityscapes is None else self.cityscapes

    @property
    def images_root(self) -> Path | None:
        """The root of a known data set that has the images; None for images without splits."""
        return self._target_root() if self.target else self.cityscapes

    @property
    def scored_layout_name(self) -> str | None:
        """The layout that was named for ``scored_root``; None: it is Cityscapes, or recognized."""
        return None if self.cityscapes is not None else self.target_layout

    @property
    def scored_layout(self) -> Layout:
        """The layout of ``scored_root``; raises what ``load_layout`` raises."""
        if self.cityscapes is not None:
            return load_layout("cityscapes")
        if self.target_layout is not None:
            return load_layout(self.target_layout)
        return target_layout(self.scored_root)

    @property
    def scores_its_images(self) -> bool:
        """Whether the images are of the data set that is scored."""
        return self.images_root is not None and self.images_root == self.scored_root

    def _target_root(self) -> Path | None:
        """The root that --target names, if it is known; by a layout of its own any folder is."""
        if not self.target or len(self.target) > 1:
            return None
        root = Path(self.target[0]).expanduser()
        is_known = self.target_layout is not None or target_layout(root) is not None
        return root if is_known else None

    def images(
        self,
        split: str,
        list_file: Path | None = None,
        leave_out: Sequence[str] | None = None,
    ) -> ImageList:
        """The images of ``split``, without labels; raises what --cityscapes or --target raise.

        ``list_file`` names those to use, ``leave_out`` those to leave out (``ImageList.without``).
        The header of every image is read: a damaged one must not stop a run in the middle.
        """
        if self.target:
            images = target_images(self.target, split, self.target_layout)
        else:
            images = cityscapes(self.cityscapes, split, labels=False)
        images = select_by_list(images, list_file).without(leave_out)
        if self.target and len(self.target) == 1:  # who names several folders knows it
            say_joined_splits(images.names, self.target[0])
        check_listing(images)
        return images
