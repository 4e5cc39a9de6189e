import dataclasses

from atspeed_jax.assets import RunAssets, fingerprint
from atspeed_jax.items.catalog import BOS, FIRST_CODE


def test_a_fingerprint_is_of_every_part_and_their_order():
    assert fingerprint("a", 1) == fingerprint("a", 1) and len(fingerprint("a")) == 16
    assert len({fingerprint("a", 1), fingerprint(1, "a"), fingerprint("a"), fingerprint("a", 2)}) == 4


def test_models_from_scratch_have_a_vocabulary_of_their_own(small_run):
    assets = RunAssets(small_run.run.config, small_run.workdir, None)
    assert assets.pretrained == {} and (assets.dataset.catalog.bos, assets.dataset.catalog.first_code) == (
        BOS,
        FIRST_CODE,
    )
    assert assets.target_model.vocab_size == assets.dataset.catalog.vocab_size == assets.draft_model.vocab_size
    assert assets.target_params["embedding"].shape[0] == assets.dataset.catalog.vocab_size


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
