"""Bytes of tensors: what an op touches, what a set of tensors holds, and what is alive at the same time.

The unit is the storage, not the tensor: views share one. A storage is known by the address of its
``StorageImpl``, which fake tensors have too, so everything here works on real and on fake tensors.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import torch


def storage_key(tensor: torch.Tensor) -> tuple[int, int]:
    """(identity, bytes) of a tensor's storage; (0, bytes) for layouts without one, such as sparse ones."""
    try:
        storage = tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return 0, tensor.numel() * tensor.element_size()
    return storage._cdata, storage.nbytes()


def touched_bytes(tensor: torch.Tensor, storage_bytes: int) -> int:
    """Bytes that one pass over a tensor touches: a broadcast dimension once, never more than its storage."""
    stride = tensor.stride() if tensor.layout is torch.strided else ()
    count = tensor.numel()
    if count and 0 in stride:
        count //= prod(n for n, step in zip(tensor.shape, stride, strict=True) if step == 0)
    return min(count * tensor.element_size(), storage_bytes)


def unique_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the distinct storages behind some tensors."""
    storages: dict[int, int] = {}
    loose = 0
    for tensor in tensors:
        key, size = storage_key(tensor)
        if key:
            storages[key] = size
        else:
            loose += size
    return loose + sum(storages.values())


class StorageTracker:
    """Sums the storages shown to it for as long as they live, and keeps the largest sum.

    PyTorch keeps a storage's Python object as long as its ``StorageImpl``, so the death of the object
    is the death of the memory: a weak reference is all that is needed, and nothing is kept alive.
    """

    def __init__(self) -> None:
        self.live_bytes = 0
        self.peak_bytes = 0
        self._alive: dict[int, weakref.ref[Any]] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Counts the tensor's storage unless it is counted already."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):
            return
        key = storage._cdata
        if key in self._alive:
            return
        size = storage.nbytes()
        self._alive[key] = weakref.ref(storage, self._forget(key, size))
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def beside(self, size: int) -> None:
        """Something of this size is held for a moment."""
        self.peak_bytes = max(self.peak_bytes, self.live_bytes + size)

    def _forget(self, key: int, size: int) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            if self._alive.pop(key, None) is not None:
                self.live_bytes -= size

        return forget

    def stop(self) -> None:
        """Lets go of everything: what dies later changes no number."""
        self._alive.clear()
