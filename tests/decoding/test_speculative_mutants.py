"""Known ways to get the decoder wrong, each shown to turn a named test red.

A mutant is a copy of the package and its tests in which one passage of one file is replaced; the named test runs on
the copy in a process of its own and must fail in the named check. The unchanged copy must pass them all. A named test
belongs to the fast suite.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAIN = "tests/decoding/test_beam_search.py::test_equals_oracle"
NARROW = "tests/decoding/test_speculative.py::test_equals_plain_and_oracle[L4_K4_W4-4-4_gamma3_vocab_model]"
GAMMA_ONE = "tests/decoding/test_speculative.py::test_equals_plain_and_oracle[L4_K4_W4-6-8_gamma1_vocab_model]"
TRIE_NORM = "tests/decoding/test_speculative.py::test_equals_plain_and_oracle[L3_K5_W5-8_gamma2_trie_model]"
BUDGET = "tests/decoding/test_speculative.py::test_equals_plain_and_oracle[L4_K4_W5-8-12_gamma3_vocab_model_M12]"
COUNTED = "tests/decoding/test_speculative.py::test_reported_calls_are_executed_calls"
LAW = "test_lists_have_the_law_of_the_targets_own_sampler"
RELAXED = f"tests/decoding/test_relaxed.py::{LAW}[L2_K2_W3_gamma1_vocab_model-random]"
SAME_DRAW = "test_equals_stochastic_beam_search_and_the_oracle"
STOCHASTIC = f"tests/decoding/test_speculative_stochastic.py::{SAME_DRAW}[L3_K3_W4-5_gamma1_trie_model]"
OWN_DRAW, NEVER = "test_equals_the_targets_own_draw", "test_a_draft_that_is_the_target_never_misses"
COUPLED = f"tests/decoding/test_speculative_coupled.py::{OWN_DRAW}[L4_K4_W4-6-8_gamma3_vocab_model]"
COUPLED_PERFECT = f"tests/decoding/test_speculative_coupled.py::{NEVER}[vocab-2.5]"
STOCHASTIC_PERFECT = f"tests/decoding/test_speculative_stochastic.py::{NEVER}"
FILLED = "test_places_left_after_a_rejection_are_filled_by_the_law"
BELOW_K = "tests/decoding/test_speculative.py::test_equals_plain_and_oracle[L4_K4_W2-3-2_gamma2_vocab_model]"
NO_CALL = "test_finished_prefixes_need_no_call"
FAULT = "test_user_and_level_of_the_first_fault"
FAULTS = f"tests/decoding/test_speculative_faults.py::{FAULT}[L4_K4_W5-15-45_gamma3_trie_model-strict"
UNDRAFTED = "test_a_level_that_nobody_drafted_is_not_passed"
EIGHT = "test_scores_of_eight_masked_levels_are_finite"
WHOLE = "test_lists_are_those_of_whole_prompts[L4_K4_W4-4-4_gamma3_vocab_model-strict]"
EXACTLY_K = "test_atspeed_s_with_exactly_k_children_has_the_density_term"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """file: below atspeed_jax/. old, new: passage and replacement. test must fail inside the function `check`."""

    name: str
    file: str
    old: str
    new: str
    test: str
    check: str


MUTANTS = [
    Mutant("idle rows write their cache", "decoding/inputs.py",
           "slots = jnp.where((row_level <= level)[:, None], slots, layout.slots)",
           "slots = jnp.where((row_level <= layout.slots)[:, None], slots, layout.slots)",
           GAMMA_ONE, "check_user"),
    Mutant("nodes kept in score order", "decoding/children.py",
           "index = jnp.sort(jnp.where(found, index, candidates), 1)",
           "index = jnp.where(found, index, candidates)",
           NARROW, "check_user"),
    Mutant("scatter by argmax", "decoding/verify.py",
           "score = jnp.where(hit, found.score[:, :, None], LOWEST).max(1)",
           "users = jnp.arange(hit.shape[0])[:, None]\n"
           "    score = jnp.full_like(drafted.score, LOWEST).at[users, hit.argmax(2)].set(found.score)",
           NARROW, "check_user"),
    Mutant("position one too small", "decoding/inputs.py",
           "(prompt.last_position + level)",
           "(prompt.last_position + level - 1)",
           PLAIN, "check_user"),
    Mutant("stale path: place changes nothing", "decoding/beams.py",
           "return beams.replace(path=beams.path.at[..., level].set(slots))",
           "return beams",
           PLAIN, "check_user"),
    Mutant("stale path: settled beams keep the slots they were drafted in", "decoding/draft.py",
           "settled = assign_slots(settled.resize(layout.capacity[level]), level, layout)",
           "settled = settled.resize(layout.capacity[level])",
           GAMMA_ONE, "check_user"),
    Mutant("path of another parent", "decoding/children.py",
           "path=parent.path",
           "path=jnp.broadcast_to(children.parents.path[:, :1], parent.path.shape)",
           PLAIN, "check_user"),
    Mutant("a separate prefill that is not counted", "decoding/speculative.py",
           "    state, round_one = one_round(",
           "    from atspeed_jax.decoding.inputs import prompt_input\n"
           "    read = prompt_input(prompt)\n"
           "    cache = target(target_params, read, state.target_cache, n_out=1)[1]\n"
           "    state = state.replace(target_cache=cache)\n"
           "    state, round_one = one_round(",
           COUNTED, "test_reported_calls_are_executed_calls"),
    Mutant("calls of finished rows are counted", "decoding/speculative.py",
           "calls=state.calls + (frontier.level < search.length)",
           "calls=state.calls + 1",
           COUNTED, "test_reported_calls_are_executed_calls"),
    Mutant("finished batches go on calling", "decoding/row_compaction.py",
           "jax.lax.cond(unfinished.any(),",
           "jax.lax.cond(unfinished.any() | True,",
           COUNTED, "test_reported_calls_are_executed_calls"),
    Mutant("passes for one part of the rows alone", "decoding/row_compaction.py",
           "return -(-batch // size) * rounds",
           "return rounds",
           NARROW, "check_user"),
    Mutant("the first rows of the batch go on, finished or not", "decoding/row_compaction.py",
           "jnp.argsort(~unfinished, stable=True)[:size]",
           "jnp.arange(size)",
           NARROW, "check_user"),
    Mutant("rows put back in each other's places", "decoding/row_compaction.py",
           "scatter_rows(state, axes, rows, part)",
           "scatter_rows(state, axes, rows[::-1], part)",
           BUDGET, "check_user"),
    Mutant("a part of the batch reads the prompts of the first users", "decoding/search.py",
           "self.prompt.take_rows(rows)",
           "self.prompt.take_rows(slice(rows.shape[0]))",
           BUDGET, "check_user"),
    Mutant("padding is seen", "decoding/inputs.py",
           "begin = jnp.broadcast_to(prompt.first_slot[:, None], slots.shape)",
           "begin = jnp.zeros(slots.shape, jnp.int32)",
           PLAIN, "check_user"),
    Mutant("padding behind a shared head is seen", "decoding/base.py",
           "return self.valid.shape[1] + self.head_length - self.valid.sum(1, dtype=jnp.int32)",
           "return jnp.full(self.valid.shape[0], self.head_length, jnp.int32)",
           f"tests/decoding/test_shared_head.py::{WHOLE}", "same"),
    Mutant("trie scores over the whole vocabulary", "decoding/children.py",
           'logits if norm == "vocab" else jnp.where(exists, logit, -jnp.inf)',
           "logits",
           TRIE_NORM, "check_user"),
    Mutant("missing places block a level", "decoding/verify.py",
           "covered = ~found.valid | is_finished(search.trie, level, found, config.score_norm)",
           "covered = is_finished(search.trie, level, found, config.score_norm)",
           NARROW, "check_walk"),
    Mutant("the draft drafts below its reach", "decoding/draft.py",
           "in_reach = (row_level < level) & (level <= row_level + config.gamma)",
           "in_reach = row_level < level",
           GAMMA_ONE, "check_walk"),
    Mutant("idle rows write the draft's cache", "decoding/draft.py",
           "level_input(nodes[level], level, search.prompt, search.layout, frontier.level)",
           "level_input(nodes[level], level, search.prompt, search.layout, 0 * frontier.level)",
           GAMMA_ONE, "check_walk"),
    Mutant("the draft ranks without the settled scores", "decoding/draft.py",
           "drafted = best_children(trie, children, search.widths[level])",
           "unscored = nodes[level].replace(score=jnp.zeros_like(nodes[level].score))\n"
           "            free = children.replace(parents=unscored)\n"
           "            drafted = best_children(trie, free, search.widths[level])",
           NARROW, "check_walk"),
    Mutant("finished beams block a level", "decoding/verify.py",
           "covered = ~found.valid | is_finished(search.trie, level, found, config.score_norm)",
           "covered = ~found.valid",
           TRIE_NORM, "check_walk"),
    Mutant("finished prefixes take places of the widths", "decoding/draft.py",
           "            children = open_children(trie, children, config.score_norm)\n",
           "",
           TRIE_NORM, "check_user"),
    Mutant("finished beams are lost on the way", "decoding/verify.py",
           "return merge_nodes(order, target, only), ",
           "return merge_nodes(order, target, none), ",
           TRIE_NORM, "check_user"),
    Mutant("the budget leaves out settled beams", "decoding/budget.py",
           "read = ~drafted[level] | chosen[",
           "read = chosen[",
           BUDGET, "check_user"),
    Mutant("nodes within the budget get each other's logits", "decoding/budget.py",
           "jnp.maximum(jnp.cumsum(valid, 1) - 1, 0)",
           "jnp.maximum(jnp.cumsum(valid, 1) - 2, 0)",
           BUDGET, "check_user"),
    Mutant("the budget reads the worst nodes", "decoding/budget.py",
           "largest(jnp.concatenate(leads, 1), valid, config.budget)",
           "largest(-jnp.concatenate(leads, 1), valid, config.budget)",
           BUDGET, "check_walk"),
    Mutant("a distance counts as much at a deep level", "decoding/budget.py",
           "/ depth, parent)",
           "/ 1, parent)",
           BUDGET, "check_walk"),
    Mutant("a node is ahead of its parent", "decoding/budget.py",
           "/ depth, parent)",
           "/ depth, jnp.inf)",
           BUDGET, "check_walk"),
    Mutant("a rejection takes nothing from what is left", "decoding/relaxed.py",
           "rejected = _normalize(jnp.maximum(left - proposal, 0.0), _softmax(p, exists & ~chosen))",
           "rejected = left",
           RELAXED, LAW),
    Mutant("the first draw after a rejection is from all of p", "decoding/relaxed.py",
           "return _fill(candidates, chosen, left, count)",
           "return _fill(candidates, chosen, _softmax(p, exists & ~chosen), count)",
           RELAXED, LAW),
    Mutant("an acceptance keeps what the last rejection left", "decoding/relaxed.py",
           "left = select_rows(accepted, _softmax(p, exists & ~now), select_rows(tests, rejected, left))",
           "left = jnp.where(here, 0.0, select_rows(tests & ~accepted, rejected, left))\n"
           "        left = _normalize(left, _softmax(p, exists & ~now))",
           RELAXED.replace("random", "adversarial"), LAW),
    Mutant("noise by place among the siblings, not by code", "decoding/noise.py",
           "_fold_in(parents[..., None], children.token)",
           "_fold_in(parents[..., None], jnp.broadcast_to(jnp.arange(children.token.shape[2]), children.token.shape))",
           STOCHASTIC, SAME_DRAW),
    Mutant("perturbed scores not conditioned on the parent", "decoding/noise.py",
           "value = jnp.maximum(parent - jnp.logaddexp(0.0, gap), LOWEST)",
           "value = free",
           STOCHASTIC, SAME_DRAW),
    Mutant("coupled mode accepts and rejects what the draft drew", "decoding/selection.py",
           "        return self.select(trie, target, count, keys)  # the draft saw this noise\n",
           "        return Relaxed.verify(Relaxed(), target, draft, drafted, trie=trie, count=count, keys=keys)\n",
           COUPLED, OWN_DRAW),
    Mutant("the next level of coupled mode starts from the last one's draw", "decoding/selection.py",
           "Purpose.TARGET)\n\n    def select(self, trie, children, count, keys):\n        return _draw(",
           "Purpose.TARGET)\n\n    def select(self, trie, children, count, keys):\n        return best_children(",
           COUPLED, OWN_DRAW),
    Mutant("draft and target draw with noises of their own in coupled mode", "decoding/selection.py",
           "return _add_noise(children, keys, Purpose.TARGET)",
           "return _add_noise(children, keys, purpose)",
           COUPLED_PERFECT, NEVER),
    Mutant("the first draw after a rejection shares the noise of the others", "decoding/noise.py",
           "RESIDUAL = 3",
           "RESIDUAL = 4",
           f"tests/decoding/test_relaxed.py::{FILLED}", FILLED),
    Mutant("a level has no slots for the settled beams", "decoding/search.py",
           "max(config.beams, w) for w in widths",
           "w for w in widths",
           BELOW_K, "check_user"),
    Mutant("the last fault of a round is told", "decoding/verify.py",
           "alive & (walk.faulty == 0) & not_finite(target)",
           "alive & not_finite(target)",
           f"{FAULTS}-nan]", FAULT),
    Mutant("missing places keep rows from being finished", "decoding/verify.py",
           "(is_finished(trie, level, settled, config.score_norm) | ~settled.valid).all(1)",
           "is_finished(trie, level, settled, config.score_norm).all(1)",
           f"tests/decoding/test_speculative.py::{NO_CALL}[12-1]", NO_CALL),
    Mutant("minus infinity is a score", "decoding/children.py",
           "jnp.where(jnp.isfinite(logit) & jnp.isfinite(top), log_prob, jnp.nan)",
           "log_prob",
           f"{FAULTS}--inf]", FAULT),
    Mutant("logits of finished prefixes are looked at", "decoding/children.py",
           "jnp.where(is_finished(trie, level, beams, norm)[..., None], 0.0, log_prob)",
           "log_prob",
           f"{FAULTS}-nan]", FAULT),
    Mutant("the draft forgets the temperature", "decoding/draft.py",
           "how = {\"norm\": config.score_norm, \"temperature\": config.temperature}",
           "how = {\"norm\": config.score_norm}",
           STOCHASTIC_PERFECT, NEVER),
    Mutant("tolerance loses places of the list", "decoding/tolerance.py",
           "return share, may & still_fill(search.trie, level, found, covered, count=search.config.beams)",
           "return share, may",
           f"tests/decoding/test_speculative_tolerance.py::{UNDRAFTED}[widths1-3]", UNDRAFTED),
    Mutant("sums of masked scores are infinite", "decoding/children.py",
           "jnp.maximum(self.parents.score[..., None] + self.log_prob, LOWEST)",
           "self.parents.score[..., None] + self.log_prob",
           f"tests/decoding/test_speculative_masked.py::{EIGHT}", EIGHT),
    Mutant("invalid places rank with the least scores", "decoding/beams.py",
           "jnp.where(valid, jnp.maximum(score, LOWEST), -jnp.inf)",
           "jnp.where(valid, jnp.maximum(score, LOWEST), LOWEST)",
           "tests/decoding/test_beams.py::test_the_largest_are_the_valid_ones_whatever_their_score",
           "test_the_largest_are_the_valid_ones_whatever_their_score"),
    Mutant("AtSpeed-S has no density where there are exactly K children", "alignment/losses.py",
           "exists.sum(-1) >= top_k",
           "exists.sum(-1) > top_k",
           f"tests/alignment/test_losses.py::{EXACTLY_K}", EXACTLY_K),
]  # fmt: skip


def run(copy: Path, *tests: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider", *tests]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=600)


@pytest.fixture
def copy(tmp_path):
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("atspeed_jax", "launch", "tests/alignment", "tests/decoding", "tests/helpers"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for file in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_passage_of_a_mutant_is_there(mutant):
    source = (ROOT / "atspeed_jax" / mutant.file).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1, f"{mutant.file} has changed: find the passage of {mutant.name!r} again"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_turns_its_test_red(mutant, copy):
    path = copy / "atspeed_jax" / mutant.file
    source = path.read_text(encoding="utf-8")
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    result = run(copy, mutant.test)
    assert result.returncode == 1, result.stdout + result.stderr  # 1: tests ran and failed
    assert "1 failed" in result.stdout, result.stdout
    assert re.search(r"^E +(assert|AssertionError)\b", result.stdout, re.M), result.stdout
    assert f": in {mutant.check}\n" in result.stdout, result.stdout


@pytest.mark.slow
def test_without_a_mutation_the_named_tests_pass(copy):
    result = run(copy, *sorted({mutant.test for mutant in MUTANTS}))
    assert result.returncode == 0, result.stdout + result.stderr
