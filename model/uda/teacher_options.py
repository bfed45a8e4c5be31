"""Options that methods with teachers share: what a teacher sees, and what its student sees."""

from dataclasses import dataclass

from model.inference.tta import TTAView
from model.uda.base import MethodOptions, MethodSetting, RunSettings, option
from model.uda.strong_augmentation import StrongAugmentation


@dataclass(frozen=True)
class TeacherOptions(MethodOptions):
    """A teacher labels target images as they are; the network learns them strongly augmented."""

    teacher_context: str = option(
        "crop",
        "what a teacher sees when it labels a crop: the crop, or the whole image around it",
        choices=("crop", "whole"),
    )
    teacher_scales: tuple[float, ...] = option(
        (1.0,),
        "scales at which a teacher predicts; its probabilities are averaged. 1: the crop's size",
        type="positive_float",
        nargs="+",
        metavar="SCALE",
    )
    strong_jitter: float = option(
        0.8,
        "probability of color jitter of the images that teachers have labelled",
        type="probability",
        metavar="P",
    )
    strong_blur: float = option(
        0.5,
        "probability of blur of the images that teachers have labelled",
        type="probability",
        metavar="P",
    )

    def check(self, run: RunSettings) -> None:
        scale, (height, width) = min(self.teacher_scales), run.crop_size
        if scale * min(height, width) < 32:
            raise ValueError(
                f"--teacher-scales {scale:g} makes {scale * min(height, width):g} pixels of"
                f" --crop-size {height} {width}: the network needs at least 32. Give a larger"
                " scale or crop"
            )

    @property
    def context_scale(self) -> float | None:
        """The scale in which whole images come beside the crops; None: they do not."""
        return max(self.teacher_scales) if self.teacher_context == "whole" else None

    def views(self) -> tuple[TTAView, ...]:
        """The scales relative to the images that come: whole ones come in the largest scale."""
        return tuple(TTAView(scale / (self.context_scale or 1.0)) for scale in self.teacher_scales)

    def augmentation(self, setting: MethodSetting) -> StrongAugmentation:
        """The strong augmentation of what the network sees."""
        return StrongAugmentation(
            setting.random_changes["color_matrix"],
            setting.random_changes["blur_sigma"],
            self.strong_jitter,
            self.strong_blur,
            setting.normalize,
        )
