"""When a class counts as collapsed, and that the monitor goes on after a resume."""

import pytest
import torch

from model.uda.collapse_monitor import CollapseMonitor, label_agreement
from tests.helpers.methods import build_method, make_batch
from tests.helpers.networks import trained_like_network

NAMES = ("road", "sky", "tree")
CPU = torch.device("cpu")


def monitor(window=4, reference_end=4) -> CollapseMonitor:
    return CollapseMonitor(NAMES, reference_end, window, CPU)


def see(collapse_monitor, step, shares, probability=0.5) -> None:
    """A step of 1000 pixels, of which fractions ``shares`` are predicted as the classes."""
    counts = [round(1000 * share) for share in shares]
    label = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))[None, None]
    collapse_monitor.add(label, torch.full(label.shape, probability))
    collapse_monitor.after_step(step)


def run(shares_before, shares_after, steps=4, **options) -> list[str]:
    """Warnings of ``steps`` steps of each kind, as asked after every step."""
    collapse_monitor, found = monitor(**options), []
    for step in range(1, 2 * steps + 1):
        see(collapse_monitor, step, shares_before if step <= steps else shares_after)
        found += collapse_monitor.warnings()
    return found


def test_a_lost_class_is_named_with_the_one_that_took_it():
    """It lost two thirds of its share over a whole window; the warning comes once."""
    (text,) = run((0.6, 0.1, 0.3), (0.61, 0.03, 0.36))
    assert "sky collapses on the target: 3 % of the pixels" in text
    assert "in steps 5 to 8, after 10 % up to step 4" in text
    assert "tree took most: 30 % before, 36 % now" in text


@pytest.mark.parametrize(
    ("before", "after", "options"),
    [
        ((0.6, 0.1, 0.3), (0.61, 0.035, 0.355), {}),  # it keeps more than a third
        ((0.6, 0.004, 0.396), (0.6, 0, 0.4), {}),  # it never had a share
        ((0.6, 0.1, 0.3), (0.6, 0, 0.4), {"reference_end": 5}),  # no window since the reference yet
        ((0.6, 0, 0.4), (0.3, 0.4, 0.3), {}),  # a class that appears takes, and loses nothing
    ],
)
def test_what_is_no_collapse(before, after, options):
    assert run(before, after, **options) == []


def test_rare_classes_that_come_and_go_are_no_collapse():
    """A class in one step of four: its absence from a window may be chance."""
    collapse_monitor = monitor(window=4)
    for step in range(1, 9):
        see(collapse_monitor, step, (0.8, 0.2, 0) if step == 2 else (1, 0, 0))
    assert collapse_monitor.scalars()["target_share/sky"] == 0
    assert collapse_monitor.warnings() == []


def test_shares_and_confidence_are_those_of_the_window():
    """Pixels that are not valid do not count; a class that is not predicted has no confidence."""
    collapse_monitor = monitor(window=2)
    assert collapse_monitor.scalars() == {}
    see(collapse_monitor, 1, (1, 0, 0), probability=0.9)
    see(collapse_monitor, 2, (0.5, 0.5, 0), probability=0.75)
    label, probability = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0.5, 1.0, 0.25, 1.0]]])
    valid = torch.tensor([[[True, True, True, False]]])
    collapse_monitor.add(label, probability, valid)
    collapse_monitor.after_step(3)
    expected = {
        "target_share/road": (0.5 + 2 / 3) / 2,
        "target_confidence/road": (0.5 * 0.75 + 1.5 / 3) / (0.5 + 2 / 3),
        "target_share/sky": (0.5 + 1 / 3) / 2,
        "target_confidence/sky": (0.5 * 0.75 + 0.25 / 3) / (0.5 + 1 / 3),
        "target_share/tree": 0,
    }
    assert collapse_monitor.scalars() == pytest.approx(expected)


def test_micro_batches_add_up_to_their_step():
    whole, parts = monitor(), monitor()
    logits = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    whole.add_logits(logits)
    for part in logits.split(2):
        parts.add_logits(part)
    for collapse_monitor in (whole, parts):
        collapse_monitor.after_step(1)
    assert whole.scalars() == pytest.approx(parts.scalars())
    assert sum(v for k, v in whole.scalars().items() if "share" in k) == pytest.approx(1)


@pytest.mark.parametrize("stop", [2, 5, 9])
def test_a_resumed_monitor_warns_as_an_uninterrupted_one(stop):
    """Once: not again in a run that resumes after the warning."""
    straight, found = monitor(), []
    for step in range(1, 12):
        see(straight, step, (0.6, 0.1, 0.3) if step <= 4 else (0.7, 0, 0.3))
        found += straight.warnings()
    first, second, resumed_found = monitor(), monitor(), []
    for step in range(1, 12):
        collapse_monitor = first if step <= stop else second
        see(collapse_monitor, step, (0.6, 0.1, 0.3) if step <= 4 else (0.7, 0, 0.3))
        resumed_found += collapse_monitor.warnings()
        if step == stop:
            second.load_state_dict(first.state_dict())
    assert resumed_found == found
    assert len(found) == 1
    assert second.scalars() == straight.scalars()


def test_another_window_begins_anew_and_keeps_the_reference():
    first, second, found = monitor(), monitor(window=3), []
    for step in range(1, 5):
        see(first, step, (0.6, 0.1, 0.3))
    second.load_state_dict(first.state_dict())
    for step in range(5, 9):
        see(second, step, (0.7, 0, 0.3))
        found += second.warnings()
    assert len(found) == 1
    assert "in steps 5 to 7" in found[0]


def test_agreement_is_a_fraction_of_the_valid_pixels():
    """Labels of a larger map are subsampled at the centers of the logits."""
    small = torch.tensor([[[0, 1], [2, 2]]])
    logits = torch.nn.functional.one_hot(small, 3).permute(0, 3, 1, 2).float()
    label = small.repeat_interleave(8, 1).repeat_interleave(8, 2)
    valid = torch.ones_like(label, dtype=torch.bool)
    assert label_agreement(logits, label, valid) == 1
    label[:, 8:] = 0
    assert label_agreement(logits, label, valid) == 0.5
    valid[:, :, 8:] = False
    valid[:, 8:] = False
    assert label_agreement(logits, label, valid) == 1
    assert label_agreement(logits, label, torch.zeros_like(valid)) == 0


@pytest.mark.parametrize("name", ["adversarial", "minent", "pseudo-labels", "self-training"])
def test_every_method_shows_its_target_predictions(name):
    """The shares of a step add up to 1, whatever the method."""
    model = trained_like_network()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, generator=generator)
    label = torch.randint(0, 19, (2, 64, 64), generator=generator).to(torch.uint8)
    options = {"pseudo_labels": "root"} if name == "pseudo-labels" else {}
    collapse_monitor = CollapseMonitor([str(index) for index in range(19)], 1, 1, CPU)
    method = build_method(name, model.train(), collapse_monitor=collapse_monitor, **options)
    method.step(make_batch(images[:2], label, label.numel()), make_batch(images[2:], label))
    collapse_monitor.after_step(1)
    shares = [v for k, v in collapse_monitor.scalars().items() if k.startswith("target_share")]
    assert sum(shares) == pytest.approx(1)
    assert sum(share > 0 for share in shares) > 3
