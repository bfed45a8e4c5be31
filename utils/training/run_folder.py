"""Run folder: lock, config.json, TensorBoard."""

import fcntl
import json
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils.training.environment import environment

COMPARED = ("backbone", "batch_size", "discriminator", "lab", "lr")
"""The settings that TensorBoard's table of runs opens with; any other is a tick away."""


class RunFolder:
    """``checkpoints/NAME/``: config.json, last.pt, best.pt and TensorBoard events, held by one
    process at a time.

    Of the processes that train together only one ``writes``; for the others every method that would
    does nothing. Raises FileExistsError when the folder holds a run and ``resume`` is False,
    FileNotFoundError when there is nothing to resume, BlockingIOError when another process works in
    it, OSError when it cannot be written.
    """

    def __init__(self, folder: Path, resume: bool, writes: bool = True):
        self.folder, self.writes = Path(folder), writes
        self._lock = self._writer = None
        self.last, self.best, self.config = (
            self.folder / name for name in ("last.pt", "best.pt", "config.json")
        )
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
        if not writes:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # An OS lock goes with the process, so that a killed run leaves none behind; this kind is
        # not shared with the processes that read images, which outlive it for some seconds.
        self._lock = open(self.folder / ".lock", "w")  # noqa: SIM115 (held as long as the run)
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
        """Adds one entry to config.json: each start and each continuation of the run, with its
        command and circumstances.
        """
        if not self.writes:
            return
        entries = (
            json.loads(self.config.read_text())
            if self.config.exists() and self.last.exists()
            else []
        )
        entries.append({"argv": sys.argv, **environment(), **metadata})
        temporary = self.config.with_suffix(".json.writing")
        temporary.write_text(json.dumps(entries, indent=2, default=str) + "\n")
        os.replace(temporary, self.config)

    def open_events(self, first_step: int) -> None:
        """Begins a TensorBoard file; what a stopped run wrote beyond ``first_step`` is hidden."""
        if self.writes:
            self._writer = SummaryWriter(str(self.folder), purge_step=first_step or None)

    def log(self, step: int, values: dict[str, float], bar: tqdm) -> None:
        """Scalars, to TensorBoard under their names and to the progress bar, or as a line where
        there is no terminal.
        """
        if not self.writes:
            return
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        text = ", ".join(
            f"{name} {value:.4g}" for name, value in values.items() if not name.startswith("time/")
        )
        text += _pace(values) if "time/compute_s" in values else ""
        if bar.disable:
            print(f"step {step}: {text}", flush=True)
        else:
            bar.set_postfix_str(text)

    def log_scores(
        self, step: int, miou: float, pixel_accuracy: float, iou: dict[str, float], bar: tqdm
    ) -> None:
        """Validation scores as fractions of 1; those of single classes to TensorBoard only, where
        they are defined.
        """
        self.log(step, {"val/miou": miou, "val/pixel_accuracy": pixel_accuracy}, bar)
        for name, value in iou.items():
            if self.writes and value == value:  # NaN: the class does not occur
                self._writer.add_scalar(f"val_iou/{name}", value, step)

    def log_warning(self, step: int, warnings: list[str]) -> None:
        """To the screen and to TensorBoard."""
        for warning in warnings:
            self.print(warning)
            if self.writes:
                self._writer.add_text("warning", warning, step)

    def log_hparams(self, settings: dict[str, Any], scalars: list[str]) -> None:
        """Enters the run into TensorBoard's table of hyper-parameters, with the last values of the
        ``scalars`` that it logs.
        """
        if self.writes:
            for summary in _table_entry(settings, scalars):
                self._writer.file_writer.add_summary(summary)

    def log_image(self, step: int, name: str, image: np.ndarray) -> None:
        """An (H, W, 3) uint8 RGB picture to TensorBoard."""
        if self.writes:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            self._lock.close()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _table_entry(settings: dict[str, Any], scalars: list[str]) -> list[Summary]:
    """A run's row of TensorBoard's table, and the columns of the table.

    TensorBoard takes the columns from any one of the runs it shows, for all of them: those that
    matter are therefore named by each, whether the run has them or not. torch's own ``hparams``
    would enter booleans as numbers.
    """
    row, columns = SessionStartInfo(), dict.fromkeys(COMPARED, "DATA_TYPE_STRING")
    for name, value in settings.items():
        if isinstance(value, bool):
            row.hparams[name].bool_value, columns[name] = value, "DATA_TYPE_BOOL"
        elif isinstance(value, int | float):
            row.hparams[name].number_value, columns[name] = value, "DATA_TYPE_FLOAT64"
        elif value is not None:
            row.hparams[name].string_value, columns[name] = str(value), "DATA_TYPE_STRING"
    # What is said to differ between runs is shown first.
    infos = [
        api_pb2.HParamInfo(name=name, type=api_pb2.DataType.Value(kind), differs=name in COMPARED)
        for name, kind in columns.items()
    ]
    names = dict.fromkeys(["val/miou", "val/pixel_accuracy", *scalars])
    experiment = api_pb2.Experiment(
        hparam_infos=infos,
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=name)) for name in names],
    )
    parts = {
        metadata.EXPERIMENT_TAG: {"experiment": experiment},
        metadata.SESSION_START_INFO_TAG: {"session_start_info": row},
    }
    about = {
        tag: metadata.create_summary_metadata(HParamsPluginData(**part))
        for tag, part in parts.items()
    }
    return [Summary(value=[Summary.Value(tag=tag, metadata=data)]) for tag, data in about.items()]


def _pace(values: dict[str, float]) -> str:
    """What utils.training.meters.StepClock measured, for people."""
    wait, left = values["time/data_wait_s"], timedelta(hours=values["time/hours_left"])
    seconds = wait + values["time/compute_s"]
    return (
        f", {seconds:.3g} s a step ({wait:.2g} waiting for data),"
        f" {values['time/images_per_second']:.3g} images/s, {str(left).split('.')[0]} left"
    )
