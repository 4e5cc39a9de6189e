"""What is packed of a run decodes as the run does."""

import numpy as np

from atspeed_jax.benchmarks.pack import pair_of_run
from atspeed_jax.data.users import held_out_users
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.lists import differing
from atspeed_jax.serving.settings import Setting


def test_a_packed_pair_decodes_as_the_run(small_run):
    run = small_run.run
    pair = pair_of_run(run, 4)
    users = held_out_users(run.dataset, "valid").sample(4, run.serve.evaluate.seed)
    assert pair.users.tolist() == users.users.tolist()
    last = [run.dataset.catalog.tokens(items[-1:]).reshape(-1).tolist() for items in users.histories]
    assert pair.tokens[:, -3:].tolist() == last
    setting = Setting.strict("popularity", 10, run.serve.decode)
    batch = pair.batches(pair.tokens.shape[1] - 1, 4, 4, least=1)[0]
    ours = pair.decoders(pair.target, unrolled=False).build(setting)(prompt_of(batch))
    theirs = run.decoders(run.draft_params).build(setting)(prompt_of(batch))
    assert not differing(ours, theirs).any()
    np.testing.assert_array_equal(ours.target_calls, theirs.target_calls)
