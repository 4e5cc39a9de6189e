import copy
import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from atspeed_jax.runs.assets import Assets
from atspeed_jax.runs.experiment import made_with
from atspeed_jax.runs.fingerprints import Fingerprints, fingerprint, recorded_fingerprint
from atspeed_jax.serving.settings import DecodeConfig


def test_a_fingerprint_is_of_every_part_and_their_order():
    assert fingerprint("a", 1) == fingerprint("a", 1)
    assert len(fingerprint("a")) == 16
    assert len({fingerprint("a", 1), fingerprint(1, "a"), fingerprint("a"), fingerprint("a", 2)}) == 4


def test_what_is_read_of_items_alone_is_their_number(small_run):
    """As it was before prompts had a text, so that models trained then are still this run's."""
    run = small_run.run
    c, data = run.config, run.dataset.fingerprint
    assert run.models.fingerprints.prompt == c.data.history
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


def test_a_default_that_has_changed_leaves_stored_runs_valid():
    """decode.unroll was False by default. Runs that were made with either value are still theirs."""
    fields = [("widths", tuple), ("gamma", int), ("score_norm", str)]
    stored = dataclasses.make_dataclass("DecodeConfig", fields, frozen=True)((4, 5), 2, "vocab")
    fields.append(("unroll", bool, False))
    side_by_side = dataclasses.make_dataclass("DecodeConfig", fields, frozen=True)((4, 5), 2, "vocab", True)
    decode = DecodeConfig((4, 5), 2, "vocab")
    assert fingerprint(dataclasses.replace(decode, unroll=False)) == fingerprint(stored)
    assert fingerprint(decode) == fingerprint(side_by_side) != fingerprint(stored)


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
    assets = Assets(config, Path("nowhere"), None, None)
    catalog = SimpleNamespace(instruction=fingerprint(config.data.prompt), begins=True, vocabulary=None)
    read = [getattr(config.data, name) for name in ("source", "synthetic", "dataset", "spelling", "levels")]
    data = fingerprint(*read)
    assets.__dict__["dataset"] = SimpleNamespace(fingerprint=data, catalog=catalog)
    fingerprints = Fingerprints(assets, lambda: {"params": np.frombuffer(fingerprints.target.encode(), np.uint8)})
    return {"data": data} | {stage: fingerprints.of(stage) for stage in ("target", "teacher", "draft_sft", "draft")}


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


def test_a_stage_without_a_record_is_named():
    with pytest.raises(
        ValueError, match="stage 'data' has no fingerprint; expected target, teacher, draft_sft or draft"
    ):
        Fingerprints(SimpleNamespace(config=None), None).of("data")


def test_fingerprints_of_stored_runs_stay(small_config):
    """Another value refuses every run that is stored: change it only where that is meant, and say so to users."""
    c = small_config
    configs = (c.target, c.train_target, c.teacher, c.align, c.train_align, c.decode)
    assert fingerprint(*configs) == "33f2cf8796cdb17a"
    assert fingerprint(dataclasses.replace(c.train_target, accumulate=2)) == "87f795ff1624f7f3"
