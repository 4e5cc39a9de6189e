import copy
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from atspeed_jax.items.catalog import BOS, FIRST_CODE
from atspeed_jax.items.tokenizer import TokenizerError
from atspeed_jax.runs.assets import RunAssets, fingerprint, recorded_fingerprint
from atspeed_jax.runs.experiment import PretrainedConfig, made_with
from bases import write_base
from small import changed
from words import WORDS


def test_a_fingerprint_is_of_every_part_and_their_order():
    assert fingerprint("a", 1) == fingerprint("a", 1)
    assert len(fingerprint("a")) == 16
    assert len({fingerprint("a", 1), fingerprint(1, "a"), fingerprint("a"), fingerprint("a", 2)}) == 4


def test_models_from_scratch_have_a_vocabulary_of_their_own(small_run):
    assets = RunAssets(small_run.run.config, small_run.workdir, None)
    assert assets.pretrained == {}
    assert (assets.dataset.catalog.bos, assets.dataset.catalog.first_code) == (
        BOS,
        FIRST_CODE,
    )
    assert assets.target_model.vocab_size == assets.dataset.catalog.vocab_size == assets.draft_model.vocab_size
    assert assets.target_params["embedding"].shape[0] == assets.dataset.catalog.vocab_size


def test_layers_lie_side_by_side_where_the_config_says_so(small_run, small_config):
    """And a finished run can be told later: its draft is still its own."""
    stacked = RunAssets(small_config, small_run.workdir, None)
    apart = RunAssets(changed(small_config, "decode.unroll", True), small_run.workdir, None)
    for assets, named in ((stacked, "layers"), (apart, "layers_0")):
        decoders = assets.decoders(assets.draft_params)
        assert named in decoders.target_params
        assert named in decoders.draft_params
        assert decoders.step(decoders.target).unrolled == (assets is apart)


def test_a_model_from_scratch_beside_a_base_has_its_vocabulary(small_config, data_only, tmp_path):
    write_base(tmp_path / "base")
    config = dataclasses.replace(small_config, target=PretrainedConfig(str(tmp_path / "base"), None))
    assets = RunAssets(config, data_only, None)
    base = assets.pretrained["target"]
    assert assets.base_of("draft") is base
    assert assets.base_of("target") is base
    assert assets.draft_model.vocab_size == assets.target_model.vocab_size > base.model.vocab_size
    assert RunAssets(small_config, data_only, None).base_of("draft") is None


def test_the_tokenizer_of_either_base_must_take_the_codes(small_config, data_only, tmp_path):
    """Before training, not when the model is exported."""
    write_base(tmp_path / "target")
    write_base(tmp_path / "draft", words=WORDS[:-1])
    bases = {name: PretrainedConfig(str(tmp_path / name), None) for name in ("target", "draft")}
    with pytest.raises(
        TokenizerError, match=r"draft.*tokenizer\.json has tokens 0\.\.4, but the model's embedding has 6"
    ):
        RunAssets(dataclasses.replace(small_config, **bases), data_only, None).dataset  # noqa: B018


@pytest.mark.parametrize("name", ["max_position_embeddings", "max_sequence_length"])
def test_prompts_longer_than_a_base_was_made_for(small_config, data_only, tmp_path, name):
    write_base(tmp_path / "base", **{"max_position_embeddings": None} | {name: 15})
    fields = json.loads((tmp_path / "base" / "config.json").read_text())
    known = {field: value for field, value in fields.items() if value is not None}
    (tmp_path / "base" / "config.json").write_text(json.dumps(known))
    config = dataclasses.replace(small_config, target=PretrainedConfig(str(tmp_path / "base"), None))
    with pytest.raises(ValueError, match=r"history=4 items .* has 16 tokens, .* for 15 .*\): lower history"):
        RunAssets(config, data_only, None).dataset  # noqa: B018


def test_what_is_read_of_items_alone_is_their_number(small_run):
    """As it was before prompts had a text, so that models trained then are still this run's."""
    run = small_run.run
    c, data = run.config, run.dataset.fingerprint
    assert run.reads == c.data.history
    assert run.stage_fingerprint("target") == fingerprint(data, c.data.history, c.target, c.train_target)
    assert run.stage_fingerprint("draft_sft") == fingerprint(data, c.data.history, c.draft, c.train_draft)


def test_a_field_at_its_default_is_as_if_it_were_not_there():
    """Output made before a field existed stays valid, and is told from that of any other value."""

    @dataclasses.dataclass(frozen=True)
    class Inner:
        x: int

    def config(**more):
        fields = [("sizes", tuple), ("inner", Inner), *((name, int, value) for name, value in more.items())]
        return dataclasses.make_dataclass("Config", fields, frozen=True)

    old, new = config(), config(added=3)
    assert fingerprint(new((1, 2), Inner(5))) == fingerprint(old((1, 2), Inner(5)))
    assert fingerprint(new((1, 2), Inner(5), 4)) != fingerprint(old((1, 2), Inner(5)))
    assert fingerprint(old((1, 2), Inner(5))) != fingerprint(old((1, 2), Inner(6)))


def fields_of(config, path=""):
    """(path, value) of every field of a config, sections left out."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}.{field.name}".lstrip(".")
        yield from fields_of(value, name) if dataclasses.is_dataclass(value) else [(name, value)]


def with_other(config, path):
    """A copy with one field set to another value, whether or not that could work."""
    name, _, rest = path.partition(".")
    value, made = getattr(config, name), copy.copy(config)
    others = {bool: lambda: not value, int: lambda: value + 1, float: lambda: value + 0.5, tuple: lambda: (*value, 9)}
    others[type(None)] = lambda: 7
    other = with_other(value, rest) if rest else others.get(type(value), lambda: f"other than {value}")()
    object.__setattr__(made, name, other)
    return made


def prints_of(config):
    """The fingerprint of every stage, with stand-ins for the data, their text, and the target's bits."""
    assets = RunAssets(config, Path("nowhere"), None)
    catalog = SimpleNamespace(instruction=fingerprint(config.data.prompt))
    data = fingerprint(config.data.source, config.data.synthetic)
    assets.__dict__["dataset"] = SimpleNamespace(fingerprint=data, catalog=catalog)
    assets.__dict__["_target_bits"] = assets._target_fingerprint
    made = {stage: getattr(assets, f"_{name}_fingerprint") for stage, name in STAGE_PRINTS.items()}
    return {"data": data} | made


STAGE_PRINTS = {"target": "target", "teacher": "teacher", "draft_sft": "sft", "draft": "draft"}


def test_the_stages_made_with_a_field_are_those_whose_fingerprint_it_changes(small_config):
    """What may change in the record of a run, and when, is asked of `made_with`."""
    before, seen = prints_of(small_config), set()
    for path, _ in fields_of(small_config):
        after = prints_of(with_other(small_config, path))
        changed_stages = tuple(stage for stage in before if before[stage] != after[stage])
        assert changed_stages == made_with(path), path
        seen.add(changed_stages)
    assert len(seen) >= 7
    assert () in seen


@pytest.mark.parametrize("name", ["metadata.json", "complete.json"])
def test_a_stage_whose_record_is_damaged_is_named(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=f"{tmp_path}/{name} is damaged .*; delete {tmp_path} to make it again"):
        recorded_fingerprint(tmp_path)
