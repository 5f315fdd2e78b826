"""A fake GPU: PyTorch's device "meta", whose tensors have no numbers, with refusals of all that waits for a device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deshi.losses import RandomStream

DEVICE = torch.device("meta")
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount",
    "_coalesce", "equal", "is_nonzero",
}  # fmt: skip
"""Operations whose result's size, or the program's way, depends on numbers."""


class MetaGenerator(torch.Generator):
    """Stands for a generator of the fake device, which draws nothing."""

    device = DEVICE


class NeverWaits(TorchDispatchMode):
    """Refuses operations for which a program waits for its device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if "generator" in kwargs:
            kwargs["generator"] = None
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.device == DEVICE for tensor in tensors) or kwargs.get("device") == DEVICE:
            self._check(func, args, kwargs, tensors)
        return func(*args, **kwargs)

    def _check(self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
        name = func._overloadpacket.__name__
        from_cpu = any(tensor.device.type == "cpu" and tensor.dim() for tensor in tensors)
        if name in ("_to_copy", "copy_"):
            assert not from_cpu or kwargs.get("non_blocking") or True in args[2:], "a copy that waits"
            return
        assert not from_cpu, f"{name} copies a tensor by itself"
        assert name not in WAITING and func.name() != "aten::repeat_interleave.Tensor", f"{name} waits"
        by_mask = name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        assert not by_mask, f"{name} by a mask waits"


class NoTensorsFromLists(TorchFunctionMode):
    """Refuses ``torch.tensor([...], device=...)``, which copies and waits without being dispatched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        built = func in (torch.tensor, torch.as_tensor)
        assert not (built and torch.device((kwargs or {}).get("device") or "cpu") == DEVICE), "a list is copied"
        return func(*args, **(kwargs or {}))


@contextmanager
def never_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fake device: refusals, and what it lacks."""
    monkeypatch.setattr(RandomStream, "generator", lambda self, device: MetaGenerator())
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *_: False)
    with NoTensorsFromLists(), NeverWaits():
        yield
