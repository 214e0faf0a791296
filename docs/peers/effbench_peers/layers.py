"""The layers around the plain formulas: the same projections as effbench's own mechanisms hold."""

from torch import Tensor, nn


class Layer(nn.Module):
    """``forward = combine(mix(*project(x)))``, so that effbench can time ``mix``, the operator, alone."""

    def combine(self, y: Tensor) -> Tensor:
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.mix(*self.project(x)))


class QueryKeyValue(Layer):
    """Projections for q, k and v, and none for the output: the layer of the AFT paper."""

    def __init__(self, shape, *, causal: bool, key_width: int | None = None):
        super().__init__()
        self.causal = causal
        self.query, self.value = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(2))
        self.key = nn.Linear(shape.dim, key_width or shape.dim, bias=False)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.query(x), self.key(x), self.value(x)


class Heads(Layer):
    """Projections by name, each split into heads [b, h, n, e], and ``out`` for the heads joined again."""

    def __init__(self, shape, *names: str, causal: bool):
        super().__init__()
        self.causal, self.heads, self.names = causal, shape.heads, names
        for name in (*names, "out"):
            setattr(self, name, nn.Linear(shape.dim, shape.dim, bias=False))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(split_heads(getattr(self, name)(x), self.heads) for name in self.names)

    def combine(self, y: Tensor) -> Tensor:
        return self.out(y.transpose(1, 2).flatten(2))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[b, n, d] -> [b, h, n, e]."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)
