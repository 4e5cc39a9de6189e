import dataclasses
import json

import pytest

from atspeed_jax.items.catalog import BOS, FIRST_CODE
from atspeed_jax.runs.experiment import PretrainedConfig
from atspeed_jax.runs.pipeline import Run
from bases import write_base
from words import WORDS


def test_models_from_scratch_have_a_vocabulary_of_their_own(small_run):
    run = Run(small_run.run.config, small_run.workdir, None)
    assert run.pretrained == {}
    assert (run.dataset.catalog.bos, run.dataset.catalog.first_code) == (
        BOS,
        FIRST_CODE,
    )
    assert run.target_model.vocab_size == run.dataset.catalog.vocab_size == run.draft_model.vocab_size
    assert run.target_params["embedding"].shape[0] == run.dataset.catalog.vocab_size


def test_a_model_from_scratch_beside_a_base_has_its_vocabulary(small_config, data_only, tmp_path):
    write_base(tmp_path / "base")
    config = dataclasses.replace(small_config, target=PretrainedConfig(str(tmp_path / "base"), None))
    run = Run(config, data_only, None)
    base = run.pretrained["target"]
    assert run.base_of("draft") is base
    assert run.base_of("target") is base
    assert run.draft_model.vocab_size == run.target_model.vocab_size > base.model.vocab_size
    assert Run(small_config, data_only, None).base_of("draft") is None


def test_the_tokenizers_of_both_bases_must_agree_on_the_codes(small_config, data_only, tmp_path):
    """Before training, not when the model is exported."""
    write_base(tmp_path / "target")
    write_base(tmp_path / "draft", words=WORDS[:-1])
    bases = {name: PretrainedConfig(str(tmp_path / name), None) for name in ("target", "draft")}
    with pytest.raises(ValueError, match=r"target has new codes behind 6 tokens.*draft has new codes behind 5 tokens"):
        Run(dataclasses.replace(small_config, **bases), data_only, None).dataset  # noqa: B018


@pytest.mark.parametrize("name", ["max_position_embeddings", "max_sequence_length"])
def test_prompts_longer_than_a_base_was_made_for(small_config, data_only, tmp_path, name):
    write_base(tmp_path / "base", **{"max_position_embeddings": None} | {name: 15})
    fields = json.loads((tmp_path / "base" / "config.json").read_text())
    known = {field: value for field, value in fields.items() if value is not None}
    (tmp_path / "base" / "config.json").write_text(json.dumps(known))
    config = dataclasses.replace(small_config, target=PretrainedConfig(str(tmp_path / "base"), None))
    with pytest.raises(ValueError, match=r"history=4 items .* has 16 tokens, .* for 15 .*\): lower history"):
        Run(config, data_only, None).dataset  # noqa: B018
