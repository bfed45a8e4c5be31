"""Run folder: lock, config.json, TensorBoard."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.plugins.hparams import summary_v2 as hparams
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils.files import output_folder, write_file
from utils.locks import FileLock
from utils.training.environment import environment
from utils.training.snapshots import snapshot_files

HPARAM_COLUMNS = ("backbone", "batch_size", "discriminator", "lab", "lr")
"""Columns of TensorBoard's table of runs; any other setting is one click away."""


class RunFolder:
    """``checkpoints/NAME/``: config.json, settings.toml, last.pt, best.pt, snapshots, TensorBoard.

    One run at a time holds the folder. Of the processes that train together only one ``writes``;
    for the others every method that would does nothing. Raises FileExistsError when the folder
    holds a run and ``resume`` is False, FileNotFoundError when there is nothing to resume,
    BlockingIOError when another process works in it, OSError when it cannot be written.
    """

    def __init__(self, folder: Path, resume: bool, writes: bool = True):
        self.folder, self.writes = Path(folder), writes
        self._lock = self._writer = None
        names = ("last.pt", "best.pt", "config.json", "settings.toml")
        self.last, self.best, self.config, self.settings = (self.folder / name for name in names)
        if resume and not self.last.is_file():
            raise FileNotFoundError(
                f"Nothing to resume: no {self.last}. Start the run without --resume, or check"
                " --name and --output."
            )
        if not resume and self.last.exists():
            raise FileExistsError(
                f"{self.folder} already holds a run. Continue it with --resume, or choose another"
                " --name."
            )
        if not resume and snapshot_files(self.folder):
            raise FileExistsError(
                f"{self.folder} holds snapshots of a run, but no last.pt to continue it. Move them,"
                " or choose another --name."
            )
        if not writes:
            return
        output_folder(self.folder)
        try:
            self._lock = FileLock(self.folder / ".lock")
        except BlockingIOError as error:
            raise BlockingIOError(
                f"Another process is working in {self.folder}. Wait for it, stop it, or choose"
                " another --name."
            ) from error

    def print(self, *lines: str) -> None:
        """Prints lines, once for all processes."""
        if self.writes:
            print(*lines, sep="\n", flush=True)

    def record(self, **metadata: Any) -> None:
        """Adds an entry to config.json at every start: the command, the environment, metadata."""
        if not self.writes:
            return
        goes_on = self.config.exists() and self.last.exists()
        entries = self._entries() if goes_on else []
        entries.append({"argv": sys.argv, **environment(), **metadata})
        self._write_entries(entries)

    def _write_entries(self, entries: list[dict[str, Any]]) -> None:
        text = json.dumps(entries, indent=2, default=str) + "\n"
        write_file(self.config, text.encode(), durable=True)

    def _entries(self) -> list[dict[str, Any]]:
        """The entries of config.json; [], and a message, where it is damaged."""
        try:
            entries = json.loads(self.config.read_text(encoding="utf-8"))
        except ValueError as error:  # no JSON, or no text
            self.print(
                f"WARNING: {self.config} is damaged ({error}): a new record begins. The run itself"
                f" goes on from {self.last}."
            )
            return []
        return entries if isinstance(entries, list) else []

    def record_settings(self, text: str) -> None:
        """Writes settings.toml, which --recipe can repeat: those of the latest start."""
        if self.writes:
            write_file(self.settings, text.encode(errors="surrogateescape"))

    def open_events(self, first_step: int) -> None:
        """Begins a TensorBoard file; what a stopped run wrote beyond ``first_step`` is hidden.

        The points of ``first_step`` itself stay: they were saved. A run that begins anew in the
        folder of one that never saved hides all of them.
        """
        if self.writes:
            purge_step = first_step + 1 if first_step else 0
            self._writer = SummaryWriter(str(self.folder), purge_step=purge_step)

    def flush_events(self) -> None:
        """Brings all points to the disk: before the step that they belong to is saved."""
        if self._writer is not None:
            self._writer.flush()

    def log(self, step: int, values: dict[str, float], bar: tqdm) -> None:
        """Scalars, to TensorBoard and to the progress bar; without a terminal they are printed."""
        if not self.writes:
            return
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        shown = {name: value for name, value in values.items() if not name.startswith("time/")}
        text = ", ".join(f"{name} {value:.4g}" for name, value in shown.items())
        text += _pace(values) if "time/compute_s" in values else ""
        if bar.disable:
            print(f"step {step}: {text}", flush=True)
        else:
            bar.set_postfix_str(text)

    def log_scores(
        self, step: int, miou: float, pixel_accuracy: float, iou: dict[str, float], bar: tqdm
    ) -> None:
        """Validation scores as fractions of 1. ``iou``: {class: IoU}, to TensorBoard only."""
        self.log(step, {"val/miou": miou, "val/pixel_accuracy": pixel_accuracy}, bar)
        # NaN: the class does not occur.
        defined = {f"val_iou/{name}": value for name, value in iou.items() if value == value}
        self.log_by_class(step, defined)

    def log_by_class(self, step: int, values: dict[str, float]) -> None:
        """Scalars of the classes, to TensorBoard only."""
        if self.writes:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def log_warning(self, step: int, warnings: list[str]) -> None:
        """Warnings to the screen, to TensorBoard and to config.json."""
        if not self.writes or not warnings:
            return
        self.print(*warnings)
        for warning in warnings:
            self._writer.add_text("warning", warning, step)
        entries = (self._entries() if self.config.exists() else []) or [{}]
        known = entries[-1].setdefault("warnings", [])
        known += [f"step {step}: {warning}" for warning in warnings]
        try:
            self._write_entries(entries)
        except OSError as error:  # a full disk: the run goes on
            self.print(f"WARNING: the warning is not in config.json: {error}")

    def log_hparams(self, settings: dict[str, Any], scalars: list[str]) -> None:
        """Adds the run to TensorBoard's table, with the last values of its ``scalars``."""
        if self.writes:
            for summary in _hparams_summaries(settings, scalars):
                self._writer.file_writer.add_summary(summary)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """An (H, W, 3) uint8 RGB picture to TensorBoard."""
        if self.writes:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:  # a full disk: the run has more to say than this
                self.print(f"WARNING: TensorBoard's file in {self.folder} lacks points: {error}")
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _hparams_summaries(settings: dict[str, Any], scalars: list[str]) -> list:
    """The row of a run in TensorBoard's table of hyper-parameters, and the columns of the table.

    TensorBoard takes the columns from any one of the runs that it shows, for all of them. So every
    run names those that matter, whether it has them or not.
    """
    values = {
        # Names of files that are not UTF-8 are shown as TensorBoard can.
        name: value
        if isinstance(value, bool | int | float)
        else str(value).encode(errors="backslashreplace").decode()
        for name, value in settings.items()
        if value is not None
    }
    columns = [hparams.HParam(name) for name in dict.fromkeys((*HPARAM_COLUMNS, *values))]
    metrics = [
        hparams.Metric(name) for name in dict.fromkeys(["val/miou", "val/pixel_accuracy", *scalars])
    ]
    return [hparams.hparams_config_pb(columns, metrics), hparams.hparams_pb(values)]


def _pace(values: dict[str, float]) -> str:
    """What utils.training.meters.StepTimer measured, for people."""
    wait, left = values["time/data_wait_s"], timedelta(hours=values["time/hours_left"])
    seconds = wait + values["time/compute_s"]
    return (
        f", {seconds:.3g} s a step ({wait:.2g} waiting for data),"
        f" {values['time/images_per_second']:.3g} images/s, {str(left).split('.')[0]} left"
    )
