"""What is computed of the whole batch does not depend on micro-batches and processes."""

import copy
import threading

import pytest
import torch

from model.losses.segmentation import ClassWeights, OnlineHardExamples
from model.uda.base import find_methods
from tests.helpers.checkpoints import same_state
from tests.helpers.cli import start, words
from tests.helpers.forked import run_together
from tests.helpers.methods import PLAIN, build_method, gradients, make_batch
from tests.helpers.networks import trained_like_network, write_checkpoint
from utils.training.checkpoint import read_checkpoint
from utils.training.distributed import ProcessGroup

pytestmark = pytest.mark.usefixtures("narrow_networks")

WEIGHTS = ("none", "ohem", "class")


@pytest.fixture(scope="module")
def scene():
    """A sure network, and images with labels: one image easy, one in part, one hard, one void."""
    model = trained_like_network()
    model.head.weight.data *= 8
    model.head.bias.data *= 8
    torch.manual_seed(1)
    source, target = torch.randn(4, 3, 32, 32), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        label = model(source).logits.argmax(1).to(torch.uint8)
    label[1, :20] = torch.randint(0, 19, (20, 32), dtype=torch.uint8)
    label[2] = torch.randint(0, 19, (32, 32), dtype=torch.uint8)
    label[3, 8:] = 255
    model.frozen_batch_norm = True
    # float64: a pixel at a threshold must not fall on either side by rounding.
    return model.double().train(), source.double(), label, target.double()


class Threads:
    """Processes of a run as threads: ``all_gather`` of each waits for all."""

    def __init__(self, count: int):
        self.barrier, self.values = threading.Barrier(count), [None] * count

    def all_gather_of(self, rank: int):
        def all_gather(value):
            self.values[rank] = value
            self.barrier.wait(30)
            found = torch.stack(self.values)
            self.barrier.wait(30)
            return found

        return all_gather


def added_gradients(method, scene, weights, images, parts, share) -> torch.Tensor:
    """The model's gradient of ``images`` (a range), in ``parts``; ``share``: of the batch."""
    model, source, label, target = scene
    model = copy.deepcopy(model)
    offset = weights.logit_offset(0.5).double() if isinstance(weights, ClassWeights) else None
    context = PLAIN._replace(
        batch_fraction=share / parts, pixel_weights=weights, logit_offset=offset
    )
    options = {"pseudo_threshold": 0.5} if method == "self-training" else {}
    built = build_method(method, model, context, **options)
    for network in built.networks.values():
        network.double()
    valid = int((label != 255).sum())
    counted = isinstance(weights, OnlineHardExamples) and parts > 1
    for counting in (True, False) if counted else (False,):
        if counting:
            weights.begin_counting()
        for part in torch.tensor(list(images)).chunk(parts):
            if isinstance(weights, OnlineHardExamples):
                weights.begin_micro_batch()
            batches = [
                make_batch(source[part], label[part], valid),
                make_batch(target[part], label[part].flip(1)),
            ]
            built.step(*(batch._replace(sample_seeds=part.tolist()) for batch in batches))
        if counting:
            weights.end_counting()
            model.zero_grad()
    return gradients(model)


def pixel_weights(kind, all_gather=lambda value: value[None]):
    if kind == "ohem":
        return OnlineHardExamples(all_gather=all_gather)
    return ClassWeights(torch.arange(1, 20), torch.device("cpu")) if kind == "class" else None


@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("method", find_methods())
def test_parts_and_processes_give_the_whole_gradient(scene, method, kind):
    """To 1e-5 with frozen BatchNorm, for every method and pixel weights; not all are hard."""
    whole = added_gradients(method, scene, pixel_weights(kind), range(4), 1, 1.0)
    parts = added_gradients(method, scene, pixel_weights(kind), range(4), 4, 1.0)
    assert whole.norm() > 0
    assert (parts - whole).norm() / whole.norm() < 1e-5
    threads, found = Threads(2), [None, None]

    def process(rank: int) -> None:
        weights = pixel_weights(kind, threads.all_gather_of(rank))
        images = range(2 * rank, 2 * rank + 2)
        found[rank] = added_gradients(method, scene, weights, images, 1, 0.5)

    workers = [threading.Thread(target=process, args=(rank,)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (sum(found) - whole).norm() / whole.norm() < 1e-5


def test_counting_sends_nothing_back_through_the_network(scene):
    """Only the forward pass is made twice; its losses are noted."""
    model, source, label, _ = scene
    model, weights = copy.deepcopy(model), OnlineHardExamples()
    context = PLAIN._replace(pixel_weights=weights)
    weights.begin_counting()
    weights.begin_micro_batch()
    context.add_supervised_gradients(model, make_batch(source, label, label.numel()))
    assert all(parameter.grad is None for parameter in model.parameters())
    weights.end_counting()
    weights.begin_micro_batch()
    context.add_supervised_gradients(model, make_batch(source, label, label.numel()))
    assert gradients(model).norm() > 0


@pytest.mark.parametrize("easy", [1.0, 50.0])
def test_hard_pixels_are_those_of_the_whole_batch(scene, easy):
    """Of the whole batch, also where the least fraction decides; easy images alone have none."""
    model, source, label, _ = scene
    with torch.no_grad():
        logits = easy * model.low_resolution(source, with_aux=False).logits
    sure = logits.argmax(1).to(torch.uint8).repeat_interleave(8, 1).repeat_interleave(8, 2)
    truth = sure if easy > 1 else label
    whole = OnlineHardExamples()(logits, truth)
    weights = OnlineHardExamples()
    weights.begin_counting()
    for index in range(4):
        weights.begin_micro_batch()
        weights(logits[index : index + 1], truth[index : index + 1])
    weights.end_counting()
    parts = []
    for index in range(4):
        weights.begin_micro_batch()
        parts.append(weights(logits[index : index + 1], truth[index : index + 1]))
    assert torch.equal(torch.cat(parts), whole)
    assert 0 < (whole > 0).float().mean() < 1


def test_a_run_counts_its_micro_batches_first(gta5_root, cityscapes_root, tmp_path):
    """--accumulate with OHEM gives the whole batch's steps; statistics and losses count once."""
    flags = ["--batch-size", 4, "--bn", "frozen", "--pixel-weights", "ohem", "--lambda-adv", 1]
    found = []
    for parts in (1, 2):
        output = tmp_path / str(parts)
        arguments = words("train_da", gta5_root, cityscapes_root, output, *flags)
        start("train_da", *arguments, "--max-steps", 2, "--accumulate", parts)
        content = read_checkpoint(output / "run/last.pt")["parts"]
        states = content["optimizer"]["state"].values()
        found.append(torch.cat([state["momentum_buffer"].flatten() for state in states]))
    assert (found[0] - found[1]).norm() / found[0].norm() < 1e-4  # of two steps


def run_pair(method, roots, output, *more) -> None:
    """Two processes, local BatchNorm: each sees other images, and has other statistics."""
    flags = ["--method", method, "--batch-size", 4, "--schedule-steps", 9, "--save-every", 2]
    if method == "pseudo-labels":
        flags += ["--pseudo-labels", roots[1]]
    if method == "self-training":
        flags += ["--pseudo-threshold", 0]
    if method == "distil":
        flags += ["--teachers", write_checkpoint(output.parent / "teacher.pt", seed=1)]
        flags += ["--soft-label-weights", "class"]
    arguments = words("train_da", *roots, output, *flags, *more)
    done = run_together("train_da.py", *arguments, processes=2)
    assert done.returncode == 0, done.stderr


def three_ways_are_one(method, roots, tmp_path) -> None:
    run_pair(method, roots, tmp_path / "straight", "--max-steps", 4)
    run_pair(method, roots, tmp_path / "watched", "--max-steps", 4, "--validate-every", 1)
    run_pair(method, roots, tmp_path / "resumed", "--max-steps", 2)
    run_pair(method, roots, tmp_path / "resumed", "--max-steps", 4, "--resume")
    straight = tmp_path / "straight/run/last.pt"
    assert same_state(straight, tmp_path / "resumed/run/last.pt")
    parts = [
        read_checkpoint(path)["parts"] for path in (straight, tmp_path / "watched/run/last.pt")
    ]
    for name, state in parts[0].items():
        for key, value in state.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, parts[1][name][key]), (name, key)


@pytest.mark.slow
def test_two_processes_have_one_teacher(gta5_root, cityscapes_root, tmp_path):
    """With and without validation, and 2 + resume + 2 = 4, bit for bit."""
    three_ways_are_one("self-training", (gta5_root, cityscapes_root), tmp_path)


def test_buffers_are_those_of_the_first_process(monkeypatch):
    """After each step every process has the first one's BatchNorm statistics and teacher."""
    group, sent = ProcessGroup(torch.device("cpu")), []
    group.world_size = 2
    first = torch.tensor([3.0, 4.0, 5.0])

    def broadcast(flat, rank):
        sent.append(rank)
        flat.copy_(first if flat.dtype == torch.float32 else torch.tensor([7]))

    monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
    buffers = [torch.zeros(2), torch.zeros((), dtype=torch.int64), torch.zeros(1)]
    group.share_buffers(buffers)
    assert [buffer.tolist() for buffer in buffers] == [[3.0, 4.0], 7, [5.0]]
    assert sent == [0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(find_methods().keys() - {"self-training"}))
def test_two_processes_have_one_of_everything(gta5_root, cityscapes_root, tmp_path, method):
    """The same for every method."""
    three_ways_are_one(method, (gta5_root, cityscapes_root), tmp_path)
