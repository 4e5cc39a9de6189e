import jax
import numpy as np
import pytest

from atspeed_jax.items.catalog import Catalog
from atspeed_jax.models.lora import LoraConfig
from atspeed_jax.models.pretrained import PretrainedConfig, open_pretrained
from atspeed_jax.training.initialization import from_pretrained, from_scratch
from bases import BASE, write_base
from devices import whole_mesh

LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.0, targets=("q_proj",))


def test_from_scratch_everything_is_trained():
    start = from_scratch(BASE)
    params = start.init(jax.random.key(0))
    assert (start.frozen, start.lora, start.model) == (None, None, BASE)
    assert start.full_params(params) is params
    assert jax.tree.structure(start.abstract(whole_mesh())) == jax.tree.structure(params)


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "adapter"])
def test_from_a_base(tmp_path, lora):
    params = write_base(tmp_path / "base")
    catalog = Catalog.from_codes(np.arange(4)[:, None]).behind(6, 2)
    start = from_pretrained(open_pretrained(PretrainedConfig(str(tmp_path / "base"), lora)), catalog, whole_mesh())
    jax.tree.map(np.testing.assert_array_equal, start.frozen, params)
    assert start.lora == lora
    assert start.model.vocab_size == (6 if lora else 10)
    trained = start.init(jax.random.key(0), start.frozen)
    abstract = start.abstract(whole_mesh())
    jax.tree.map(lambda leaf, shape: np.testing.assert_equal(leaf.shape, shape.shape), trained, abstract)
    assert set(trained["layers"]["attention"]) == ({"query"} if lora else {"query", "key", "value", "output"})
    assert start.full_params(trained)["embedding"].shape == (10, 16)
