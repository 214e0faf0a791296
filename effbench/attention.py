"""Which of torch's own attention kernels a call ran: torch chooses one by itself, from shapes and device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_PREFIX = "_scaled_dot_product_"
#: Functions of torch that may run attention have one of these in their names. Only they are watched op by op:
#: the first time that torch shows an operator to Python takes it up to a millisecond.
_MAY_ATTEND = ("attention", "transformer")


@contextmanager
def kernels_of_call() -> Iterator[set[str]]:
    """A set that holds, after the block, the names of the kernels that ran in it: "flash_attention_for_cpu".

    "math" stands for an attention that torch wrote out in products and a softmax. What TorchScript calls is
    not seen.
    """
    names: set[str] = set()
    with _Calls(_Kernels(names)) as calls:
        yield names
    if calls.seen > calls.kernels.seen:
        names.add("math")


class _Kernels(TorchDispatchMode):
    def __init__(self, names: set[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names, self.seen = names, 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else the first call imports torch's compiler: a second in every child. Such code is not watched."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith(_PREFIX) and not name.endswith("backward"):
            self.names.add(name.removeprefix(_PREFIX))
            self.seen += 1
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, kernels: _Kernels) -> None:
        super().__init__()
        self.kernels, self.seen = kernels, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += func is torch.nn.functional.scaled_dot_product_attention
        attends = any(part in getattr(func, "__name__", "") for part in _MAY_ATTEND)
        with self.kernels if attends else nullcontext():
            return func(*args, **(kwargs or {}))
