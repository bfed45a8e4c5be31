"""Initial weights (--init): what fits is taken, the rest stays at random and is named."""

import pytest
import torch

from dataset.labels import CLASS_NAMES
from model.bisenet import BiSeNet
from model.build import NetworkOptions, build_network
from model.loading import load_initial_weights, same_classes
from tests.helpers.networks import trained_like_network, write_checkpoint
from utils.training.checkpoint import read_checkpoint

NAMES = tuple("abcde")


def checkpoint(tmp_path, num_classes=19, **metadata):
    return read_checkpoint(write_checkpoint(tmp_path / "a.pt", num_classes=num_classes, **metadata))


def taken_parts(model: BiSeNet, donor: BiSeNet, before: dict) -> set[str]:
    """Parts that are the donor's; asserts that every other tensor is as it was ``before``."""
    found, wanted = model.state_dict(), donor.state_dict()
    fits = {
        key
        for key in found
        if key in wanted
        and found[key].shape == wanted[key].shape
        and torch.equal(found[key], wanted[key])
    }
    for key in found.keys() - fits:
        assert torch.equal(found[key], before[key]), key
    whole = {key.split(".")[0] for key in found}
    return whole - {key.split(".")[0] for key in found.keys() - fits}


def test_the_same_network_is_taken_whole(tmp_path):
    model = BiSeNet(19)
    assert load_initial_weights(model, checkpoint(tmp_path), "imagenet", CLASS_NAMES) == []
    donor = trained_like_network().state_dict()
    assert all(torch.equal(value, donor[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("architecture", "left"),
    [
        ({"num_classes": 5, "fusion_channels": 19}, {"head", "aux16", "aux32"}),
        ({"num_classes": 5}, {"fusion", "head", "aux16", "aux32"}),
        ({"num_classes": 19, "fusion_channels": 32}, {"fusion", "head"}),
    ],
)
def test_parts_of_other_shapes_stay_at_random(tmp_path, architecture, left):
    """Another number of classes or fusion width; a line for each part names both shapes."""
    model = BiSeNet(**architecture)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    notes = load_initial_weights(
        model, checkpoint(tmp_path), "imagenet", CLASS_NAMES[: model.architecture["num_classes"]]
    )
    taken = taken_parts(model, trained_like_network(), before)
    assert taken == {"spatial_path", "context_path", "fusion", "head", "aux16", "aux32"} - left
    assert {note.split()[1] for note in notes} == left
    assert all("stays at random" in note and " there, (" in note for note in notes)


def test_classifiers_of_other_classes_are_left_out(tmp_path):
    """As many classes, but others: only the names tell."""
    content = checkpoint(tmp_path, 5, class_set={"classes": list(NAMES)})
    donor = trained_like_network(num_classes=5)
    for names, left in ((NAMES, set()), (NAMES[::-1], {"head", "aux16", "aux32"})):
        model = BiSeNet(5)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        notes = load_initial_weights(model, content, "imagenet", names)
        assert {note.split()[1] for note in notes} == left
        assert taken_parts(model, donor, before).isdisjoint(left)


def test_classes_are_compared_by_name_or_by_number():
    known = {"class_set": {"classes": list(NAMES)}}
    assert same_classes(known, NAMES)
    assert not same_classes(known, NAMES[:4])
    assert not same_classes(known, tuple("abced"))
    unknown = {"architecture": {"num_classes": 5}}
    assert same_classes(unknown, NAMES)
    assert not same_classes(unknown, NAMES[:4])


def test_another_backbone_is_refused(tmp_path):
    """Nothing of it would remain: the error names both networks and the flag."""
    message = r"'backbone': 'resnet18'.*'mobilenet_v2'.*Choose the same --backbone resnet18"
    with pytest.raises(ValueError, match=message):
        load_initial_weights(
            BiSeNet(19, "mobilenet_v2"), checkpoint(tmp_path), "imagenet", CLASS_NAMES
        )


def test_a_run_prints_what_stays_at_random(tmp_path, capsys):
    """One line each, and the network trains from there."""
    options = NetworkOptions("resnet18", "imagenet", 32, "local", "imagenet")
    network = build_network(options, CLASS_NAMES, torch.device("cpu"), checkpoint(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["fusion", "head"]
    donor = trained_like_network()
    assert torch.equal(network.aux16.weight, donor.aux16.weight)
    assert network.training
