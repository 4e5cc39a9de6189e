"""The test users of a small run, by plain beam search and by speculation."""

from atspeed_jax.data.batches import BatchShape
from atspeed_jax.data.users import held_out_users
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.settings import Setting


def decoded_both_ways(run, beams=5):
    """(plain, speculative) `Decoded` of the test users of a run."""
    decoders, users = run.decoders(run.draft_params), held_out_users(run.dataset, "test")
    batches = users.batches(run.dataset, BatchShape(4, run.config.evaluate.buckets, 2))
    settings = Setting.beam_search(beams, "vocab"), Setting.strict("draft", beams, run.config.decode)
    return tuple(decode_users(decoders.build(setting), batches, len(users.users)) for setting in settings)
