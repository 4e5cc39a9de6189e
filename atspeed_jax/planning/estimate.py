"""Estimates what a pass of a Llama needs on one device, by counting.

The estimate stands beside the compiler's figures. It counts in the dtypes of the model,
which a CPU's compiler widens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import jax.numpy as jnp

from atspeed_jax.models.attention import MOST_BYTES
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.training.chips import Chip

# Bytes over HBM per trained number in an update: gradient, parameter and two moments in
# float32, read or written.
OPTIMIZER_TRAFFIC = 6 * 4


class Needs(NamedTuple):
    """What a step needs on one device, beside the arrays that always lie on the device.

    Attributes:
      activations: bytes that the backward pass reads.
      logits: bytes of logits.
      gathered: bytes of whole weights: two layers, embedding and head.
      flops: floating-point operations.
      hbm_bytes: bytes over HBM.
      received: bytes over links.
    """

    activations: float
    logits: float
    gathered: float
    flops: float
    hbm_bytes: float
    received: float


@dataclasses.dataclass(frozen=True)
class Pass:
    """A forward pass of a model, with the backward pass if something is trained.

    Attributes:
      model: config of the model.
      rows: rows of the batch on one device.
      tokens: tokens T of a row.
      seen: slots that every token attends to.
      n_out: tokens of a row with logits.
      trains: "all" parameters, an "adapter" or "nothing".
      gathers: True (training): whole weights are gathered layer by layer. False
        (decoding): every device of the axis `fsdp` multiplies the same rows by its part
        of the weights, and partial sums are exchanged.
      times: how often the pass runs in a step.
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
        """Counts the parameters of a layer's matrices."""
        c = self.model
        return 2 * c.hidden_size * c.head_dim * (c.heads + c.kv_heads) + 3 * c.hidden_size * c.intermediate_size

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the model's dtype."""
        return jnp.dtype(self.model.dtype).itemsize

    @property
    def table(self) -> int:
        """Counts the parameters of the embedding, or of the head."""
        return self.model.vocab_size * self.model.hidden_size

    def flops(self) -> float:
        """Counts the operations of all devices that share these rows."""
        c, forward = self.model, 2.0 * self.matrices
        attention = 4.0 * self.seen * c.heads * c.head_dim
        back, kernels = float(self.trains != "nothing"), float(self.trains == "all")
        layer = forward * (1 + back + kernels) + attention * (1 + 2 * back)
        if c.remat and back:
            layer += attention
            # The backward pass never needs the result of a layer's last product.
            if c.remat_policy == "nothing":
                layer += forward - 2.0 * c.hidden_size * c.intermediate_size
        head = 2.0 * self.table * self.n_out * (1 + back + kernels)
        return self.times * self.rows * (self.tokens * c.layers * layer + head)

    def layer_activations(self, tensor: int) -> float:
        """Counts the bytes that the backward pass of one layer reads.

        Args:
          tensor: devices along the mesh axis of this name.
        """
        c = self.model
        wide = self.itemsize * 3 * c.hidden_size
        heads = 2 + c.qk_norm  # a normed query or key is kept before and after its norm
        split = self.itemsize * (heads * c.head_dim * (c.heads + c.kv_heads) + 3 * c.intermediate_size)
        return self.rows * self.tokens * (wide + split / tensor) + self.logits_of_attention(tensor)

    def logits_of_attention(self, tensor: int) -> float:
        """Counts the bytes of the logits and weights of attention in one layer.

        Args:
          tensor: devices along the mesh axis of this name.
        """
        return self.rows * self.tokens * self.model.heads * self.seen * (4 + self.itemsize) / tensor

    def activations(self, tensor: int) -> float:
        """Counts the bytes of activations that are held at once.

        Args:
          tensor: devices along the mesh axis of this name.
        """
        c, layer = self.model, self.layer_activations(tensor)
        if self.trains == "nothing":
            logits = self.logits_of_attention(tensor)
            # Larger logits are computed in blocks.
            return layer - logits + min(logits, MOST_BYTES * (1 + self.itemsize / 4) / tensor)
        if not c.remat:
            return c.layers * layer
        kept = float(c.hidden_size)
        if c.remat_policy == "dots":
            products = c.head_dim * (c.heads + 2 * c.kv_heads) + 2 * c.intermediate_size
            kept += 2 * c.hidden_size + products / tensor
        return c.layers * self.rows * self.tokens * self.itemsize * kept + layer

    def received(self, mesh: Mapping[str, int], trained: float) -> float:
        """Counts the bytes that one device receives over links.

        Args:
          mesh: size of each mesh axis by its name.
          trained: bytes of all trained parameters in float32, over all devices.
        """
        c, data, fsdp, tensor = self.model, mesh["data"], mesh["fsdp"], mesh["tensor"]
        back = self.trains != "nothing"
        if self.gathers:
            weights = self.itemsize * (c.layers * self.matrices + 2 * self.table) / tensor
            total = (1 + back) * weights * (fsdp - 1) / fsdp
            total += trained * (fsdp - 1) / fsdp + 2 * trained / fsdp * (data - 1) / data if back else 0
        else:
            summed = (c.head_dim * (c.heads + 2 * c.kv_heads) + 2 * c.intermediate_size) / tensor
            # An all-reduce brings twice the bytes of a gather.
            a_token = c.layers * (2 * summed + 2 * c.hidden_size)
            numbers = self.rows * (self.tokens * a_token + 2 * self.n_out * c.vocab_size / tensor)
            total = self.itemsize * numbers * (fsdp - 1) / fsdp
        exchanged = 2 * c.layers * (1 + back + (back and c.remat)) * self.rows * self.tokens * c.hidden_size
        total += self.itemsize * exchanged * 2 * (tensor - 1) / tensor
        return self.times * total

    def needs(self, mesh: Mapping[str, int], trained: float = 0.0) -> Needs:
        """Estimates the needs on one device of a mesh.

        Args:
          mesh: size of each mesh axis by its name.
          trained: bytes of all trained parameters in float32, over all devices.
        """
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


def product_time(passes: Iterable[Pass], chip: Chip) -> float:
    """Returns how long products take, as a multiple of their time in bfloat16.

    A float32 model takes several times as long as `Chip.flops` says. Each pass counts
    by its operations.
    """
    passes = list(passes)
    return chip.flops * sum(one.flops() / chip.rate(one.model) for one in passes) / sum(one.flops() for one in passes)


def together(needs: list[Needs]) -> Needs:
    """Adds up passes that run one after the other.

    Memory is that of the largest pass; operations and bytes are sums.
    """
    kept = [max(getattr(one, name) for one in needs) for name in ("activations", "logits", "gathered")]
    done = [sum(getattr(one, name) for one in needs) for name in ("flops", "hbm_bytes", "received")]
    return Needs(*kept, *done)
