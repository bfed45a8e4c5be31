import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train_da
from dataset import training_data
from dataset.segmentation import SegmentationDataset
from model.loading import load_network
from tests.conftest import write_cityscapes
from tests.helpers.checkpoints import same_state
from tests.helpers.cli import run_train, run_train_da
from tests.helpers.networks import trained_like_network, write_checkpoint
from utils.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_networks")

SELF_TRAINING = [
    "--method",
    "self-training",
    "--jitter",
    "0.5",
    "--rare-class-sampling",
    "--pseudo-threshold",
    "0.9",
    "--pseudo-weighting",
    "class",
]
SELF_TRAINING += [
    "--teacher-context",
    "whole",
    "--teacher-scales",
    "0.75",
    "1.5",
    "--target-scales",
    "1",
]


def run(output: Path, gta5: Path, cityscapes: Path, *arguments: object) -> Path:
    """Runs train_da.py in this process; returns the run folder."""
    return run_train_da(output, "--gta5", gta5, "--cityscapes", cityscapes, *arguments)


@pytest.fixture
def unlabelled_root(tmp_path):
    """A target as adaptation finds it: train images, and nothing else."""
    return write_cityscapes(tmp_path / "target", {"train": 5}, labels=False)


@pytest.mark.parametrize(
    "method", [["--discriminator", "full"], ["--discriminator", "light"], ["--lab"]], ids=" ".join
)
def test_adaptation_works_without_target_labels_on_disk(
    gta5_root, unlabelled_root, tmp_path, method
):
    folder = run(tmp_path, gta5_root, unlabelled_root, *method, "--max-steps", 2)
    last = read_checkpoint(folder / "last.pt")
    assert last["parts"].keys() == {"model", "discriminator", "optimizer", "d_optimizer", "scaler"}
    assert last["discriminator"] == (method[1] if len(method) > 1 else "light")
    assert len(last["seen_images"]) == 5 + 6  # of the target and of the source
    events = EventAccumulator(str(folder)).Reload()
    scalars = {
        "loss/segmentation",
        "loss/adversarial",
        "loss/discriminator",
        "discriminator_accuracy/source",
        "discriminator_accuracy/target",
    }
    assert scalars <= set(events.Tags()["scalars"])
    assert {"gradient_norm/discriminator", "learning_rate/discriminator", "time/hours_left"} <= set(
        events.Tags()["scalars"]
    )
    assert len(events.Tags()["images"]) == 2


OTHER_METHODS = {
    "minent": (["--method", "minent"], "loss/entropy"),
    "self-training": (
        [
            "--method",
            "self-training",
            "--lab",
            "0.5",
            "--jitter",
            "0.8",
            "--blur",
            "--rare-class-sampling",
        ],
        "loss/mixed",
    ),
    "self-training, joint": (
        [
            "--method",
            "self-training",
            "--joint-batch-norm",
            "--fda",
            "--pixel-weights",
            "ohem",
        ],
        "loss/mixed",
    ),
    "entropy maps, least squares": (
        ["--discriminator-input", "entropy", "--adversarial-loss", "lsgan"],
        "loss/adversarial",
    ),
    "two output levels": (["--lambda-adv-aux", "0.002"], "loss/adversarial_aux16"),
    "joint, class weights": (
        ["--joint-batch-norm", "--pixel-weights", "class", "--logit-adjustment", "0.5"]
        + ["--fusion-channels", "32"],
        "loss/adversarial",
    ),
}


@pytest.mark.parametrize(("flags", "scalar"), OTHER_METHODS.values(), ids=OTHER_METHODS)
def test_other_methods_work_without_target_labels_on_disk(
    gta5_root, unlabelled_root, tmp_path, flags, scalar
):
    folder = run(
        tmp_path,
        gta5_root,
        unlabelled_root,
        *flags,
        "--head-lr-mult",
        2,
        "--warmup",
        1,
        "--max-steps",
        2,
    )
    assert scalar in EventAccumulator(str(folder)).Reload().Tags()["scalars"]
    model, _ = load_network(read_checkpoint(folder / "last.pt"))
    assert model.low_resolution(torch.zeros(1, 3, 64, 64)).logits.isfinite().all()


def test_distillation_resumes_without_its_teachers_file(gta5_root, unlabelled_root, tmp_path):
    """2 + resume + 2 = 4 bit for bit; what the teacher has seen, the network has seen."""
    teacher = write_checkpoint(tmp_path / "teacher.pt", seed=1, seen_images=["elsewhere"])
    flags = ["--method", "distil", "--teachers", teacher, "--schedule-steps", 9]
    flags += ["--soft-label-weights", "class"]
    data = (gta5_root, unlabelled_root)
    run(tmp_path / "straight", *data, *flags, "--max-steps", 4)
    run(tmp_path / "resumed", *data, *flags, "--max-steps", 2)
    moved = write_checkpoint(tmp_path / "moved.pt", seed=2)  # other weights: the saved ones count
    flags[flags.index(teacher)] = moved
    folder = run(tmp_path / "resumed", *data, *flags, "--max-steps", 4, "--resume")
    assert same_state(tmp_path / "straight/run/last.pt", folder / "last.pt")
    last = read_checkpoint(folder / "last.pt")
    assert "elsewhere" in last["seen_images"]
    assert torch.equal(
        last["parts"]["teachers"]["0.head.weight"], trained_like_network(1).head.weight
    )


def test_a_source_that_is_not_learned_from_is_not_read(
    gta5_root, unlabelled_root, tmp_path, capsys, monkeypatch
):
    """Flags that concern it alone change nothing, and the start names those that were given.

    Its images are not among those that the network has seen.
    """
    teacher = write_checkpoint(tmp_path / "teacher.pt", seed=1)
    flags = ["--method", "distil", "--teachers", teacher, "--lambda-source", 0, "--max-steps", 1]
    data = (gta5_root, unlabelled_root)
    plain = run(tmp_path / "plain", *data, *flags) / "last.pt"
    assert "NOTE" not in capsys.readouterr().out
    assert not any(name.startswith("gta5::") for name in read_checkpoint(plain)["seen_images"])
    (tmp_path / "list.txt").write_text("00001\n00002\n")
    monkeypatch.setattr(train_da.DomainBatches, "class_pixels", None)
    flags += ["--source-list", tmp_path / "list.txt"]
    flags += ["--lab", "--lab-class-balanced", "--jitter", "--blur", 0.5, "--rare-class-sampling"]
    flags += ["--cat-max-ratio", 0.75, "--pixel-weights", "class", "--logit-adjustment", 0.5]
    given = run(tmp_path / "given", *data, *flags) / "last.pt"
    assert same_state(plain, given)
    out = capsys.readouterr().out
    assert "run: 5 target images, " in out
    assert (
        "NOTE: --source-list, --lab, --lab-class-balanced, --jitter, --blur, --rare-class-sampling,"
        " --cat-max-ratio, --pixel-weights, --logit-adjustment: without effect" in out
    )


def test_settings_that_a_short_run_never_reaches_are_named(
    gta5_root, unlabelled_root, tmp_path, capsys
):
    """The end of the warm-up, and the first step at which a collapse can be noticed."""
    flags = ["--max-steps", 2, "--stop-on-collapse", "--warmup", 2, "--collapse-window"]
    run(tmp_path / "long", gta5_root, unlabelled_root, *flags, 5)
    out = capsys.readouterr().out
    assert "NOTE: --warmup 2 leaves none of the 2 steps" in out
    assert "NOTE: --stop-on-collapse: without effect in 2 steps, because" in out
    assert "after 10 at the earliest" in out
    run(tmp_path / "short", gta5_root, unlabelled_root, *flags, 1, "--max-steps", 5)
    assert "NOTE" not in capsys.readouterr().out


def test_other_teachers_end_a_resume_with_a_message(gta5_root, unlabelled_root, tmp_path):
    """Their names are compared: more of them, or another, is refused; the checkpoint stays."""
    teachers = [write_checkpoint(tmp_path / f"{n}.pt", f"net{n}", seed=n) for n in (1, 2)]
    common = (tmp_path, gta5_root, unlabelled_root, "--method", "distil", "--schedule-steps", 9)
    last = run(*common, "--teachers", teachers[0], "--max-steps", 1) / "last.pt"
    before = last.read_bytes()
    for others in (teachers, teachers[1:]):
        with pytest.raises(ValueError, match=r"teacher_names: \['net1'\] -> .*net2"):
            run(*common, "--teachers", *others, "--max-steps", 2, "--resume")
    assert last.read_bytes() == before


def test_only_the_scored_val_is_transductive(tmp_path):
    """Adapting on val of one data set and scoring val of another is no leak."""
    for name in ("a", "b"):
        (tmp_path / name / "leftImg8bit/val/x").mkdir(parents=True)
    flags = ["--gta5", "g", "--target-split", "val", "--validate-every", "5"]
    for target, expected in (("a", True), ("b", False)):
        roots = ["--target", str(tmp_path / target), "--cityscapes", str(tmp_path / "a")]
        args = train_da.parse_arguments([*flags, *roots])
        assert train_da.target_flags(args).scores_its_images is expected


def test_scored_images_under_other_names_are_noticed(gta5_root, cityscapes_root, tmp_path, capsys):
    """The folder of val as plain images: what is scored is what is adapted to."""
    target = ["--target", cityscapes_root / "leftImg8bit/val", "--cityscapes", cityscapes_root]
    scored = ["--validate-every", 1, "--max-steps", 1, "--panel-every", 0]
    run_train_da(tmp_path, "--gta5", gta5_root, *target, *scored)
    assert "images that --validate-every scores are learned from" in capsys.readouterr().out


def test_the_teacher_is_what_a_run_with_one_hands_over(gta5_root, unlabelled_root, tmp_path):
    last = read_checkpoint(
        run(tmp_path, gta5_root, unlabelled_root, "--method", "self-training", "--max-steps", 2)
        / "last.pt"
    )
    assert last["parts"].keys() == {"model", "teacher", "optimizer", "scaler"}
    assert last["inference_network"] == "teacher"
    assert "discriminator" not in last
    deployed = load_network(last)[0].state_dict()
    assert all(torch.equal(value, last["parts"]["teacher"][key]) for key, value in deployed.items())
    assert not torch.equal(deployed["head.weight"], last["parts"]["model"]["head.weight"])


@pytest.mark.parametrize("method", [["--lab"], SELF_TRAINING], ids=["adversarial", "self-training"])
def test_any_images_may_be_the_target(gta5_root, unlabelled_root, tmp_path, method):
    pattern, odd = str(unlabelled_root / "**" / "*.png"), next(unlabelled_root.rglob("*.png"))
    with Image.open(odd) as image:
        image.resize((90, 80)).save(odd)  # of another shape than the others
    data = ["--gta5", gta5_root, "--target", pattern]
    run_train_da(tmp_path, *data, "--max-steps", 3, *method)
    assert len(read_checkpoint(tmp_path / "run/last.pt")["seen_images"]) == 5 + 6


@pytest.mark.parametrize(
    ("flags", "expected"), [([], (0.75, 1.5)), (["--target-scales", "1"], (1.0,))]
)
def test_the_target_may_have_scales_of_its_own(
    gta5_root, unlabelled_root, tmp_path, monkeypatch, flags, expected
):
    found = []

    class Noted(SegmentationDataset):
        def __init__(self, listing, geometry, *arguments, **options):
            found.append(geometry.scales)
            super().__init__(listing, geometry, *arguments, **options)

    monkeypatch.setattr(training_data, "SegmentationDataset", Noted)
    run(tmp_path, gta5_root, unlabelled_root, "--scales", 0.75, 1.5, *flags, "--max-steps", 1)
    assert found == [(0.75, 1.5), expected]  # source, target


def test_pseudo_labels_are_read_like_ground_truth(
    gta5_root, unlabelled_root, cityscapes_root, tmp_path, opened
):
    root = tmp_path / "labels"
    shutil.copytree(cityscapes_root / "gtFine/train", root / "gtFine/train")
    run(
        tmp_path,
        gta5_root,
        unlabelled_root,
        "--method",
        "pseudo-labels",
        "--pseudo-labels",
        root,
        "--max-steps",
        1,
    )
    assert [path for path in opened if str(root) in path]


@pytest.fixture
def opened():
    """The paths of all files that this process opens from here on."""
    paths, active = [], [True]

    def note(event: str, arguments: tuple) -> None:
        if event == "open" and active:
            paths.append(str(arguments[0]))

    sys.addaudithook(note)  # cannot be taken back, only told to be quiet
    yield paths
    active.clear()


def test_target_labels_are_never_opened(gta5_root, cityscapes_root, tmp_path, opened):
    run(tmp_path, gta5_root, cityscapes_root, "--lab", "--max-steps", 2)
    assert [path for path in opened if "leftImg8bit/train" in path]
    assert [path for path in opened if str(gta5_root / "labels") in path]
    assert not [path for path in opened if "gtFine" in path or "leftImg8bit/val" in path]


@pytest.mark.parametrize(
    ("precision", "method"),
    [
        ("bf16", ["--lab"]),
        ("fp32", ["--lab", "--discriminator", "full"]),
        ("fp32", SELF_TRAINING),
        ("bf16", SELF_TRAINING),
        ("fp32", ["--method", "minent"]),
        ("fp32", ["--lambda-adv-aux", 0.002]),
    ],
    ids=str,
)
def test_a_stop_between_changes_nothing_bit_for_bit(
    gta5_root, cityscapes_root, tmp_path, precision, method
):
    """A run of 3 steps, and one that is stopped after 2, with other numbers of workers."""
    common = [*method, "--precision", precision, "--validate-every", 2, "--workers", 1]
    straight = run(tmp_path / "straight", gta5_root, cityscapes_root, *common, "--max-steps", 3)
    run(tmp_path / "halted", gta5_root, cityscapes_root, *common, "--max-steps", 2)
    halted = run(
        tmp_path / "halted",
        gta5_root,
        cityscapes_root,
        *common,
        "--max-steps",
        3,
        "--resume",
        "--workers",
        0,
    )
    assert same_state(straight / "last.pt", halted / "last.pt")


def test_watching_changes_nothing(gta5_root, cityscapes_root, tmp_path):
    watched = run(
        tmp_path / "a",
        gta5_root,
        cityscapes_root,
        "--max-steps",
        2,
        "--validate-every",
        1,
        "--panel-every",
        1,
    )
    alone = run(tmp_path / "b", gta5_root, cityscapes_root, "--max-steps", 2, "--panel-every", 0)
    one, other = (read_checkpoint(folder / "last.pt") for folder in (watched, alone))
    assert all(
        (one["parts"]["model"][key] == other["parts"]["model"][key]).all()
        for key in one["parts"]["model"]
    )


def test_the_methods_differ(gta5_root, cityscapes_root, tmp_path):
    states = [
        read_checkpoint(
            run(tmp_path / str(number), gta5_root, cityscapes_root, *method, "--max-steps", 2)
            / "last.pt"
        )["parts"]["model"]
        for number, method in enumerate((["--lambda-adv", 0.01], ["--lab"], ["--lambda-adv", 1.0]))
    ]
    weights = [state["head.weight"] for state in states]
    assert not any(
        (a == b).all()
        for a, b in ((weights[0], weights[1]), (weights[0], weights[2]), (weights[1], weights[2]))
    )


def test_both_learning_rates_decay(gta5_root, cityscapes_root, tmp_path):
    folder = run(tmp_path, gta5_root, cityscapes_root, "--max-steps", 2, "--schedule-steps", 4)
    parts = read_checkpoint(folder / "last.pt")["parts"]
    for name, first in (("optimizer", 5e-4), ("d_optimizer", 1e-5)):
        assert [group["lr"] for group in parts[name]["param_groups"]] == [
            pytest.approx(first * 0.75**0.9)
        ]


def test_the_authors_recipe_takes_whole_target_images_and_warns(
    gta5_root, cityscapes_root, tmp_path, capsys
):
    folder = run(
        tmp_path,
        gta5_root,
        cityscapes_root,
        "--recipe",
        "authors",
        "--max-steps",
        1,
        "--lab",
        "--backbone",
        "resnet18",
    )
    last = read_checkpoint(folder / "last.pt")
    assert len(last["seen_images"]) == 3 + 6  # of val and of the source
    assert last["input"]["channel_order"] == "bgr"
    assert "WARNING: --target-split val" in capsys.readouterr().out
    assert "transductive" in json.loads((folder / "config.json").read_text())[0]["warnings"][0]


def test_the_recipes():
    needed = ["--gta5", "x", "--cityscapes", "y"]
    paper, authors = (
        train_da.parse_arguments([*needed, "--recipe", recipe]) for recipe in ("paper", "authors")
    )
    expected = ("resnet101", 5e-4, 1e-5, 25_000, 250_000, 4, 4, "train", "crops")
    names = (
        "backbone",
        "lr",
        "d_lr",
        "max_steps",
        "schedule_steps",
        "batch_size",
        "target_batch_size",
        "target_split",
        "target_view",
    )
    assert tuple(getattr(paper, name) for name in names) == expected
    assert (paper.momentum, paper.weight_decay, paper.lambda_adv, paper.flip) == (
        0.9,
        5e-4,
        0.01,
        0.5,
    )
    assert (paper.scales, paper.crop_size) == ((0.5, 0.75, 1.0, 1.5), (512, 1024))
    expected = ("resnet101", 2e-3, 4e-5, 6_251, 62_500, 4, 2, "val", "whole")
    assert tuple(getattr(authors, name) for name in names) == expected


class TestBadInput:
    def test_batch_of_one_target_image(self, capsys):
        with pytest.raises(SystemExit):
            train_da.parse_arguments(
                ["--gta5", "x", "--cityscapes", "y", "--target-batch-size", "1"]
            )
        assert "at least 2 images" in capsys.readouterr().err

    def test_validation_without_labels_names_what_is_missing(
        self, gta5_root, unlabelled_root, tmp_path
    ):
        with pytest.raises(FileNotFoundError, match="leftImg8bit/val"):
            run(tmp_path, gta5_root, unlabelled_root, "--max-steps", 1, "--validate-every", 1)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (
                ["--method", "self-training", "--lambda-adv", "0.1"],
                "--lambda-adv: of --method adversarial",
            ),
            (["--ema", "0.5"], "--ema: of --method self-training"),
            (["--method", "minent", "--joint-batch-norm"], "--joint-batch-norm: of --method"),
            (["--method", "pseudo-labels"], "needs --pseudo-labels ROOT"),
            (["--method", "distil"], "needs --teachers FILE"),
            (
                ["--method", "self-training", "--target-batch-size", "4"],
                "pastes each source image onto a target image",
            ),
            (
                ["--target-view", "whole", "--target-scales", "1"],
                "--target-scales: without effect with --target-view whole",
            ),
        ],
    )
    def test_flags_that_would_do_nothing(self, flags, message, capsys):
        with pytest.raises(SystemExit):
            train_da.parse_arguments(
                ["--gta5", "x", "--cityscapes", "y", "--batch-size", "2", *flags]
            )
        assert message in capsys.readouterr().err

    def test_no_target(self, capsys):
        with pytest.raises(SystemExit):
            train_da.parse_arguments(["--gta5", "x"])
        assert "a target is needed" in capsys.readouterr().err

    def test_resume_with_another_method(self, gta5_root, cityscapes_root, tmp_path):
        run(tmp_path, gta5_root, cityscapes_root, "--max-steps", 1)
        with pytest.raises(ValueError, match="discriminator: light -> full; lab: 0.0 -> 1.0"):
            run(
                tmp_path,
                gta5_root,
                cityscapes_root,
                "--max-steps",
                1,
                "--resume",
                "--lab",
                "--discriminator",
                "full",
            )

    def test_resume_of_a_supervised_run(self, gta5_root, cityscapes_root, tmp_path):
        run_train(tmp_path, "--train-on", "gta5", "--gta5", gta5_root, "--max-steps", 1)
        with pytest.raises(ValueError, match="is of train.py, and this is train_da.py"):
            run(tmp_path, gta5_root, cityscapes_root, "--max-steps", 1, "--resume")

    def test_a_target_that_vanished(self, gta5_root, cityscapes_root, tmp_path):
        shutil.rmtree(cityscapes_root / "leftImg8bit/train")
        with pytest.raises(FileNotFoundError, match="leftImg8bit_trainvaltest.zip"):
            run(tmp_path, gta5_root, cityscapes_root, "--max-steps", 1)
