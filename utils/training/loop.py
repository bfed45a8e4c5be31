"""What surrounds the steps of a run: checkpoints, log, pictures, validation, stop signals.

A TrainingRun never trains a model and never calls a method. The training loop stays in the entry
script.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.evaluation.evaluate import evaluate
from utils.evaluation.metrics import scores
from utils.options.recipe import settings_toml
from utils.options.remedies import is_out_of_memory
from utils.report.pictures import side_by_side
from utils.training.distributed import ProcessGroup
from utils.training.meters import LossMeter, StepTimer, panel_interval
from utils.training.optim import gradient_norm, zero_gradients
from utils.training.precision import describe_precision
from utils.training.run_folder import RunFolder
from utils.training.run_parts import MonitorOptions, RunOptions, StepData, TrainedNetworks
from utils.training.saved_buffers import SavedBuffers
from utils.training.signals import StopRequest
from utils.training.snapshots import Snapshots
from utils.training.training_state import TrainingState

BETWEEN_STEPS, IN_GRADIENTS, IN_UPDATE = range(3)
"""Where the run is. Between steps its state is whole. While gradients are computed only BatchNorm's
statistics have changed; during an update, and until the step has ended, nothing can be saved.
"""


class TrainingRun:
    """A run of a training script; use it as a context around the training loop.

    ``metadata``: plain values that describe the run in its checkpoints: name, settings,
    architecture, ..., and perhaps the names of ``derived`` settings, which settings.toml leaves
    out: a repeated run derives them from its own data. ``to_device(sample, valid_pixels)`` gives a
    batch on the device. Raises what RunFolder and TrainingState.resume raise.
    """

    def __init__(
        self,
        options: RunOptions,
        processes: ProcessGroup,
        trained: TrainedNetworks,
        metadata: dict[str, Any],
        to_device: Callable[[Any, int | None], Any],
        monitor: MonitorOptions,
    ):
        trained.require_saved_pairs()
        self.options, self.processes, self.trained = options, processes, trained
        self.metadata, self.to_device, self.monitor = metadata, to_device, monitor
        self.meter = LossMeter(processes)
        self.stop = StopRequest()
        self.first_step = self.done = 0
        self.finished = self._counting = False
        self._phase = BETWEEN_STEPS

    def __enter__(self) -> "TrainingRun":
        with ExitStack() as entered:  # leaves what was entered if a resume is refused
            entered.enter_context(self.processes)
            folder = self.options.output / self.metadata["name"]
            self.folder = RunFolder(folder, self.options.resume, self.processes.is_first)
            entered.enter_context(self.folder)
            entered.enter_context(self.stop)
            self._restore()
            self._entered = entered.pop_all()
        return self

    def _restore(self) -> None:
        """Restores the state of a resumed run; all processes begin with the same networks."""
        processes, trained = self.processes, self.trained
        self.state = TrainingState(
            trained.state,
            self.metadata,
            processes.device,
            self.meter,
            self.folder.writes,
            self.monitor.saved(),
        )
        self.snapshots = Snapshots(
            self.folder.last,
            self.options.keep_every,
            self.options.keep_last,
            trained.state[self.metadata.get("inference_network", "model")],
            self.metadata,
            self.folder.writes,
        )
        if self.options.resume:
            initial = self.metadata["settings"].get("init")
            self.state.resume(self.folder.last, self.options.flag_defaults)
            if note := self.state.unread_init(initial):
                self.folder.print(note)
        else:
            self.state.require_left_out()
        networks = [part for part in trained.state.values() if isinstance(part, nn.Module)]
        processes.broadcast(*networks)
        self.first_step = self.done = self._saved = self.state.step
        self._buffers = [buffer for network in networks for buffer in network.buffers()]
        self._buffers_before = SavedBuffers(self._buffers)

    def steps(self, max_steps: int, *data: StepData | None) -> Iterator[tuple]:
        """(step, sample of each domain) from the first step of this start to ``max_steps``.

        A domain that is None is not read: None stands for its samples and micro-batches.
        Ends early, the run saved, when a stop signal came.
        """
        if self.first_step > max_steps:
            raise ValueError(
                f"{max_steps} steps are asked for (--max-steps or --epochs); the run in"
                f" {self.folder.folder} has made {self.first_step}. Give as many or more."
            )
        self.max_steps, self._is_read = max_steps, [domain is not None for domain in data]
        self.data = data = [domain for domain in data if domain is not None]
        self._announce()
        every = self.options.panel_every
        self._panel_every = every and panel_interval(every, max_steps, pictures=len(data))
        steps = range(self.first_step, max_steps)
        batches = zip(*(domain.batches(steps) for domain in data), strict=True)
        images = sum(domain.batch_size for domain in data)
        self.timer = StepTimer(batches, self.first_step, max_steps, images, show=self.folder.writes)
        self._end_interrupted_step()
        if self.snapshots.is_missing(self.first_step):
            self._keep_snapshot(self.first_step)
        for step, samples in self.timer:
            self._samples = samples
            self._buffers_before.save()
            self._phase = IN_GRADIENTS
            yield step, *self._with_unread(samples)
            if self._stopping and self.done < max_steps:
                self.folder.print(
                    f"Stopped by {self._stop_reason} after step {self.done}, saved to"
                    f" {self.folder.last}."
                    " Continue with the same command and --resume."
                )
                return
        self.finished = True

    def _end_interrupted_step(self) -> None:
        """Validates where the run ended before that was done, and finishes a run without its end.

        A validation that is no longer asked for is dropped.
        """
        state, done = self.state, self.first_step
        if state.validation_due and self.monitor.validation is not None:
            self._validate(done)
        if state.validation_due or (done == self.max_steps and not state.finished):
            self._save(done)

    def finish(self, root: Path | None, layout: str | None = None) -> None:
        """Prints the command that scores the run, if all steps are done.

        ``root``: of the target, None: not known; ``layout``: the one that was named for it.
        """
        if self.finished:
            words = ["python", "eval.py", self.folder.last, "--target", root or "ROOT"]
            words += ["--layout", layout] if layout else []
            self.folder.print(f"Done. Score it with: {shlex.join(map(str, words))}")

    def _announce(self) -> None:
        """Writes config.json and settings.toml, opens TensorBoard, prints what begins."""
        metadata, processes, folder = self.metadata, self.processes, self.folder
        settings, warnings = metadata["settings"], self.monitor.start_warnings(metadata)
        warnings += self.monitor.unreached(self.max_steps, settings.get("warmup", 0))
        folder.record(
            settings=settings,
            seed=settings["seed"],
            first_step=self.first_step,
            device=str(processes.device),
            processes=processes.world_size,
            warnings=warnings,
        )
        chosen = {k: v for k, v in settings.items() if k not in metadata.get("derived", ())}
        folder.record_settings(settings_toml(metadata["script"], metadata["name"], chosen))
        folder.open_events(self.first_step)
        scored = ["val/miou"] if self.monitor.validation is not None else []
        folder.log_hparams(settings, ["loss/segmentation", *scored])
        computes = describe_precision(processes.device, settings["precision"])
        if processes.world_size > 1:
            computes += f", {processes.world_size} processes"
        counts = " and ".join(f"{len(domain)} {domain.domain}" for domain in self.data)
        counts = counts.removesuffix(" train")  # the one domain of train.py
        folder.print(
            f"{metadata['name']}: {counts} images, steps {self.first_step} to {self.max_steps},"
            f" {computes}, into {folder.folder}",
            *self.snapshots.announcement(self.max_steps),
            *warnings,
        )

    def micro_batches(self, *samples: Any) -> Iterator[tuple]:
        """Splits the samples of one step, and moves the micro-batches to the device.

        The labelled pixels of the first domain, the source, are counted first, over the whole batch
        and all processes. Losses are divided by their number, so that the gradients of
        micro-batches add up to those of the whole batch. With loss weights that depend on the whole
        batch (OHEM) all micro-batches come twice: the first time their losses are not recorded, and
        their gradients are dropped.
        """
        read = [sample for sample in samples if sample is not None]
        valid_pixels = None
        if samples[0] is not None:
            valid_pixels = self.processes.all_reduce_sum(samples[0].count_valid_pixels())
        splits = (sample.split(self.options.accumulate) for sample in read)
        micro_batches = list(zip(*splits, strict=True))
        counts = self.trained.batch_counts
        if counts is not None and len(micro_batches) > 1:
            yield from self._counting_pass(micro_batches, valid_pixels)
        for micro_batch in micro_batches:
            if counts is not None:
                counts.begin_micro_batch()
            self._names = self._names_of(micro_batch)
            yield self._on_device(micro_batch, valid_pixels)
        if counts is not None:
            counts.forget_counts()

    def _counting_pass(self, micro_batches: list[tuple], valid_pixels: int) -> Iterator[tuple]:
        """All micro-batches, only to count what the whole batch holds; gradients are dropped."""
        counts = self.trained.batch_counts
        self._counting = True
        counts.begin_counting()
        for micro_batch in micro_batches:
            counts.begin_micro_batch()
            yield self._on_device(micro_batch, valid_pixels)
        counts.end_counting()
        self._counting = False
        self._buffers_before.put_back()
        zero_gradients(self.trained.optimizers.values())

    def _on_device(self, micro_batch: tuple, valid_pixels: int | None) -> tuple:
        """A micro-batch on the device; ``valid_pixels`` are those of the source, if it is read."""
        counts = (valid_pixels, *[None] * (len(micro_batch) - 1))
        return self._with_unread(map(self.to_device, micro_batch, counts))

    def _with_unread(self, values: Iterable[Any]) -> tuple:
        """``values`` of the domains that are read, with None in the places of the others."""
        found = iter(values)
        return tuple(next(found) if is_read else None for is_read in self._is_read)

    def _names_of(self, micro_batch: tuple) -> list[str]:
        """The names of the images of a micro-batch."""
        pairs = zip(self.data, micro_batch, strict=True)
        return [name for domain, sample in pairs for name in domain.names(sample)]

    def record(self, step: int, losses: dict[str, Tensor]) -> None:
        """Notes the losses of a micro-batch, detached scalars, without waiting for the device."""
        if not self._counting:
            self.meter.add(step, losses, self._names)

    def sum_gradients(self) -> None:
        """Sums the gradients of all networks over the processes."""
        # On the CPU, which sees at once that a process is gone; NCCL would wait for it.
        self.processes.any(False)
        self.processes.sum_gradients(self.trained.model, *self.trained.networks.values())
        self._phase = IN_UPDATE

    def after_step(self, done: int) -> None:
        """Logs, draws, validates, saves and keeps, each when it is due, after ``done`` steps."""
        self._phase, self.done = BETWEEN_STEPS, done
        self.processes.share_buffers(self._buffers)  # --bn local lets them differ
        if self.monitor.collapse_monitor is not None:
            self.monitor.collapse_monitor.after_step(done)
        options = self.options
        # Asked once: a signal may come at any moment.
        self._stopping, self._stop_reason = self.processes.any(bool(self.stop)), self.stop
        last = done == self.max_steps
        if done % options.log_every == 0 or last:
            self._log(done, is_interval=done % options.log_every == 0)
        with self.timer.paused():
            self._draw_score_and_save(done)

    def _draw_score_and_save(self, done: int) -> None:
        """What is due after ``done`` steps and is no part of a step."""
        if self._panel_every and (done == 1 or done % self._panel_every == 0):
            self._log_pictures(done)
        is_due = self._validates_after(done)
        if is_due:  # saved before: whatever happens in it, the steps are there
            self._save(done, validation_due=True)
            self._validate(done)
        keeps_snapshot = self.snapshots.is_due(done)
        is_interval = done % self.options.save_every == 0
        ends = self._stopping or done == self.max_steps
        if is_due or keeps_snapshot or is_interval or ends:
            self._save(done)
        if keeps_snapshot:  # after last.pt: what is kept is a state that the run can resume from
            self._keep_snapshot(done)

    def _validates_after(self, done: int) -> bool:
        """Whether a validation is due after ``done`` steps."""
        every = self.options.validate_every
        is_asked = self.monitor.validation is not None and every > 0
        return is_asked and (done % every == 0 or done == self.max_steps)

    def _keep_snapshot(self, done: int) -> None:
        self.folder.log_warning(done, self.snapshots.keep(done))

    def _save(self, done: int, validation_due: bool = False) -> None:
        self.folder.flush_events()
        finished = done == self.max_steps and not validation_due
        self.state.save(self.folder.last, done, finished=finished, validation_due=validation_due)
        self._saved = done

    def _log(self, done: int, is_interval: bool) -> None:
        # At the end of a run the interval may be open: a longer run averages over all of it.
        trained, losses = self.trained, self.meter.read()
        names = ["learning_rate", *(f"learning_rate/{name}" for name in trained.networks)]
        values = {
            name: optimizer.param_groups[0]["lr"]
            for name, optimizer in zip(names, trained.optimizers.values(), strict=True)
        }
        values |= {
            f"gradient_norm/{name}": gradient_norm(network).item()
            for name, network in {"model": trained.model, **trained.networks}.items()
        }
        self.folder.log(done, losses | values | self.timer.read(done), self.timer.bar)
        if is_interval:  # now that they are written
            self.meter.forget()
        self.folder.log_warning(done, self.monitor.warnings(done, losses))
        self._log_target(done)

    def _log_target(self, done: int) -> None:
        """Class shares on the target; a class that collapses is warned of, and may end the run."""
        collapse = self.monitor.collapse_monitor
        if collapse is None:
            return
        self.folder.log_by_class(done, collapse.scalars())
        collapsed = collapse.warnings()
        self.folder.log_warning(done, collapsed)
        if collapsed and self.monitor.stop_on_collapse and done < self.max_steps:
            self._stopping, self._stop_reason = True, "--stop-on-collapse"

    def _log_pictures(self, done: int) -> None:
        """The first image of each domain, its prediction, and its label if it has one."""
        for domain, sample in zip(self.data, self._samples, strict=True):
            maps = [self.monitor.predict(sample.image[:1])[0].cpu().numpy()]
            if domain.has_labels:
                maps.append(sample.label[0].numpy())
            picture = side_by_side(sample.image[0].numpy(), maps, self.monitor.colors)
            self.folder.log_image(done, f"{domain.domain}/image_prediction_truth", picture)

    def _validate(self, done: int) -> None:
        """Scores the validation set, whose images the processes share; keeps the best."""
        processes, monitor = self.processes, self.monitor
        matrix, ignored = evaluate(monitor.predict, monitor.validation, len(monitor.class_names))
        result = scores(processes.all_reduce_sum(matrix), processes.all_reduce_sum(ignored))
        iou = dict(zip(monitor.class_names, result.iou, strict=True))
        self.folder.log_scores(done, result.miou, result.pixel_accuracy, iou, self.timer.bar)
        self.state.save_if_best(self.folder.best, done, result.miou)

    def __exit__(self, kind: type | None, error: BaseException | None, *trace: object) -> None:
        try:
            saved = self._save_last_whole_step(error)
        finally:
            self._entered.__exit__(kind, error, *trace)
        if error is not None and is_out_of_memory(error):
            raise ValueError(self._out_of_memory_message(error) + saved) from error
        if saved:
            print(saved.strip(), flush=True)

    def _save_last_whole_step(self, error: BaseException | None) -> str:
        """Saves the state before the step that failed; returns a sentence that says so.

        Not after values that are not finite, nor in the middle of an update. Of several processes
        the first one saves, by itself: the others may be gone. Its weights and statistics are
        those of all; the losses that were not logged yet need all processes, and are left out.
        """
        broken = isinstance(error, FloatingPointError) or not isinstance(error, Exception)
        if broken or self._phase == IN_UPDATE or not self.processes.is_first:
            return ""
        if self.done <= self._saved:
            return ""
        if self._phase == IN_GRADIENTS:
            self._buffers_before.put_back()
        try:
            self.meter.keep_whole_steps(self.done)
            if self.processes.world_size > 1:
                self.meter.continue_alone()
            due = self._validates_after(self.done)
            self.state.save(self.folder.last, self.done, finished=False, validation_due=due)
        except (FloatingPointError, OSError, RuntimeError) as failure:  # a GPU may be lost, too
            return f" Steps since the last save are lost: {failure}"
        return (
            f" All {self.done} whole steps are saved in {self.folder.last}: continue with the same"
            " command and --resume."
        )

    def _out_of_memory_message(self, error: BaseException) -> str:
        settings, reason = self.metadata["settings"], str(error).split("\n")[0]
        if self._phase == BETWEEN_STEPS:
            return (
                f"Out of memory on {self.processes.device} ({reason}) after step {self.done}, while"
                " whole images were scored or drawn. Leave --validate-every out (also with"
                " --resume), and score the checkpoint with eval.py afterwards, whose --precision"
                " bf16 needs less."
            )
        height, width = settings["crop_size"]
        sizes = " + ".join(str(domain.batch_size) for domain in self.data)
        return (
            f"Out of memory on {self.processes.device} ({reason}) in a step of {sizes} images of"
            f" {height}x{width} in {settings['precision']}, in {self.options.accumulate}"
            " micro-batches. Split the batch with --accumulate 2 or more, or choose a smaller"
            " --batch-size or --crop-size, or --precision bf16."
        )
