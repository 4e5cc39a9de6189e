import pytest

from atspeed_jax.benchmarks import instruction
from atspeed_jax.benchmarks.random_models import SIZES
from atspeed_jax.data.prompts import shared_head
from reports import toy_decoders


def test_variants_leave_out_logits_and_the_head():
    """The first variant does neither; the others do what they are named after."""
    catalog = instruction.worded_catalog(500, 7)
    head = shared_head(catalog)
    assert len(head) == 7
    decoders = toy_decoders(500).decoders
    made = instruction.variants(decoders, head)
    found = [(one.first_logit("trie"), one.head is not None) for one in made.values()]
    assert found == [(0, False), (500, False), (0, True), (500, True)]


@pytest.mark.slow
def test_a_row_per_method_and_variant(capsys, monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", (64, 64, 1))
    monkeypatch.setattr(instruction, "ITEMS", 20)
    monkeypatch.setattr(instruction, "CODES", (4, 5))
    instruction.main(["--model=tiny", "--vocabulary=3000", "--history=2", "--batches=1", "--repeats=1", "--beams=2"])
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if "all logits" in line]) == 2
    assert len([line for line in lines if "shared head" in line]) == 2
