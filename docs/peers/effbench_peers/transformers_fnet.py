"""transformers 5.24.0 (Apache-2.0): FNetBasicFourierTransform, the mixing inside its FNet layer.

No parameters, no projections. With ``use_tpu_fourier_optimizations`` it multiplies with a matrix of the
transform, made for one length and cut to size for any other: a mechanism of its own here.
"""

from torch import Tensor
from transformers import FNetConfig
from transformers.models.fnet.modeling_fnet import FNetBasicFourierTransform

from effbench.plugin import Complexity, Mechanism
from effbench_peers.layers import Layer
from effbench_peers.plain_fnet import reference


class TransformersFNet(Layer):
    def __init__(self, shape, *, tpu: bool):
        super().__init__()
        config = FNetConfig(
            hidden_size=shape.dim,
            use_tpu_fourier_optimizations=tpu,
            max_position_embeddings=shape.seq,
            tpu_short_seq_length=shape.seq,
        )
        self.transform = FNetBasicFourierTransform(config)

    def project(self, x: Tensor) -> tuple[Tensor]:
        return (x,)

    def mix(self, x: Tensor) -> Tensor:
        return self.transform(x)[0]


def build(shape, *, causal: bool) -> TransformersFNet:
    return TransformersFNet(shape, tpu=False)


def build_tpu(shape, *, causal: bool) -> TransformersFNet:
    return TransformersFNet(shape, tpu=True)


FFT = Mechanism(
    name="peer-transformers-fnet",
    title="FNet, transformers",
    build=build,
    paper="Lee-Thorp et al. 2022, arXiv:2105.03824",
    reference=reference,
    causal=(False,),
    complexity=Complexity(time="n d log n + n d log d", memory="n d"),
)
TPU = Mechanism(
    name="peer-transformers-fnet-tpu",
    title="FNet, transformers, by matrices",
    build=build_tpu,
    paper="Lee-Thorp et al. 2022, arXiv:2105.03824",
    reference=reference,
    causal=(False,),
    dtypes=("float32",),  # its matrices are complex64: it answers in float32 whatever it is given
    complexity=Complexity(time="n^2 d + n d^2", memory="n^2 + n d"),
)
