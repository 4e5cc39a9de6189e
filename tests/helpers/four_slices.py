"""A process of its own, with 4 CPU devices: decoding split over all of them. Prints a JSON object."""

import json
import re

import jax
import jax.numpy as jnp

from atspeed_jax.decoding import sharded
from devices import whole_mesh
from tests.decoding.test_sharded import Echo, prompt

COLLECTIVES = r"= [^=]*? (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("

mesh = whole_mesh()
result = jax.device_get(sharded.decode_on_mesh(Echo(3), jnp.int32(5), prompt(6), mesh))
text = sharded._decode.lower(Echo(3), mesh, jnp.int32(5), prompt(8)).compile().as_text()
found = re.findall(COLLECTIVES, text)
print(json.dumps({"ids": result.ids.tolist(), "rounds": int(result.rounds), "collectives": found}))
