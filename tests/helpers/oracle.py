"""What the decoders must return, said a second time: float64, a dict trie, Python sets, no cache, no slots, no batch.

Written from the description of the method, not from the package, and sharing nothing with it. A model here is a
function logits_of(tokens) -> float64 [V]: what it predicts after a whole token sequence.

`margin` of a result is the smallest non-zero difference of scores that decided anything: below it, rounding in float32
may decide otherwise. Exact ties are decided by the rule (higher score, then smaller code sequence) and leave the margin
alone.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np

LogitsOf = Callable[[tuple[int, ...]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Found:
    """items: at most K (tokens of the id, score), best first. levels: the K best prefixes of each level, best first."""

    items: list[tuple[tuple[int, ...], float]]
    levels: list[list[tuple[tuple[int, ...], float]]]
    margin: float


@dataclasses.dataclass(frozen=True)
class Walk:
    """What strict speculation needs: target calls, and of round 1 per level 1..L-1 (reached, accepted, coverage)."""

    calls: int
    round_one: list[tuple[bool, bool, float]]
    margin: float


def dict_trie(ids: Iterable[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Prefix -> sorted tokens that may follow it."""
    trie: dict[tuple[int, ...], set[int]] = {}
    for one in ids:
        for level in range(len(one)):
            trie.setdefault(tuple(one[:level]), set()).add(one[level])
    return {prefix: sorted(tokens) for prefix, tokens in trie.items()}


def log_sum_exp(values) -> float:
    """Of a few floats; exact where one of them is larger than the others by 60 or more."""
    top = max(values)
    return top + math.log(math.fsum(math.exp(v - top) for v in values))


def child_scores(trie, prompt, prefix, logits_of: LogitsOf, norm: str) -> dict[int, float]:
    """Log-probability of each token that may follow `prefix`: over the whole vocabulary, or over the allowed ones."""
    logits = logits_of((*prompt, *prefix))
    allowed = trie[prefix]
    total = log_sum_exp(logits if norm == "vocab" else [logits[t] for t in allowed])
    return {t: float(logits[t]) - total for t in allowed}


def cut(candidates: list[tuple[tuple[int, ...], float]], count: int):
    """The `count` best (prefix, score), best first, and the margin of the cut alone."""
    ranked = sorted(candidates, key=lambda c: (-c[1], c[0]))
    return ranked[:count], _gaps(ranked[count - 1 : count + 1])


def _gaps(ranked) -> float:
    gaps = [a[1] - b[1] for a, b in itertools.pairwise(ranked)]
    return min((g for g in gaps if g > 0), default=math.inf)


def expand(trie, prompt, beams, logits_of, norm):
    """All children of (prefix, score) beams with their cumulative scores."""
    return [
        ((*prefix, t), score + s)
        for prefix, score in beams
        for t, s in child_scores(trie, prompt, prefix, logits_of, norm).items()
    ]


def beam_search(ids, prompt, logits_of: LogitsOf, beams: int, norm: str) -> Found:
    """The `beams` best prefixes level by level; fewer where there are fewer."""
    trie = dict_trie(ids)
    kept, levels, margin = [((), 0.0)], [], math.inf
    for _ in range(len(next(iter(ids)))):
        kept, gap = cut(expand(trie, prompt, kept, logits_of, norm), beams)
        levels.append(kept)
        margin = min(margin, gap)
    return Found(kept, levels, min(margin, _gaps(kept)))


def every_item(ids, prompt, logits_of: LogitsOf, norm: str) -> list[tuple[tuple[int, ...], float]]:
    """All items by brute force, best first."""
    trie = dict_trie(ids)
    scored = []
    for one in ids:
        parts = [child_scores(trie, prompt, one[:level], logits_of, norm)[one[level]] for level in range(len(one))]
        scored.append((tuple(one), sum(parts)))
    return sorted(scored, key=lambda c: (-c[1], c[0]))


def finished(trie, prefix, norm: str) -> bool:
    """Under "trie" norm: only one item is left below the prefix, so there is nothing to ask a model."""
    while prefix in trie and len(trie[prefix]) == 1:
        prefix = (*prefix, *trie[prefix])
    return norm == "trie" and prefix not in trie


def plain_calls(ids, found: Found, norm: str) -> int:
    """Calls of beam search: the prompt's, and one per level with a beam that is not finished."""
    trie = dict_trie(ids)
    return 1 + sum(not all(finished(trie, p, norm) for p, _ in level) for level in found.levels[:-1])


def draft(trie, prompt, settled, at: int, propose: Callable, beams: int, widths, gamma: int, norm: str, budget=None):
    """({level: prefixes drafted there}, margin) of a round that starts from the settled (prefix, score) of level `at`.

    propose(trie, prompt, prefix) -> {token: draft log-probability}. Each of the next `gamma` levels l < L gets the
    widths[l-1] best prefixes, of those not finished, among the children of those drafted at the level before; of all
    these together only `budget` are in the tree: those of the largest lead. The lead of a prefix is its score less that
    of rank 3K/2 of its level (or of the last), divided by the levels from `at`; it is at most the lead of its parent.
    """
    tree, margin, leads = {at: {p for p, _ in settled}}, math.inf, {}
    drafted = [(p, s) for p, s in settled if not finished(trie, p, norm)]
    for level in range(at + 1, min(at + gamma, len(widths)) + 1):
        candidates = [((*p, t), s + d) for p, s in drafted for t, d in propose(trie, prompt, p).items()]
        candidates = [(p, s) for p, s in candidates if not finished(trie, p, norm)]
        drafted, gap = cut(candidates, widths[level - 1])
        margin, tree[level] = min(margin, gap), {p for p, _ in drafted}
        if drafted:
            threshold = drafted[: beams + beams // 2][-1][1]
            leads |= {p: min((s - threshold) / (level - at), leads.get(p[:-1], math.inf)) for p, s in drafted}
    if budget is not None:
        ranked = sorted(leads.items(), key=lambda c: (-c[1], len(c[0]), c[0]))
        margin, read = min(margin, _gaps(ranked[budget - 1 : budget + 1])), {p for p, _ in ranked[:budget]}
        tree = {level: prefixes if level == at else prefixes & read for level, prefixes in tree.items()}
    return tree, margin


def strict_walk(
    ids, prompt, target: LogitsOf, propose: Callable, beams: int, widths, gamma: int, norm: str, budget=None
) -> Walk:
    """Rounds of strict speculation on sets of prefixes.

    A round drafts from the beams settled so far (`draft`); then the walk settles levels for as long as the target's
    best prefixes are all among the drafted ones.
    """
    trie, length = dict_trie(ids), len(next(iter(ids)))
    truth = beam_search(ids, prompt, target, beams, norm)
    at, calls, round_one, margin = 0, 0, [], truth.margin
    while at < length:
        calls += 1
        settled = truth.levels[at - 1] if at else [((), 0.0)]
        tree, gap = draft(trie, prompt, settled, at, propose, beams, widths, gamma, norm, budget)
        margin, drafts = min(margin, gap), True
        at += 1
        while at < length:
            found = {p for p, _ in truth.levels[at - 1] if not finished(trie, p, norm)}
            share = (beams - len(found - tree.get(at, set()))) / beams  # missing and finished ones count as drafted
            if calls == 1 and drafts:  # levels behind one that was not drafted at all are not looked at
                round_one.append((True, share == 1, share))
                drafts = at in tree
            if share < 1:
                break
            at += 1
    round_one += [(False, False, math.nan)] * (length - 1 - len(round_one))
    return Walk(calls, round_one, margin)


@dataclasses.dataclass(frozen=True)
class Tolerated:
    """items as `Found.items`; given_up: share of probability lost on the way; calls of the target."""

    items: list[tuple[tuple[int, ...], float]]
    given_up: float
    calls: int
    margin: float


def places(ids, kept, beams: int) -> int:
    """Places of the list that can be filled from the (prefix, score) beams `kept`."""
    return min(beams, sum(item[: len(prefix)] == prefix for item in ids for prefix, _ in kept))


def tolerant_search(
    ids, prompt, target: LogitsOf, propose: Callable, beams: int, widths, gamma: int, norm: str, tolerance: float
) -> Tolerated:
    """Strict speculation that also accepts a level that was drafted in this round, whose beams not drafted have at most
    `tolerance` of the beams' probability, and goes on without them if it loses no place of the list by that."""
    trie, length = dict_trie(ids), len(next(iter(ids)))
    settled, at, calls, kept, margin = [((), 0.0)], 0, 0, 1.0, math.inf
    while at < length:
        calls += 1
        tree, gap = draft(trie, prompt, settled, at, propose, beams, widths, gamma, norm)
        margin = min(margin, gap)
        walking = settled
        while walking:
            settled, gap = cut(expand(trie, prompt, walking, target, norm), beams)
            at, margin, walking = at + 1, min(margin, gap), []
            if at == length:
                break
            drafted = tree.get(at, set())
            present = [beam for beam in settled if beam[0] in drafted or finished(trie, beam[0], norm)]
            if len(present) == len(settled):
                walking = settled
            elif drafted and places(ids, present, beams) == places(ids, settled, beams):
                top = settled[0][1]
                share = 1 - math.fsum(math.exp(s - top) for _, s in present) / math.fsum(
                    math.exp(s - top) for _, s in settled
                )
                margin = min(margin, abs(share - tolerance))
                if share <= tolerance:
                    kept, walking = kept * (1 - share), present
    return Tolerated(settled, 1 - kept, calls, min(margin, _gaps(settled)))


def sampler_law(ids, prompt, logits_of: LogitsOf, beams: int, norm: str) -> dict[frozenset, float]:
    """Probability of each set of items under the target's own sampler: at every level `beams` prefixes, drawn without
    replacement from the softmax of their cumulative scores."""
    trie, law = dict_trie(ids), {frozenset([((), 0.0)]): 1.0}
    for _ in range(len(next(iter(ids)))):
        after: dict[frozenset, float] = {}
        for kept, chance in law.items():
            candidates = expand(trie, prompt, sorted(kept), logits_of, norm)
            total = log_sum_exp([score for _, score in candidates])
            weights = {candidate: math.exp(candidate[1] - total) for candidate in candidates}
            for drawn, share in draws_without_replacement(weights, beams).items():
                after[frozenset(drawn)] = after.get(frozenset(drawn), 0.0) + chance * share
        law = after
    merged: dict[frozenset, float] = {}
    for kept, chance in law.items():
        items = frozenset(prefix for prefix, _ in kept)
        merged[items] = merged.get(items, 0.0) + chance
    return merged


def items_law(ids, prompt, logits_of: LogitsOf, count: int) -> dict[tuple, float]:
    """Probability of each sequence of `count` items drawn without replacement from the model over the trie."""
    weights = {item: math.exp(score) for item, score in every_item(ids, prompt, logits_of, "trie")}
    return draws_without_replacement(weights, count)


def draws_without_replacement(weights: dict, count: int) -> dict[tuple, float]:
    """Probability of each sequence of min(count, len(weights)) draws."""
    law = {}
    for sequence in itertools.permutations(weights, min(count, len(weights))):
        left, chance = math.fsum(weights.values()), 1.0
        for drawn in sequence:
            chance *= weights[drawn] / left
            left -= weights[drawn]
        law[sequence] = chance
    return law


def stochastic_search(ids, prompt, logits_of: LogitsOf, beams: int, noise_of: Callable) -> Found:
    """Stochastic beam search with the Gumbel noise noise_of(prefix): (items with their perturbed scores, levels,
    margin). Kool et al. 2019, algorithm 1, by its formula as it stands."""
    trie, kept, levels, margin = dict_trie(ids), [((), 0.0, 0.0)], [], math.inf
    for _ in range(len(next(iter(ids)))):
        found = []
        for prefix, score, own in kept:
            scores = child_scores(trie, prompt, prefix, logits_of, "trie")
            free = {t: score + s + noise_of((*prefix, t)) for t, s in scores.items()}
            top = max(free.values())
            for token, value in free.items():
                inside = math.exp(-own) - math.exp(-top) + math.exp(-value)
                found.append(((*prefix, token), score + scores[token], -math.log(inside)))
        ranked = sorted(found, key=lambda c: (-c[2], c[0]))
        gaps = [a[2] - b[2] for a, b in itertools.pairwise(ranked)]
        kept, margin = ranked[:beams], min([margin, *gaps])
        levels.append([(prefix, perturbed) for prefix, _, perturbed in kept])
    return Found([(prefix, score) for prefix, score, _ in kept], levels, margin)
