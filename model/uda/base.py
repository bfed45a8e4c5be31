"""Base class of the adaptation methods. A method is one class in one file of this folder.

A new method needs a new file here and no other edit: its class is found (``find_methods``), its
options become flags of train_da.py, and its state goes into checkpoints. Other files of this folder
are parts of methods (teacher_options, pseudo_label_weight, strong_augmentation, collapse_monitor)
or serve scripts (adabn: recalibrate and average; class_balanced_threshold: make_pseudo_labels).
"""

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from model import uda
from model.preprocessing import InputNormalization
from model.training_step import Batch, StepContext
from model.uda.collapse_monitor import CollapseMonitor


def option(default: Any, text: str, **argparse_settings: Any) -> Any:
    """A field of a method's options that is also a flag, with its default and its help text.

    ``type`` names a type of utils.options.parser, such as "positive_float", which checks values;
    without it values are numbers where the annotation or the default says so. ``choices``,
    ``nargs`` and ``metavar`` are those of argparse. A bool is a flag with a --no- form.
    ``essential=True``: --help shows it, and not only --help-all.
    """
    settings = {"help": text, **argparse_settings}
    return field(default=default, metadata=settings)


class TargetNeeds(NamedTuple):
    """What a method needs of the target's samples beside the images.

    ``label_root``: root with labels made beforehand. ``ignored_rows``: (top, bottom) fractions of
    the image height that nothing is learned from. ``context_scale``: full images come beside the
    crops, with this scale squared times as many pixels as a crop; None: no full images.
    ``smallest_scale``: the smallest one in which a network sees them.
    """

    label_root: Path | None = None
    ignored_rows: tuple[float, float] | None = None
    context_scale: float | None = None
    smallest_scale: float = 1.0


@dataclass(frozen=True)
class RunSettings:
    """Settings of a run that the options of its method have to fit.

    Batch sizes are images per step; ``crop_size`` is (height, width) in pixels. The others are the
    values of --target-view, --bn and --pixel-weights.
    """

    batch_size: int
    target_batch_size: int
    crop_size: tuple[int, int]
    target_view: str
    bn: str
    pixel_weights: str

    def check_joint_batch_norm(self) -> None:
        """Raises ValueError for runs in which --joint-batch-norm cannot work or has no effect."""
        if self.target_view == "whole":
            raise ValueError(
                "--joint-batch-norm puts source crops and target images into one batch, which needs"
                " one size: use it with --target-view crops"
            )
        if self.bn == "frozen":
            raise ValueError(
                "--joint-batch-norm: without effect with --bn frozen, which takes no statistics of"
                " a batch. Leave one of them out"
            )


@dataclass(frozen=True)
class MethodOptions:
    """The options of a method, each declared by ``option``. Subclass it as a frozen dataclass."""

    def check(self, run: RunSettings) -> None:
        """Raises ValueError for options that cannot work, alone or in such a run."""

    def target_needs(self) -> TargetNeeds:
        """What the method needs of the target's samples."""
        return TargetNeeds()

    @property
    def learns_source(self) -> bool:
        """Whether the source is learned from; if not, none of its images is read."""
        return True


class MethodSetting(NamedTuple):
    """What a run gives to its method.

    ``all_reduce_sum``: sums a tensor over the processes of the run. ``ignore_index``: the label
    that is not learned from. ``random_changes``: {name: function of a random generator} that gives
    the parameters of a random change of an image (dataset.style.photometric.RANDOM_CHANGES).
    ``class_names``: of the run. ``collapse_monitor``: notices when a class collapses on the target;
    None: nothing does.
    ``read_checkpoint``: the content of a file with another network, for methods that learn from it.
    """

    context: StepContext
    num_classes: int
    normalize: InputNormalization
    all_reduce_sum: Callable[[Tensor], Tensor] = lambda tensor: tensor
    ignore_index: int = 255
    random_changes: Mapping[str, Callable[[np.random.Generator], Any]] = MappingProxyType({})
    class_names: Sequence[str] = ()
    collapse_monitor: CollapseMonitor | None = None
    read_checkpoint: Callable[[Path], dict[str, Any]] | None = None


class Method(ABC):
    """An adaptation method: its networks, its optimizers, and the gradients of one step.

    The training loop calls ``step`` for every micro-batch, steps all optimizers, and then calls
    ``after_step``. Subclasses set ``name`` (of --method) and ``Options``. ``inference_part``: the
    part of a checkpoint with the network that is validated and used in the end, the trained model
    unless a subclass says otherwise.
    """

    name: ClassVar[str]
    Options: ClassVar[type[MethodOptions]] = MethodOptions
    inference_part: ClassVar[str] = "model"

    def __init__(self, model: nn.Module, options: MethodOptions, setting: MethodSetting):
        self.model, self.options, self.context = model, options, setting.context
        self.networks: dict[str, nn.Module] = {}
        """Networks that are trained beside the model, by their names in a checkpoint."""
        self.optimizers: dict[str, Optimizer] = {}
        """The optimizers of ``networks``, in their order, by their names in a checkpoint."""
        self.collapse_monitor = setting.collapse_monitor
        self.monitors: dict[str, Any] = {}
        """Other monitors, which a resumed run continues, by their names in a checkpoint."""
        self.origins: list[dict[str, Any]] = []
        """Checkpoints that it learns from: what they have seen, the new network has seen."""

    @abstractmethod
    def step(self, source: Batch, target: Batch) -> dict[str, Tensor]:
        """Adds the gradients of all losses of a micro-batch, to the model and to ``networks``.

        ``source`` is None for options that do not learn from it (``learns_source``).
        Returns detached scalars by their TensorBoard names; steps no optimizer. Gradients and
        scalars of micro-batches add up to those of the whole batch. Adds its predictions on the
        target to ``monitor_target`` or ``monitor_target_logits``, so that a collapse is noticed.
        """

    def monitor_target(
        self, label: Tensor, probability: Tensor, valid: Tensor | None = None
    ) -> None:
        """Adds predictions on the target to the collapse monitor (CollapseMonitor.add)."""
        if self.collapse_monitor is not None:
            self.collapse_monitor.add(label, probability, valid)

    def monitor_target_logits(self, logits: Tensor, valid: Tensor | None = None) -> None:
        """Adds logits of the target to the collapse monitor (CollapseMonitor.add_logits)."""
        if self.collapse_monitor is not None:
            self.collapse_monitor.add_logits(logits, valid)

    def after_step(self, step: int) -> None:  # noqa: B027 (may stay empty)
        """Called after the optimizers of step number ``step``, counted from 0, have stepped."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the method: {name: object with a state_dict}."""
        return self.networks | self.optimizers

    @property
    def short_name(self) -> str:
        """Beginning of a run's default name."""
        return self.name

    def metadata(self) -> dict[str, Any]:
        """Plain values about the method that tables need and settings do not tell."""
        return {}

    def warnings(self, step: int, values: dict[str, float]) -> list[str]:
        """Warnings about the scalars that were logged after ``step`` steps."""
        return []


def find_methods() -> dict[str, type[Method]]:
    """{name: class} of every method in this folder, the paper's first.

    Raises TypeError where two have one name: only one of them could be chosen.
    """
    found: dict[str, type[Method]] = {}
    for info in pkgutil.iter_modules(uda.__path__):
        module = importlib.import_module(f"{uda.__name__}.{info.name}")
        for method in vars(module).values():
            is_own = isinstance(method, type) and method.__module__ == module.__name__
            if not is_own or not issubclass(method, Method) or inspect.isabstract(method):
                continue
            other = found.setdefault(method.name, method)
            if other is not method:
                raise TypeError(
                    f"{other.__module__}.{other.__name__} and {module.__name__}.{method.__name__}"
                    f' are both called {method.name!r}. Give one of them another name = "..."'
                )
    return dict(sorted(found.items(), key=lambda item: (item[0] != "adversarial", item[0])))
