"""By hand, on sizes that a head can hold; beside compiled programs in test_plan.py."""

import dataclasses

import pytest

from atspeed_jax.models.attention import MOST_BYTES
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.planning.estimate import Pass, product_time, together
from atspeed_jax.training.chips import CHIPS

MODEL = LlamaConfig(10, 8, 16, 3, 2, 1, 4, 1e4, 1e-6, False, 0.0, "float32", False)
MATRICES = 2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 16  # query and output, key and value, MLP
ONE = {"data": 1, "fsdp": 1, "tensor": 1}


def passed(trains="all", **changes):
    return Pass(dataclasses.replace(MODEL, **changes), 2, 5, 5, 5, trains)


def test_forward_and_backward_are_counted():
    product, attention, head = 2 * 2 * 5 * MATRICES * 3, 2 * 5 * 3 * 4 * 5 * 2 * 4, 2 * 2 * 5 * 80
    assert passed("nothing").flops() == product + attention + head
    assert passed("adapter").flops() == 2 * product + 3 * attention + 2 * head
    assert passed("all").flops() == 3 * product + 3 * attention + 3 * head
    again = product - 2 * 2 * 5 * 3 * 8 * 16 + attention  # all but the layer's last product
    assert passed("all", remat=True).flops() == passed("all").flops() + again
    assert passed("all", remat=True, remat_policy="dots").flops() == passed("all").flops() + attention


def test_what_a_backward_pass_keeps():
    layer = passed().layer_activations(1)
    assert passed("nothing").activations(1) == layer
    assert passed().activations(1) == 3 * layer
    assert passed(remat=True).activations(1) == layer + 3 * 2 * 5 * 8 * 4
    assert layer < passed(remat=True, remat_policy="dots").activations(1) < 3 * layer
    normed = passed(model_type="qwen3")
    assert normed.layer_activations(1) == layer + 4 * 2 * 5 * 4 * (2 + 1)  # query and key before their norms
    half = passed(dtype="bfloat16")
    assert half.activations(1) < passed().activations(1)
    assert passed().activations(2) < passed().activations(1)


def test_attention_of_a_long_prompt_is_held_in_blocks():
    """Memory grows with the length, not with its square; a backward pass keeps all."""

    def activations(tokens, trains):
        return Pass(MODEL, 8, tokens, tokens, 1, trains).activations(1)

    held = [activations(tokens, "nothing") for tokens in (20_000, 40_000, 80_000)]
    assert held[2] - held[1] == pytest.approx(2 * (held[1] - held[0]))
    assert held[0] > 2 * MOST_BYTES
    assert activations(40_000, "all") > 3 * activations(20_000, "all")


def test_weights_are_gathered_to_the_rows_and_gradients_spread():
    mesh, weights, trained = {"data": 3, "fsdp": 4, "tensor": 1}, 4 * (3 * MATRICES + 2 * 80), 1000.0
    assert passed("nothing").needs(mesh).received == weights * 3 / 4
    gradients = trained * 3 / 4 + 2 * (trained / 4) * 2 / 3
    assert passed().needs(mesh, trained).received == pytest.approx(2 * weights * 3 / 4 + gradients)
    assert passed().needs(mesh, trained).gathered == 4 * (2 * MATRICES + 2 * 80)
    assert passed().needs(ONE, trained).received == passed().needs(ONE, trained).gathered == 0


def test_a_decoder_shares_the_work_of_its_rows():
    mesh = {"data": 1, "fsdp": 4, "tensor": 1}
    decoding = dataclasses.replace(passed("nothing"), gathers=False)
    assert decoding.needs(mesh).flops == decoding.flops() / 4
    assert decoding.needs(mesh).gathered == 0
    tokens, numbers = 2 * 5, 3 * (2 * (8 + 2 * 4 + 2 * 16) + 2 * 8) + 2 * 10
    assert decoding.needs(mesh).received == 4 * tokens * numbers * 3 / 4


def test_tensor_slices_exchange_sums_and_split_the_work():
    mesh = {"data": 1, "fsdp": 1, "tensor": 2}
    assert passed().needs(mesh).flops == passed().flops() / 2
    assert passed("nothing").needs(mesh).received == 2 * 3 * 2 * 5 * 8 * 4 * 2 * 1 / 2


def test_passes_one_after_the_other():
    one, two = passed().needs(ONE), passed("nothing").needs(ONE)
    both = together([one, two])
    assert both.activations == one.activations
    assert both.logits == one.logits
    assert both.flops == one.flops + two.flops
    assert both.hbm_bytes == one.hbm_bytes + two.hbm_bytes
    repeated = dataclasses.replace(passed(), times=7).needs(ONE)
    assert repeated.flops == 7 * one.flops
    assert repeated.activations == one.activations


def test_products_of_float32_take_several_passes():
    half, whole = passed(dtype="bfloat16"), passed()
    assert product_time([half], CHIPS["v5e"]) == pytest.approx(1)
    assert product_time([whole], CHIPS["v5e"]) == pytest.approx(6)
    assert product_time([half, whole], CHIPS["v5e"]) == pytest.approx(3.5)
