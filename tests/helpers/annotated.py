"""A process of its own: decoders, alignment and models traced with their annotations checked (tests/test_shapes.py).

Nothing is compiled: shapes and types are known while a program is traced. Prints a JSON object: what of `WRONG`
raised TypeCheckError, and how many functions were traced.
"""

from annotations import check_annotations

check_annotations()  # before the first import of the package

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import TypeCheckError

import tree_case
from atspeed_jax.alignment import losses
from atspeed_jax.alignment.align import AlignConfig, Alignment, align_loss
from atspeed_jax.alignment.teacher_beams import beam_nodes
from atspeed_jax.decoding.base import Prompt
from atspeed_jax.decoding.beam_search import beam_search
from atspeed_jax.decoding.beams import root_beams
from atspeed_jax.decoding.config import SearchConfig
from atspeed_jax.decoding.draft import ModelDrafter, PopularityDrafter
from atspeed_jax.decoding.noise import user_keys
from atspeed_jax.decoding.selection import SELECTIONS
from atspeed_jax.decoding.speculative import speculative_beam_search
from atspeed_jax.items.filters import FilteredTrie
from atspeed_jax.items.levels import level_trie
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.models.llama import LlamaStep
from atspeed_jax.models.unroll import unroll
from atspeed_jax.shapes import StepInput

MODEL = tree_case.MODEL
IDS, CONTEXT, PROMPT, _, BEAMS, PARAMS = tree_case.world()
TRIE = build_trie(IDS)
PROMPT = PROMPT.replace(keys=user_keys(0, np.arange(2)))
SEARCH = SearchConfig((4, 6), 2, "trie", beams=3, row_share=2)
ALIGN = AlignConfig(
    "tree_kd", alpha=0.5, temperature=1.0, top_k=3, density_weight=1.0, coverage_weight=1.0, score_norm="vocab"
)
WRONG = {
    "a mask of ints": lambda: Prompt(PROMPT.tokens, PROMPT.tokens),
    "fewer users": lambda: Prompt(PROMPT.tokens, PROMPT.valid[:1]),
    "one axis more": lambda: StepInput.causal(PROMPT.tokens[None], PROMPT.valid),
    "a length that is no int": lambda: root_beams(PROMPT, 2.5),
    "floats as nodes": lambda: TRIE.edges(0, jnp.zeros((2, 3))),
}


def searches():
    """Functions that decode: every mode and constraint, each with a drafter, and a tree of every kind."""
    step, drafter, prior = LlamaStep(MODEL), ModelDrafter(LlamaStep(MODEL)), popularity_prior(TRIE, IDS, IDS[:, 0])
    listed = jnp.zeros((2, 1), jnp.int32)
    tries = [FilteredTrie(TRIE, listed, allow=allow) for allow in (False, True)]
    for trie in (TRIE, *tries, level_trie(TRIE)):
        yield functools.partial(beam_search, step, PARAMS, trie, PROMPT, beams=3, score_norm="trie")
    fields = [{"mode": one.mode} for one in SELECTIONS] + [{"budget": 5}, {"tolerance": 0.1}, {"score_norm": "vocab"}]
    for changed in fields:
        config = dataclasses.replace(SEARCH, **changed)
        yield functools.partial(
            speculative_beam_search, step, PARAMS, drafter, PARAMS, trie=TRIE, prompt=PROMPT, config=config
        )
    wide, apart = LlamaStep(MODEL, unrolled=True), unroll(PARAMS)
    yield functools.partial(
        speculative_beam_search, wide, apart, PopularityDrafter(), prior, trie=tries[0], prompt=PROMPT, config=SEARCH
    )


def alignments():
    """Functions that compute the teacher's nodes, or a loss and its gradient."""
    yield functools.partial(beam_nodes, LlamaStep(MODEL), PARAMS, TRIE, PROMPT, beams=3, score_norm="vocab")
    batch = {"tokens": PROMPT.tokens, "valid": PROMPT.valid, "beams": BEAMS[:, :1], "list": BEAMS[:, -1]}
    batch["next_id"] = jnp.zeros((2,), jnp.int32)
    for objective in ("tree_kd", "atspeed_s", "atspeed_r", "seq_kd", *losses.COVERAGE):
        alignment = Alignment(dataclasses.replace(ALIGN, objective=objective), MODEL, MODEL, (4, 6))
        loss = functools.partial(align_loss, alignment)
        yield functools.partial(jax.grad(loss, has_aux=True), PARAMS, PARAMS, CONTEXT, batch, jax.random.key(0))


def raises(call) -> bool:
    try:
        call()
    except TypeCheckError:
        return True
    return False


if __name__ == "__main__":
    traced = [jax.eval_shape(call) for call in (*searches(), *alignments())]
    print(json.dumps({"traced": len(traced), "raised": [name for name, call in WRONG.items() if raises(call)]}))
