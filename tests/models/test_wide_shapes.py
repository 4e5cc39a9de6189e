"""Which sizes a trained Llama is widened to, and what is refused."""

import dataclasses

import pytest

from atspeed_jax.models.llama_config import LlamaConfig
from atspeed_jax.models.wide_shapes import SHAPES, WidenError, shape_named, widened_config

PLAIN = LlamaConfig(19, 16, 20, 2, 2, 2, 4, 100.0, 1e-2, True, 0.0, "float32", False)


@pytest.mark.parametrize("name", SHAPES)
def test_every_named_shape_takes_the_pair_of_beauty(name):
    small = LlamaConfig(861, 128, 512, 4, 4, 4, 32, 1e4, 1e-6, False, 0.1, "float32", False)
    big = widened_config(small, name)
    assert big.heads * big.head_dim == SHAPES[name].query_width
    assert big.kv_heads * big.head_dim == SHAPES[name].key_width
    assert big.norm_eps * big.hidden_size == pytest.approx(1e-6 * 128)


def test_a_mistral_is_widened_as_a_llama():
    mistral = dataclasses.replace(PLAIN, model_type="mistral")
    assert widened_config(mistral, "10m") == dataclasses.replace(widened_config(PLAIN, "10m"), model_type="mistral")


@dataclasses.dataclass(frozen=True)
class Switched(LlamaConfig):
    query_norm: bool = False


def switched():
    fields = {field.name: getattr(PLAIN, field.name) for field in dataclasses.fields(PLAIN)}
    return widened_config(Switched(**fields, query_norm=True), "10m")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shape_named("9m"), "shape '9m': expected one of 3m, 10m, "),
        (
            lambda: widened_config(dataclasses.replace(PLAIN, head_dim=24), "llama-7b"),
            "head_dim=24 of the trained model does not divide head_dim=128 of shape llama-7b: .*3m, 10m, 25m",
        ),
        (
            lambda: widened_config(dataclasses.replace(PLAIN, layers=7), "10m"),
            "needs layers 7, shape 10m has 6: .*larger",
        ),
        (lambda: widened_config(dataclasses.replace(PLAIN, heads=99, kv_heads=99), "10m"), "key heads 99, .* has 96"),
        (lambda: widened_config(dataclasses.replace(PLAIN, head_dim=400), "10m"), "head_dim=400 .*larger than.*384"),
        (
            lambda: widened_config(dataclasses.replace(PLAIN, model_type="qwen2"), "10m"),
            "of type 'qwen2' has qkv_bias: only a model without biases",
        ),
        (
            lambda: widened_config(dataclasses.replace(PLAIN, model_type="qwen3", attention_bias=True), "10m"),
            "of type 'qwen3' has qkv_bias, output_bias, qk_norm",
        ),
        (switched, "query_norm=True of the trained model: this switch cannot be widened exactly"),
    ],
)
def test_what_cannot_be_widened_is_named(call, message):
    with pytest.raises(WidenError, match=message):
        call()
