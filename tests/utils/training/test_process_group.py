import torch

from tests.helpers.forked import run_together
from utils.training.distributed import ProcessGroup

# What each of two processes does and finds.
TWO = """
import torch
from utils.training.training_state import TrainingState
from utils.training.distributed import ProcessGroup
from utils.training.meters import LossMeter

with ProcessGroup(torch.device("cpu")) as processes:
    rank = processes.rank
    assert processes.world_size == 2 and processes.is_first == (rank == 0)
    assert processes.all_reduce_sum(rank + 1) == 3
    value = torch.tensor([rank, 2])
    assert processes.all_reduce_sum(value).tolist() == [1, 4] and value.tolist() == [rank, 2]
    assert processes.any(rank == 1) and not processes.any(False)
    assert processes.gather([rank]) == [[0], [1]]

    torch.manual_seed(rank)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    network = network.to(memory_format=torch.channels_last)
    network(torch.randn(2, 3, 8, 8))  # other statistics in each process
    processes.broadcast(network)
    state = {name: value.tolist() for name, value in network.state_dict().items()}
    states = processes.gather(state)
    assert states[0] == states[1] and states[0]["1.running_mean"] != [0.0] * 4

    # The other layer has no gradient.
    network[0](torch.randn(2, 3, 8, 8)).square().mean().backward()
    own = network[0].weight.grad.clone()
    processes.sum_gradients(network)
    others = processes.gather(own.tolist())
    assert torch.equal(network[0].weight.grad, sum(map(torch.tensor, others)))

    meter = LossMeter(processes)
    meter.add(0, {"a": torch.tensor(float(rank))}, [f"frame{rank}"])
    meter.check()
    meter.add(1, {"a": torch.tensor(float("nan") if rank else 1.0)}, [f"picture{rank}"])
    try:
        meter.check()
    except FloatingPointError as error:
        names = ("Step 1", "frame0", "frame1", "picture0", "picture1")
        assert all(name in str(error) for name in names), error
    else:
        raise AssertionError("a NaN of the other process went unnoticed")

    meter.read = meter.check = lambda: None
    if rank:
        network[1].running_var[0] = float("inf")
    try:
        parts, device = {"model": network}, torch.device("cpu")
        TrainingState(parts, {"settings": {}}, device, meter, processes.is_first).check(2)
    except FloatingPointError as error:
        assert "model.1.running_var" in str(error)
    else:
        raise AssertionError("a broken part of the other process went unnoticed")
"""


def test_two_processes(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    done = run_together(str(script), processes=2, timeout_s=60)
    assert done.returncode == 0, done.stderr


def test_alone_nothing_changes():
    with ProcessGroup(torch.device("cpu")) as processes:
        network = torch.nn.Linear(2, 2)
        network(torch.ones(1, 2)).sum().backward()
        gradient, weight = network.weight.grad.clone(), network.weight.clone()
        processes.sum_gradients(network)
        processes.broadcast(network)
        assert torch.equal(network.weight.grad, gradient)
        assert torch.equal(network.weight, weight)
        assert (
            processes.all_reduce_sum(5),
            processes.any(True),
            processes.any(False),
            processes.gather("x"),
        ) == (5, True, False, ["x"])
        assert processes.is_first
