"""What forward and backward passes of a Llama need on one device, by counting: beside what a compiler says of its own
program, and in the types that the model computes in, which a CPU's compiler widens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp

from atspeed_jax.models.llama import LlamaConfig

OPTIMIZER_TRAFFIC = 6 * 4  # bytes of HBM per trained number: gradient, parameter and two moments, read or written


class Needs(NamedTuple):
    """Bytes on one device while a step runs, beside what lies there anyway, and what it does meanwhile.

    gathered: weights of two layers, embedding and head, whole. hbm_bytes, received: over HBM and over links.
    """

    activations: float
    logits: float
    gathered: float
    flops: float
    hbm_bytes: float
    received: float


@dataclasses.dataclass(frozen=True)
class Pass:
    """A pass over rows [B, T] of a model, and back if something is trained, `times` over.

    rows: B of one device. tokens: T. seen: slots that every token looks at. n_out: tokens with logits. trains: "all"
    parameters, an "adapter" or "nothing". gathers: whether whole weights come to the rows, layer by layer (training);
    else (decoding) every device of the axis `fsdp` multiplies the same rows by its part, and sums are exchanged.
    """

    model: LlamaConfig
    rows: float
    tokens: int
    seen: int
    n_out: int
    trains: Literal["all", "adapter", "nothing"]
    gathers: bool = True
    times: int = 1

    @property
    def matrices(self) -> int:
        """Parameters of a layer's matrices."""
        c = self.model
        return 2 * c.hidden_size * c.head_dim * (c.heads + c.kv_heads) + 3 * c.hidden_size * c.intermediate_size

    @property
    def itemsize(self) -> int:
        return jnp.dtype(self.model.dtype).itemsize

    @property
    def table(self) -> int:
        """Parameters of the embedding, or of the head."""
        return self.model.vocab_size * self.model.hidden_size

    def flops(self) -> float:
        """Of all devices that share these rows."""
        c, forward = self.model, 2.0 * self.matrices
        attention = 4.0 * self.seen * c.heads * c.head_dim
        back, kernels = float(self.trains != "nothing"), float(self.trains == "all")
        layer = forward * (1 + back + kernels) + attention * (1 + 2 * back)
        if c.remat and back:
            layer += attention
            if c.remat_policy == "nothing":  # a layer's last product is never needed again
                layer += forward - 2.0 * c.hidden_size * c.intermediate_size
        head = 2.0 * self.table * self.n_out * (1 + back + kernels)
        return self.times * self.rows * (self.tokens * c.layers * layer + head)

    def layer_activations(self, tensor: int) -> float:
        """Bytes that one layer's backward pass reads."""
        c = self.model
        wide = self.itemsize * 3 * c.hidden_size
        split = self.itemsize * (2 * c.head_dim * (c.heads + c.kv_heads) + 3 * c.intermediate_size)
        split += c.heads * self.seen * (4 + self.itemsize)
        return self.rows * self.tokens * (wide + split / tensor)

    def activations(self, tensor: int) -> float:
        c, layer = self.model, self.layer_activations(tensor)
        if self.trains == "nothing":
            return layer
        if not c.remat:
            return c.layers * layer
        kept = float(c.hidden_size)
        if c.remat_policy == "dots":
            products = c.head_dim * (c.heads + 2 * c.kv_heads) + 2 * c.intermediate_size
            kept += 2 * c.hidden_size + products / tensor
        return c.layers * self.rows * self.tokens * self.itemsize * kept + layer

    def received(self, mesh: Mapping[str, int], trained: float) -> float:
        """Bytes that come over links; trained: bytes of what is trained, whole, in float32."""
        c, data, fsdp, tensor = self.model, mesh["data"], mesh["fsdp"], mesh["tensor"]
        back = self.trains != "nothing"
        if self.gathers:
            weights = self.itemsize * (c.layers * self.matrices + 2 * self.table) / tensor
            total = (1 + back) * weights * (fsdp - 1) / fsdp
            total += trained * (fsdp - 1) / fsdp + 2 * trained / fsdp * (data - 1) / data if back else 0
        else:
            summed = (c.head_dim * (c.heads + 2 * c.kv_heads) + 2 * c.intermediate_size) / tensor
            a_token = c.layers * (2 * summed + 2 * c.hidden_size)  # an all-reduce brings twice what a gather does
            numbers = self.rows * (self.tokens * a_token + 2 * self.n_out * c.vocab_size / tensor)
            total = self.itemsize * numbers * (fsdp - 1) / fsdp
        exchanged = 2 * c.layers * (1 + back + (back and c.remat)) * self.rows * self.tokens * c.hidden_size
        total += self.itemsize * exchanged * 2 * (tensor - 1) / tensor
        return self.times * total

    def needs(self, mesh: Mapping[str, int], trained: float = 0.0) -> Needs:
        """On one device of a mesh."""
        c, fsdp, tensor = self.model, mesh["fsdp"], mesh["tensor"]
        back = self.trains != "nothing"
        shared = tensor * (1 if self.gathers else fsdp)
        weights = self.itemsize * (c.layers * self.matrices + self.table) / shared
        passes = 1 + back + (back and c.remat)
        moved = passes * (weights + 2 * c.layers * self.layer_activations(tensor))
        gathered = self.itemsize * (2 * self.matrices + 2 * self.table) / tensor if self.gathers and fsdp > 1 else 0.0
        return Needs(
            activations=self.activations(tensor),
            logits=self.rows * self.n_out * c.vocab_size * (4 + 4 * back + self.itemsize) / tensor,
            gathered=gathered,
            flops=self.flops() / shared,
            hbm_bytes=self.times * moved + OPTIMIZER_TRAFFIC * trained / 4 / (fsdp * tensor) * back,
            received=self.received(mesh, trained),
        )


def together(needs: list[Needs]) -> Needs:
    """Of passes one after the other: what they keep is the largest's, what they do adds up."""
    kept = [max(getattr(one, name) for one in needs) for name in ("activations", "logits", "gathered")]
    done = [sum(getattr(one, name) for one in needs) for name in ("flops", "hbm_bytes", "received")]
    return Needs(*kept, *done)
