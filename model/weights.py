"""Loading a state dict whole, or not at all."""

from torch import Tensor, nn


def load_strict(network: nn.Module, state: dict[str, Tensor], what: str, remedy: str) -> None:
    """Loads ``state`` where every tensor of ``network`` is in it, in its shape, and no other.
    ``what``: the network, for the error message.

    Raises ValueError with the names and the ``remedy``, and then has loaded nothing.
    """
    own = network.state_dict()
    # Very old files lack the counters of BatchNorm, which nothing reads.
    missing = sorted(
        key for key in own.keys() - state.keys() if not key.endswith("num_batches_tracked")
    )
    surplus = sorted(state.keys() - own.keys())
    misshapen = sorted(
        key for key in own.keys() & state.keys() if own[key].shape != state[key].shape
    )
    if missing or surplus or misshapen:
        raise ValueError(
            f"The weights do not fit {what}: {len(missing)} tensors missing {missing[:2]},"
            f" {len(surplus)} unknown {surplus[:2]}, {len(misshapen)} of another shape"
            f" {misshapen[:2]}. {remedy}"
        )
    network.load_state_dict(state, strict=False)
