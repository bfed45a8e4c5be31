"""Strict loading of a state dict of another program, with a readable error."""

from torch import Tensor, nn


def load_strict(
    network: nn.Module, state: dict[str, Tensor], description: str, remedy: str
) -> None:
    """Loads ``state``, which must hold every tensor of ``network`` in its shape, and no other.

    ``description`` names the network in the error message. Raises ValueError with the names of the
    tensors and the ``remedy``, and for values that are not finite; nothing is loaded then.
    """
    expected = network.state_dict()
    # Very old files lack the batch counters of BatchNorm, which nothing reads.
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    missing = sorted(expected.keys() - state.keys() - counters)
    unknown = sorted(state.keys() - expected.keys())
    shared = expected.keys() & state.keys()
    misshapen = sorted(key for key in shared if expected[key].shape != state[key].shape)
    if missing or unknown or misshapen:
        raise ValueError(
            f"The weights do not fit {description}: {len(missing)} tensors missing {missing[:2]},"
            f" {len(unknown)} unknown {unknown[:2]}, {len(misshapen)} of another shape"
            f" {misshapen[:2]}. {remedy}"
        )
    broken = [key for key, value in state.items() if not value.isfinite().all()]
    if broken:
        raise ValueError(
            f"The weights for {description} hold values that are not finite, in {len(broken)}"
            f" tensors {broken[:2]}: the training that made them broke off. Give weights that were"
            " saved before."
        )
    network.load_state_dict(state, strict=False)
