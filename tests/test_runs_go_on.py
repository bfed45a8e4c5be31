"""A run goes on as if it had never stopped, and what a network has seen goes with its weights."""

import hashlib
import json
import re
import shutil
import time
from pathlib import Path

import pytest
import torch

import eval as evaluate
import train
import train_da
from dataset.labels import CLASS_NAMES
from model.build import NetworkOptions, build_network
from scripts import prepare, recalibrate
from scripts.predict import __main__ as predict
from scripts.summarise import __main__ as summarise
from tests.helpers.checkpoints import same_state
from tests.helpers.cli import SMALL, run_train, start, words
from tests.helpers.networks import write_checkpoint
from utils.evaluation.comparability import score_warnings
from utils.report.curves import read_curves
from utils.training import metadata
from utils.training.checkpoint import read_checkpoint
from utils.training.distributed import ProcessGroup
from utils.training.metadata import run_metadata
from utils.training.meters import LossMeter
from utils.training.precision import choose_device, choose_precision
from utils.training.provenance import inherited
from utils.training.resume_changes import differences, removed_alone
from utils.training.run_folder import RunFolder
from utils.training.training_state import TrainingState

pytestmark = pytest.mark.usefixtures("narrow_networks")

CPU, ROOT = torch.device("cpu"), Path(__file__).parents[1]


def curves(folder) -> dict:
    """The curves that do not measure time."""
    found = read_curves(folder)
    return {
        name: list(zip(*curve, strict=True))
        for name, curve in found.items()
        if not name.startswith(("time/", "_hparams"))
    }


def test_curves_of_a_resumed_run_are_those_of_a_straight_one(
    gta5_root, cityscapes_root, tmp_path, monkeypatch
):
    """Stopped at a saved and scored step within an interval of the log, after steps lost since."""
    roots = (gta5_root, cityscapes_root)
    flags = ("--schedule-steps", 9, "--log-every", 3, "--validate-every", 2, "--save-every", 2)
    more = ("--lambda-adv", 0.1, "--max-steps", 4)
    start("train_da", *words("train_da", *roots, tmp_path / "a", *flags, *more))
    arguments = words("train_da", *roots, tmp_path / "b", *flags, *more)
    update, calls = train_da.update, []

    def fail(*parts):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        update(*parts)

    monkeypatch.setattr(train_da, "update", fail)
    with pytest.raises(KeyboardInterrupt):
        start("train_da", *arguments)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "b/run/last.pt")["step"] == 2
    start("train_da", *arguments, "--resume")
    assert curves(tmp_path / "a/run") == curves(tmp_path / "b/run")
    assert {step for step, _ in curves(tmp_path / "b/run")["val/miou"]} == {2, 4}
    assert same_state(tmp_path / "a/run/last.pt", tmp_path / "b/run/last.pt")


def test_a_fresh_start_hides_the_points_of_a_dead_run(tmp_path):
    """A run that never saved leaves no points; the saved step's own points stay."""

    class Bar:
        disable = True

    def log(resume: bool, first: int, steps: range, value: float) -> RunFolder:
        time.sleep(1 - time.time() % 1)  # event files of one second may be read in another order
        with RunFolder(tmp_path / "a", resume) as run:
            run.open_events(first)
            for step in steps:
                run.log(step, {"x": value}, Bar)
        return run

    log(False, 0, range(1, 6), 1.0)
    run = log(False, 0, range(1, 4), 2.0)
    run.last.touch()
    log(True, 2, range(3, 5), 3.0)
    assert curves(tmp_path / "a")["x"] == [(1, 2.0), (2, 2.0), (3, 3.0), (4, 3.0)]


def test_open_intervals_are_saved(tmp_path):
    """The mean after a resume is that of the whole interval."""
    processes = ProcessGroup(CPU)
    meters = [LossMeter(processes) for _ in range(2)]
    for step, value in enumerate((1.0, 2.5)):
        meters[0].add(step, {"loss": torch.tensor(value)}, ["a"])
    meters[1].restore(meters[0].state(), CPU)
    for meter in meters:
        meter.add(2, {"loss": torch.tensor(4.0)}, ["b"])
    assert meters[1].read() == meters[0].read() == {"loss": 2.5}
    meters[1].forget()
    assert meters[1].read() == {}


def test_a_run_is_saved_before_it_is_scored(cityscapes_root, gta5_root, tmp_path, monkeypatch):
    """Killed while it is scored: nothing is lost, and the resumed run scores the step."""
    flags = ("--max-steps", 1, "--validate-every", 1, "--cityscapes", cityscapes_root)
    arguments = words("train", gta5_root, cityscapes_root, tmp_path, *flags)
    from utils.training import loop

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "evaluate", killed)
    with pytest.raises(KeyboardInterrupt):
        start("train", *arguments)
    monkeypatch.undo()
    last = read_checkpoint(tmp_path / "run/last.pt")
    assert (last["step"], last["finished"], last["best"]) == (1, False, None)
    start("train", *arguments, "--resume")
    last = read_checkpoint(tmp_path / "run/last.pt")
    assert last["finished"]
    assert last["best"]["step"] == 1
    assert [step for step, _ in curves(tmp_path / "run")["val/miou"]] == [1]


def test_a_damaged_record_does_not_stop_a_run(tmp_path, capsys):
    """An empty config.json begins anew, and this is said."""
    with RunFolder(tmp_path / "a", resume=False) as run:
        run.last.touch()
        run.config.write_text("")
        run.record(settings={})
    assert len(json.loads(run.config.read_text())) == 1
    assert "config.json is damaged" in capsys.readouterr().out


def state(settings: dict, **metadata) -> TrainingState:
    meter = LossMeter(ProcessGroup(CPU))
    parts = {"model": torch.nn.Linear(2, 2)}
    return TrainingState(parts, {"settings": settings, **metadata}, CPU, meter)


def test_a_flag_that_is_younger_than_a_run_has_its_default(tmp_path):
    """A run from before a flag goes on with the default, and is refused with another value."""
    state({"lr": 0.1}).save(tmp_path / "last.pt", 1)
    defaults = {"cat_max_ratio": 1.0}
    now = state({"lr": 0.1, "cat_max_ratio": 1.0, "data_fingerprint": "2 images"})
    now.resume(tmp_path / "last.pt", defaults)
    other = state({"lr": 0.1, "cat_max_ratio": 0.5})
    with pytest.raises(ValueError, match=r"cat_max_ratio: 1.0 -> 0.5"):
        other.resume(tmp_path / "last.pt", defaults)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("batch_norm_updates", "--accumulate"),
        ("schedule_steps", "--schedule-steps"),
        ("target_fingerprint", "--leave-out"),
    ],
)
def test_a_refused_resume_says_which_flags_matter(tmp_path, name, hint):
    """Settings that follow from flags of other names come with these, and with no others."""
    state({name: 1}).save(tmp_path / "last.pt", 1)
    with pytest.raises(ValueError, match=hint) as refused:
        state({name: 2}).resume(tmp_path / "last.pt")
    others = {"--accumulate", "--schedule-steps", "--leave-out"} - {hint}
    assert not [other for other in others if other in str(refused.value)]


def test_a_run_of_the_other_script_is_not_resumed(tmp_path):
    """The error says which one made it, and not the settings in which the two scripts differ."""
    before, now = state({"lr": 1}), state({"lr": 2})
    before.metadata["script"], now.metadata["script"] = "train", "train_da"
    before.save(tmp_path / "last.pt", 1)
    with pytest.raises(ValueError, match=r"is of train\.py, and this is train_da\.py.*--init"):
        now.resume(tmp_path / "last.pt")


@pytest.mark.parametrize(
    ("now", "words", "accepted"),
    [
        (["a/x", "a/z"], ["y"], True),
        (["a/x", "a/z"], ["folder/a/y.png"], True),
        (["a/x", "a/z"], ["folder/y.png"], False),
        (["a/x", "a/z"], ["x"], False),
        (["a/z", "a/x"], ["y"], False),
        (["a/x", "a/y", "a/z", "a/w"], ["w"], False),
    ],
)
def test_a_named_image_may_be_missing(now, words, accepted):
    """Data may lose images that --leave-out names, and change in nothing else."""
    assert removed_alone(now, ["a/x", "a/y", "a/z"], words) == accepted


def test_a_run_goes_on_without_a_damaged_image(gta5_root, cityscapes_root, tmp_path):
    """It is found before the first step; --leave-out continues the run, in all data."""
    roots = (gta5_root, cityscapes_root, tmp_path)
    common = words("train_da", *roots, "--schedule-steps", 9)
    start("train_da", *common, "--max-steps", 1)
    damaged = sorted((cityscapes_root / "leftImg8bit/train/aachen").iterdir())[2]
    damaged.unlink()
    with pytest.raises(ValueError, match=r"target_fingerprint: 5 images.*--leave-out"):
        start("train_da", *common, "--max-steps", 2, "--resume")
    start("train_da", *common, "--max-steps", 2, "--resume", "--leave-out", damaged.name)
    last = read_checkpoint(tmp_path / "run/last.pt")
    assert last["step"] == 2
    assert len(last["data_names"]["target_fingerprint"]) == 4


def test_fewer_steps_than_were_made_are_refused(gta5_root, tmp_path):
    """The record of the run stays as it was."""
    flags = ("--train-on", "source", "--gta5", gta5_root, "--schedule-steps", 4)
    folder = run_train(tmp_path, *flags, "--max-steps", 2)
    before = (folder / "settings.toml").read_bytes(), (folder / "config.json").read_bytes()
    message = r"1 steps are asked for \(--max-steps or --epochs\); .* has made 2\. Give as many"
    with pytest.raises(ValueError, match=message):
        run_train(tmp_path, *flags, "--max-steps", 1, "--resume")
    assert before == (
        (folder / "settings.toml").read_bytes(),
        (folder / "config.json").read_bytes(),
    )


def test_leaving_out_an_image_changes_no_number_of_steps(gta5_root, tmp_path):
    """Of a run whose length is given in epochs; settings.toml then repeats the run of today."""
    flags = ("--train-on", "source", "--gta5", gta5_root, "--epochs", 2, "--save-every", 1)
    run_train(tmp_path, *flags)
    steps = read_checkpoint(tmp_path / "run/last.pt")["step"]
    images = sorted((gta5_root / "images").iterdir())
    assert (len(images) - 1) // 2 < len(images) // 2, "one image less must be one step less"
    run_train(tmp_path, *flags, "--resume", "--leave-out", images[0].stem)
    assert read_checkpoint(tmp_path / "run/last.pt")["step"] == steps
    settings = (tmp_path / "run/settings.toml").read_text()
    assert f'leave_out = ["{images[0].stem}"]' in settings
    assert "schedule_steps" not in settings


@pytest.mark.parametrize(
    ("before", "now", "may"),
    [((1, 2), (2, 1), False), ((2, 1), (2, 1), True), ((1, 1), (2, 1), False)],
    ids=str,
)
def test_resuming_keeps_what_batch_norm_sees(monkeypatch, before, now, may):
    """(--accumulate, processes): two updates from 2 images each are not one from 2 images.

    With frozen statistics both may change; so may updates that a run did not record.
    """

    def settings_of(accumulate, processes, bn="local"):
        monkeypatch.setattr(metadata, "world_size", lambda: processes)
        given = {"batch_size": 4, "accumulate": accumulate, "bn": bn}
        return run_metadata("train", "run", given, {})["settings"]

    def may_resume(new, old):
        return not differences(new, old)

    new, old = settings_of(*now), settings_of(*before)
    assert may_resume(new, old) == may
    assert may_resume(settings_of(*now, "frozen"), settings_of(*before, "frozen"))
    del old["batch_norm_updates"]
    same_groups = new["batch_norm_group_sizes"] == old["batch_norm_group_sizes"]
    assert may_resume(new, old) == same_groups


def test_a_default_that_was_filled_in_is_not_repeated(gta5_root, cityscapes_root, tmp_path):
    """--target-batch-size follows the --batch-size of a repeated run."""
    start("train_da", *words("train_da", gta5_root, cityscapes_root, tmp_path, "--max-steps", 1))
    assert "target_batch_size" not in (tmp_path / "run/settings.toml").read_text()
    args = train_da.parse_arguments(
        ["--recipe", str(tmp_path / "run/settings.toml"), "--batch-size", "4"]
    )
    assert args.target_batch_size == 4


def test_a_teacher_is_not_shown_too_small_images(gta5_root, cityscapes_root, tmp_path):
    """Whole images with as many pixels as a crop are less high than it: said before step 1."""
    roots = (gta5_root, cityscapes_root, tmp_path)
    flags = ("--method", "self-training", "--teacher-context", "whole", "--crop-size", 32, 32)
    with pytest.raises(ValueError, match=r"would be 23 pixels high.*larger --crop-size"):
        start("train_da", *words("train_da", *roots, *flags, "--max-steps", 1))


def test_a_misspelt_name_is_refused(gta5_root, cityscapes_root, tmp_path):
    """At the start and at --resume: --leave-out names images that are there, or were."""
    roots = (gta5_root, cityscapes_root, tmp_path)
    common = words("train_da", *roots, "--schedule-steps", 9, "--max-steps")
    nearest = "the nearest name there is '00002'"
    with pytest.raises(ValueError, match=f"--leave-out 0002.png: none of the run.*{nearest}"):
        start("train_da", *common, 1, "--leave-out", "00004.png", "0002.png")
    assert not (tmp_path / "run/last.pt").exists()
    start("train_da", *common, 1, "--leave-out", "00004.png")
    assert read_checkpoint(tmp_path / "run/last.pt")["left_out"] == ["00004"]
    for folder in ("images", "labels"):
        (gta5_root / folder / "00004.png").unlink()
    again = (*common, 1, "--resume", "--leave-out")
    for _ in range(2):  # it was there once
        start("train_da", *again, "00004")
    with pytest.raises(ValueError, match=nearest):
        start("train_da", *again, "00004", "0002.png")


def test_a_deleted_name_stays_known(tmp_path):
    """A run that is resumed twice may still name an image that is gone."""
    settings = {"leave_out": ["c"], "data_fingerprint": "2 images"}
    names = {"data_names": {"data_fingerprint": ["a", "b"]}, "left_out": ["c"]}
    state(settings, **names).save(tmp_path / "last.pt", 1)
    for step in (2, 3):
        again = state(settings, **names | {"left_out": []})
        again.resume(tmp_path / "last.pt")
        again.save(tmp_path / "last.pt", step)


def test_pseudo_labels_may_move_and_not_change(gta5_root, cityscapes_root, tmp_path):
    """Moved ones go on, exchanged ones are refused."""
    labels = tmp_path / "labels"
    shutil.copytree(cityscapes_root / "gtFine", labels / "gtFine")
    flags = ("--method", "pseudo-labels", "--schedule-steps", 9)
    common = words("train_da", gta5_root, cityscapes_root, tmp_path, *flags)
    start("train_da", *common, "--max-steps", 1, "--pseudo-labels", labels)
    moved = labels.rename(tmp_path / "moved")
    start("train_da", *common, "--max-steps", 2, "--pseudo-labels", moved, "--resume")
    files = sorted((moved / "gtFine/train/aachen").iterdir())
    shutil.copy(files[0], files[1])
    with pytest.raises(ValueError, match="pseudo-labels: 1 have other content, first aachen"):
        start("train_da", *common, "--max-steps", 3, "--pseudo-labels", moved, "--resume")


def test_true_labels_are_no_pseudo_labels(gta5_root, cityscapes_root, tmp_path, capsys):
    """The root of the target as --pseudo-labels: warned of, and recorded; its copied labels not."""
    shutil.copytree(cityscapes_root / "gtFine", tmp_path / "made/gtFine")
    flags = ("--method", "pseudo-labels", "--max-steps", 1, "--pseudo-labels")
    for root, count in ((cityscapes_root, 5), (tmp_path / "made", 0)):
        output = tmp_path / f"{count}"
        start("train_da", *words("train_da", gta5_root, cityscapes_root, output, *flags, root))
        warned = "true labels of 5 of the target's images" in capsys.readouterr().out
        assert warned == bool(count)
        known = read_checkpoint(output / "run/last.pt").get("labelled_images", [])
        assert len(known) == count


def test_the_target_as_source_is_warned_of(cityscapes_root, tmp_path, capsys):
    """A variable of the shell that names the wrong root makes an oracle."""
    flags = ("--method", "minent", "--max-steps", 1)
    start("train_da", *words("train_da", cityscapes_root, cityscapes_root, tmp_path, *flags))
    assert "true labels of 5 of the target's images" in capsys.readouterr().out


def test_other_looks_and_scored_images_are_refused(gta5_root, cityscapes_root, tmp_path):
    """--target-list and --val-list may move; what they name may not change."""
    lists = []
    for split in ("train/aachen", "val/lindau"):
        names = sorted(
            f"{path.parent.name}/{path.stem}"
            for path in (cityscapes_root / "leftImg8bit" / split).iterdir()
        )
        for number in (0, 1):
            lists.append(tmp_path / f"{split[:3]}{number}.txt")
            lists[-1].write_text(names[number] + "\n")
    common = [*SMALL, "--train-on", "gta5", "--gta5", gta5_root, "--cityscapes", cityscapes_root]
    common += ["--lab", "--output", tmp_path, "--name", "run", "--validate-every", 1]
    common += ["--schedule-steps", 9, "--panel-every", 0]
    start("train", *common, "--target-list", lists[0], "--val-list", lists[2], "--max-steps", 1)
    for target, val, name in ((1, 2, "target_fingerprint"), (0, 3, "val_fingerprint")):
        other = ("--target-list", lists[target], "--val-list", lists[val])
        with pytest.raises(ValueError, match=name):
            start("train", *common, *other, "--max-steps", 2, "--resume")


def test_provenance_goes_with_weights(gta5_root, cityscapes_root, tmp_path):
    """--init, adaptation and a Cityscapes source say what was seen and how it was chosen."""
    first = write_checkpoint(tmp_path / "first.pt", chosen_with_labels=True)
    torch.save(torch.load(first) | {"seen_images": ["lindau/a"]}, first)
    flags = ("--init", first, "--max-steps", 1, "--schedule-steps", 9)
    tree = words("train_da", cityscapes_root, cityscapes_root, tmp_path, *flags)
    start("train_da", *tree)
    last = tmp_path / "run/last.pt"
    content = read_checkpoint(last)
    assert "lindau/a" in content["seen_images"]
    assert any(name.startswith("cityscapes::aachen/") for name in content["seen_images"])
    warnings = score_warnings(content, "last.pt", ["lindau/a"], None)
    assert len(warnings) == 2
    first.unlink()  # --resume needs it no more
    more = words("train_da", cityscapes_root, cityscapes_root, tmp_path, *flags[:3], 2, *flags[4:])
    start("train_da", *more, "--resume")
    content = read_checkpoint(last)
    assert content["step"] == 2
    assert "lindau/a" in content["seen_images"]
    assert content["chosen_with_labels"]


def test_true_labels_of_the_target_are_not_forgotten(gta5_root, cityscapes_root, tmp_path, capsys):
    """A run that begins with an oracle says so, and one that begins with that run; others not."""
    roots = (gta5_root, cityscapes_root)
    flags = ("--max-steps", 1)
    start("train", *words("train", *roots, tmp_path / "oracle", *flags))
    said = "the true labels of 5 of the target's images"
    before = tmp_path / "oracle/run/last.pt"
    for name in ("second", "third"):
        begun = ("--init", before, "--method", "minent", *flags)
        start("train_da", *words("train_da", *roots, tmp_path / name, *begun))
        assert said in capsys.readouterr().out
        before = tmp_path / name / "run/last.pt"
    assert len(read_checkpoint(before)["labelled_images"]) == 5
    resumed = ("--init", before, "--method", "minent", *flags, "--resume")
    start("train_da", *words("train_da", *roots, tmp_path / "third", *resumed))
    assert said in capsys.readouterr().out
    start("train_da", *words("train_da", *roots, tmp_path / "honest", *flags))
    assert "true labels" not in capsys.readouterr().out


def test_training_on_scored_source_images_is_said(gta5_root, cityscapes_root, tmp_path):
    """Images of any source count as seen, whether its layout is GTA5's or Cityscapes'."""
    for script in ("train", "train_da"):
        data = ["--train-on", "source"] if script == "train" else ["--cityscapes", cityscapes_root]
        flags = [*SMALL, *data, "--source", gta5_root, "--output", tmp_path, "--name", script]
        start(script, *flags, "--max-steps", 1, "--schedule-steps", 9)
        content = read_checkpoint(tmp_path / script / "last.pt")
        warnings = score_warnings(content, "last.pt", ["00001", "00009"], None)
        assert len(warnings) == 1
        assert "was trained or adapted on 1 of the 2 images" in warnings[0]


def test_weights_of_unknown_origin_are_said(gta5_root, cityscapes_root, tmp_path, monkeypatch):
    """A file of backbone weights may come from anywhere; torchvision's own is recognized."""
    from model import backbone

    file = tmp_path / "resnet.pth"
    torch.save(backbone.ResNet("resnet18").state_dict(), file)
    flags = words("train", gta5_root, cityscapes_root, tmp_path, "--schedule-steps", 9)
    start("train", *flags, "--backbone-weights", file, "--max-steps", 1)
    content = read_checkpoint(tmp_path / "run/last.pt")
    later = inherited(["b"], inherited(["a"], content))  # through --init, or resumed
    warnings = score_warnings({"name": "later", **later}, "last.pt", ["x"], None)
    assert len(warnings) == 1
    assert "weights of resnet.pth, whose training images are not known" in warnings[0]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    known = type("Weights", (), {"url": f"https://x.org/resnet18-{digest[:8]}.pth"})
    assert backbone.weights_origin(str(file)) == {"unknown_weights": ["resnet.pth"]}
    monkeypatch.setitem(backbone._WEIGHTS, "resnet18", known)
    assert backbone.weights_origin(str(file)) == {}


def test_seen_images_are_named_once():
    assert inherited(["a", "b"], {"seen_images": ["b", "c"]}) == {"seen_images": ["a", "b", "c"]}


def test_a_recalibrated_teacher_can_be_read(cityscapes_root, tmp_path):
    """The file of scripts.recalibrate holds one network, whatever the run trained beside it."""
    from model.loading import load_network
    from tests.helpers.networks import trained_like_network
    from utils.training.checkpoint import save_checkpoint

    plain = read_checkpoint(write_checkpoint(tmp_path / "plain.pt"))
    metadata = {key: value for key, value in plain.items() if key not in ("format", "parts")}
    parts = {"model": trained_like_network(1), "teacher": trained_like_network(2)}
    save_checkpoint(tmp_path / "a.pt", parts, **metadata | {"inference_network": "teacher"})
    arguments = [tmp_path / "a.pt", "--cityscapes", cityscapes_root, "--device", "cpu"]
    arguments += ["--workers", 0, "--batch-size", 2]
    recalibrate.main(recalibrate.parse_arguments(list(map(str, arguments))))
    model, _ = load_network(read_checkpoint(tmp_path / "a-adabn.pt"))
    assert torch.equal(model.head.weight, parts["teacher"].head.weight)


def test_initial_weights_of_another_input_are_refused(tmp_path):
    """--init compares the input convention, and the error names the flag."""
    checkpoint = read_checkpoint(write_checkpoint(tmp_path / "a.pt"))
    options = NetworkOptions("resnet18", "none", None, "local", "caffe_bgr")
    with pytest.raises(ValueError, match="trained with --input imagenet.*Add --input imagenet"):
        build_network(options, CLASS_NAMES, CPU, checkpoint)


def test_tf32_is_off_for_every_script(monkeypatch):
    """Whatever it was: the choices of device and precision, which all scripts make, turn it off."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    try:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        for choose in (choose_device, lambda name: choose_precision("fp32", torch.device(name))):
            for backend in backends:
                backend.allow_tf32 = True
            choose("cuda")
            assert not any(backend.allow_tf32 for backend in backends)
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def test_every_door_to_a_network_chooses_its_precision():
    """A script that names --precision calls choose_precision, itself or through start_runtime."""
    scripts = [*ROOT.glob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    door = re.compile(r"\badd_(device|training)_arguments\(")
    doors = [path for path in scripts if door.search(path.read_text())]
    assert len(doors) >= 8
    for path in doors:
        assert re.search(r"\b(choose_precision|start_runtime)\(", path.read_text()), path


DA = ("--gta5", "g", "--cityscapes", "c")


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        (train, ("--train-on", "gta5", "--gta5", "g", "--val-list", "v"), "Add --validate-every"),
        (train_da, (*DA, "--val-list", "v"), "Add --validate-every"),
        (train, ("--train-on", "gta5", "--gta5", "g", "--weight-decay", "nan"), "finite number"),
        (
            train_da,
            (*DA, "--method", "self-training", "--target-view", "whole"),
            "Use --target-view crops",
        ),
        (
            train_da,
            (*DA, "--method", "self-training", "--teacher-scales", 0.2, "--crop-size", 64, 64),
            "--teacher-scales 0.2 makes 12.8 pixels",
        ),
        (
            train_da,
            (*DA, "--method", "pseudo-labels", "--pseudo-labels", "p", "--pixel-weights", "class"),
            "--rare-class-sampling",
        ),
        (
            train_da,
            (*DA, "--method", "pseudo-labels", "--pseudo-labels", "p", "--pixel-weights", "ohem"),
            "--rare-class-sampling",
        ),
        (
            train_da,
            (*DA, "--method", "self-training", "--teacher-bn", "target", "--bn", "frozen"),
            "--teacher-bn target normalizes",
        ),
        (
            train_da,
            (*DA, "--recipe", "strong", "--max-steps", 80_000),
            "beyond --schedule-steps 40000, where the learning rate reaches 0",
        ),
        (train_da, (*DA, "--lab-class-balanced"), "without effect without --lab"),
        (
            train_da,
            (*DA, "--joint-batch-norm", "--target-view", "whole"),
            "use it with --target-view crops",
        ),
        (
            train_da,
            (*DA, "--joint-batch-norm", "--bn", "frozen"),
            "without effect with --bn frozen",
        ),
        (
            train_da,
            (*DA, "--method", "self-training", "--pseudo-ignore-rows", 0.6, 0.5),
            "--pseudo-ignore-rows 0.6 0.5 leaves no row",
        ),
        (
            train_da,
            (*DA, "--method", "self-training", "--pseudo-threshold", 1),
            "--pseudo-threshold 1: no probability is above 1",
        ),
    ],
)
def test_what_cannot_work_or_does_nothing_is_refused(script, flags, message, capsys):
    """By the parser, with the remedy."""
    with pytest.raises(SystemExit):
        script.parse_arguments(list(map(str, flags)))
    assert message in capsys.readouterr().err


MODEL = ("--model", "m.pt", "i.png", "--output", "o")
TARGET = ("--train-on", "target", "--cityscapes", "c")
SOURCE = ("--train-on", "source", "--gta5", "g")
UNUSED = [
    (train, (*TARGET, "--gta5", "g"), "--source/--gta5"),
    (train, (*TARGET, "--init", "i", "--backbone-weights", "b"), "--backbone-weights"),
    (train, (*SOURCE, "--logit-adjustment", "0.5"), "--logit-adjustment"),
    (train_da, (*DA, "--logit-adjustment", "1"), "--logit-adjustment"),
    (train, (*SOURCE, "--cityscapes", "c"), "--cityscapes"),
    (train, (*SOURCE, "--target", "t", "--jitter"), "--target/--target-images"),
    (train_da, (*DA, "--init", "i", "--backbone-weights", "imagenet"), "--backbone-weights"),
    (train_da, ("--gta5", "g", "--target", "t", "--target-split", "val"), "--target-split"),
    (evaluate, ("m.pt", "--gta5", "g", "--split", "val"), "--split"),
    (predict, (*MODEL, "--save", "labelIds", "--no-legend"), "--no-legend"),
    (predict, (*MODEL[2:], "--compare", "m.pt", "--save", "overlay"), "--save"),
    (predict, ("--model", "m.onnx", *MODEL[2:], "--precision", "fp32"), "--precision"),
    (prepare, ("--gta5", "g", "--check", "--splits", "val"), "--splits"),
    (recalibrate, ("m.pt", "--target", "t", "--split", "train"), "--split"),
    (summarise, ("f", "--cityscapes", "c", "--pictures", "0"), "--target/--cityscapes"),
]


@pytest.mark.parametrize(("script", "flags", "named"), UNUSED, ids=lambda value: str(value)[-20:])
def test_flags_that_do_nothing_are_refused(script, flags, named, capsys):
    """Those on the command line; without them it is accepted."""
    with pytest.raises(SystemExit):
        script.parse_arguments(list(flags))
    assert f"error: {named}: without effect" in capsys.readouterr().err


def test_a_recipe_may_name_data_that_is_not_read(tmp_path):
    """A run's own settings.toml names all of it; --backbone-weights none loads nothing."""
    recipe = tmp_path / "settings.toml"
    recipe.write_text('[train]\ntrain_on = "source"\ngta5 = "g"\ncityscapes = "c"\n')
    train.parse_arguments(["--recipe", str(recipe), "--max-steps", "1", "--epochs", "1"])
    train.parse_arguments([*TARGET, "--init", "i", "--backbone-weights", "none"])


def test_a_run_by_epochs_repeats_its_epochs(gta5_root, tmp_path):
    """On other data, too: the number of steps is not in its settings.toml. A flag given wins."""
    flags = ("--train-on", "gta5", "--gta5", gta5_root, "--epochs", 1)
    run_folder = run_train(tmp_path, *flags)
    again = ["--recipe", run_folder / "settings.toml", "--output", tmp_path, "--name", "again"]
    start("train", *again, "--epochs", 2)
    assert (
        read_checkpoint(tmp_path / "again/last.pt")["step"]
        == 2 * (read_checkpoint(run_folder / "last.pt")["step"])
    )
    long = tmp_path / "long.toml"
    long.write_text(f'[train]\ntrain_on = "source"\ngta5 = {str(gta5_root)!r}\nmax_steps = 9\n')
    args = train.parse_arguments(["--recipe", str(long), "--epochs", "2"])
    assert (args.max_steps, args.epochs) == (None, 2)
    with pytest.raises(ValueError, match="--max-steps 3 is beyond --schedule-steps 2"):
        run_train(tmp_path / "b", *flags[:4], "--max-steps", 3, "--schedule-steps", 2)


def test_a_given_target_replaces_that_of_a_recipe(tmp_path):
    """In both scripts; where the recipe has one to learn from and one to score, each its own."""
    da, both = tmp_path / "da.toml", tmp_path / "both.toml"
    da.write_text('[train_da]\ngta5 = "g"\ntarget = ["a"]\n\n[train]\ncityscapes = "c"\n')
    args = train_da.parse_arguments(["--recipe", str(da), "--cityscapes", "new"])
    assert (args.target, args.cityscapes) == (None, Path("new"))
    args = train.parse_arguments(["--recipe", str(da), *SOURCE, "--lab", "--target", "new"])
    assert (args.target, args.cityscapes) == (["new"], None)
    both.write_text(da.read_text().split("\n\n")[0] + '\ncityscapes = "c"\nvalidate_every = 5\n')
    args = train_da.parse_arguments(["--recipe", str(both), "--cityscapes", "new"])
    assert (args.target, args.cityscapes) == (["a"], Path("new"))


def test_one_target_is_named_once(capsys):
    """--target and --cityscapes together only where one is looked like and one is scored."""
    both = [*SOURCE, "--target", "t", "--cityscapes", "c", "--lab"]
    train.parse_arguments([*both, "--validate-every", "5"])
    with pytest.raises(SystemExit):
        train.parse_arguments(both)
    assert "both name the target" in capsys.readouterr().err


def test_whole_images_of_two_sizes_are_refused(gta5_root, cityscapes_root, tmp_path):
    """Before the first step; the error names two images."""
    from PIL import Image

    path = sorted((cityscapes_root / "leftImg8bit/train/aachen").iterdir())[3]
    Image.open(path).resize((96, 48)).save(path)
    flags = words("train_da", gta5_root, cityscapes_root, tmp_path, "--target-view", "whole")
    with pytest.raises(ValueError, match=r"needs images of one size.*\(48, 96\)"):
        start("train_da", *flags, "--max-steps", 1)
