"""Tensors that pretend to be on CUDA, on a machine without it: they compute on the CPU.

A tensor's storage knows whether it pretends. An operation on tensors of both kinds fails as on a
GPU, and what would make the CPU wait for the GPU is noted.
"""

import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
WAITING = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "equal", "unique"}
WAITING |= {"nonzero", "argwhere", "masked_select", "bincount", "new_tensor"}
SIZES_ALONE = {"view_as", "expand_as", "_has_compatible_shallow_copy_type", "__deepcopy__"}
"""Functions of tensors that may be on different devices."""
ONE_DEVICE_EVEN_FOR_SCALARS = {"stack", "cat"}


def pretends(tensor: Tensor) -> bool:
    return getattr(tensor.untyped_storage(), "pretends", False)


def pretending(value: Any) -> Any:
    """``value``, whose tensors pretend from now on."""
    for tensor in _tensors(value):
        tensor.untyped_storage().pretends = True
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class PretendedCuda(TorchFunctionMode):
    """Context in which .to("cuda") and device="cuda" give tensors that pretend.

    ``waits``: what would have waited, and where. Copies to CUDA from memory that is not pinned are
    no waits if they are not blocking and of at most 64 KiB.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "__get__":
            return _attribute(func, args[0])
        if name in ("__set__", "_parse_to", "untyped_storage"):
            return func(*args, **kwargs)
        if name in ("to", "cpu", "cuda"):
            return self._moved(name, args, kwargs)
        if name == "pin_memory":
            copy = args[0].clone()
            copy.untyped_storage().pinned = True
            return copy
        if _is_cuda(kwargs.get("device")):
            if name in ("tensor", "as_tensor"):
                self._wait(name)
            return pretending(func(*args, **kwargs | {"device": CPU}))
        return self._on_one_device(name, func, args, kwargs)

    def _on_one_device(self, name: str, func: Callable, args: tuple, kwargs: dict) -> Any:
        """Computes; the result pretends where an argument does."""
        tensors = list(_tensors([args, kwargs]))
        if not any(map(pretends, tensors)):
            return func(*args, **kwargs)
        if name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        others = [t for t in tensors if not pretends(t)]
        mixed = [t for t in others if t.ndim or name in ONE_DEVICE_EVEN_FOR_SCALARS]
        if name == "copy_" and others:
            self._wait("copy between devices")
        elif name == "__getitem__":
            indices = list(_tensors([args[1]]))
            if mixed or any(index.dtype == torch.bool for index in indices):
                self._wait("index that is boolean, or on the CPU")
        elif mixed and name not in SIZES_ALONE:
            shapes = [(tuple(t.shape), "cuda" if pretends(t) else "cpu") for t in tensors]
            raise RuntimeError(f"{name}: expected all tensors on one device, found {shapes}")
        if name in WAITING:
            self._wait(name)
        result = func(*args, **kwargs)
        return result if name == "copy_" else pretending(result)

    def _moved(self, name: str, args: tuple, kwargs: dict) -> Tensor:
        """``Tensor.to`` and its kin."""
        tensor, rest = args[0], list(args[1:])
        before = to_cuda = pretends(tensor)
        if name != "to":
            to_cuda, rest = name == "cuda", []
        elif rest and isinstance(rest[0], torch.device | str):
            to_cuda, rest[0] = _is_cuda(rest[0]), CPU
        elif rest and isinstance(rest[0], Tensor):
            to_cuda = pretends(rest[0])
        elif "device" in kwargs:
            to_cuda = _is_cuda(kwargs.pop("device"))
        free = kwargs.get("non_blocking", False)
        found = Tensor.to(tensor, *rest, **kwargs) if rest or kwargs else tensor
        if to_cuda != before:
            if found.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
                found = found.clone()
            pinned = getattr(tensor.untyped_storage(), "pinned", False)
            if not (to_cuda and free and (pinned or tensor.nbytes <= 1 << 16)):
                self._wait(f"move of {tuple(tensor.shape)}")
        return pretending(found) if to_cuda else found

    def _wait(self, what: str) -> None:
        place = [f for f in traceback.extract_stack() if "/model/" in f.filename]
        where = f" at {place[-1].filename}:{place[-1].lineno}" if place else ""
        self.waits.append(f"{what}{where}")


def _attribute(func: Callable, tensor: Tensor) -> Any:
    """An attribute of a tensor; gradients are where their tensor is."""
    if func == Tensor.device.__get__:
        return CUDA if pretends(tensor) else CPU
    if func == Tensor.is_cuda.__get__:
        return pretends(tensor)
    value = func(tensor)
    if func == Tensor.grad.__get__ and value is not None and pretends(tensor):
        pretending(value)
    return value
