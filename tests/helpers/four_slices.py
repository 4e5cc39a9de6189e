"""A process of its own, with 4 CPU devices: decoding split over all of them. Prints a JSON object."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.decoding.base import SharedHead
from atspeed_jax.decoding.shared_head import read_head
from atspeed_jax.items.filters import FilteredTrie
from atspeed_jax.serving import sharded
from atspeed_jax.serving.decoders import BeamSearch
from atspeed_jax.serving.settings import Setting
from cases import SHAPES, STEP, make_batch
from devices import whole_mesh
from tests.serving.test_sharded import TRIE, Echo, prompt

COLLECTIVES = r"= [^=]*? (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("

mesh = whole_mesh()
result = jax.device_get(sharded.decode_on_mesh(Echo(3), jnp.int32(5), TRIE, prompt(6), mesh))
text = sharded._decode.lower(Echo(3), mesh, jnp.int32(5), TRIE, prompt(8)).compile().as_text()
found = re.findall(COLLECTIVES, text)

batch = make_batch(SHAPES[2], np.random.default_rng(0), trie="full", table="smooth", draft="random")
users = jax.tree.map(lambda x: x[:6], batch.prompt)
excluded = np.sort(
    np.random.default_rng(1).permuted(np.tile(np.arange(len(batch.ids)), (6, 1)), axis=1)[:, :60], axis=1
)
given = jnp.asarray(batch.table), FilteredTrie(batch.trie, excluded.astype(np.int32), allow=False), users
search = BeamSearch(STEP, Setting.beam_search(4, "vocab").search)
split, alone = (jax.device_get(run) for run in (sharded.decode_on_mesh(search, *given, mesh), search(*given)))
tokens = np.concatenate([np.tile([1, 3], (6, 1)), np.asarray(users.tokens)[:, 2:]], 1)  # all begin with 1, 3
whole = users.replace(tokens=jnp.asarray(tokens), valid=jnp.ones(tokens.shape, bool))
begin = np.array([1, 3], np.int32)
short = whole.replace(head=SharedHead(begin, read_head(STEP, batch.table, begin), ()))
headed = sharded.decode_on_mesh(search, given[0], batch.trie, short, mesh), search(given[0], batch.trie, whole)
lists = {"split": split.ids.tolist(), "alone": alone.ids.tolist(), "excluded": excluded.tolist()}
lists["headed"] = [one.ids.tolist() for one in headed]
print(json.dumps(lists | {"ids": result.ids.tolist(), "rounds": int(result.rounds), "collectives": found}))
