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
