"""Predicts the speed-up of speculation on chips that are not here.

The number of rounds is measured: a trained pair decodes validation users on this
machine. The time of a round is predicted, for a target of any size, by the chip's
roofline and, for a TPU, by its compiler.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from atspeed_jax.data.users import held_out_users
from atspeed_jax.decoding.base import DecodeError
from atspeed_jax.decoding.config import SearchConfig, Widths
from atspeed_jax.models.llama import LlamaConfig
from atspeed_jax.models.wide_shapes import widened_config
from atspeed_jax.planning.decode_passes import Pair, first_round, later_round, plain_search
from atspeed_jax.planning.estimate import Pass, product_time
from atspeed_jax.planning.rounds import DecodeTimes, Programs
from atspeed_jax.planning.tpu import SLICES, tpu_devices
from atspeed_jax.reporting.tables import ABSENT, Table, widths_label
from atspeed_jax.runs.trained import RunView
from atspeed_jax.serving.decode_users import decode_users
from atspeed_jax.serving.decoders import computed_head, first_logit
from atspeed_jax.serving.settings import Setting
from atspeed_jax.training.chips import Chip, chip_of, roofline
from atspeed_jax.utils.files import read_json, write_json
from atspeed_jax.utils.ranges import BatchSize, Beams, Range, Seed, Users, check_ranges

NOTE = """Target calls and rounds are measured: the run's pair decodes validation users here.
"roofline": each model call takes the larger of its operations and its bytes, at the chip's peak rates. "compiler": the
time that the TPU compiler's cost analysis gives plain beam search, round 1 and a later round, each compiled apart.
Neither knows the time to start a kernel, so both are shorter than a measured time. A target of another shape has the
cost of that shape and the acceptance of the run's pair.
"""
PREDICTED_BY = ("roofline", "compiler")
ONE = {"data": 1, "fsdp": 1, "tensor": 1}


@dataclasses.dataclass(frozen=True)
class SpeedupConfig:
    """What is predicted: every chip with every shape, K and batch size.

    Attributes:
      chips: names in `training.chips.CHIPS`.
      shapes: names in `models.wide_shapes.SHAPES`; "pair" is the run's target.
      beams: K.
      batches: users decoded at once.
      widths: choices of widths. For each prediction the roofline chooses among those
        that hold K.
      prompt: tokens of a prompt.
      head: how many of them all prompts share: their keys and values were read before.
      dtype: of both models.
      users: validation users who are decoded to count rounds.
      compiler: whether TPUs are compiled for.
      seed: of the choice of users.
    """

    chips: tuple[str, ...]
    shapes: tuple[str, ...]
    beams: tuple[Beams, ...]
    batches: tuple[BatchSize, ...]
    widths: tuple[Widths, ...]
    prompt: Annotated[int, Range(1, 65_536)]
    dtype: Literal["float32", "bfloat16"]
    users: Users
    compiler: bool
    head: Annotated[int, Range(0, 65_536)] = 0
    seed: Seed = 0

    def __post_init__(self):
        check_ranges(self)
        if self.head >= self.prompt:
            raise ValueError(f"head={self.head} with prompt={self.prompt}: expected fewer tokens than a prompt has")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a setting needs of the target, measured.

    Attributes:
      search: the setting, resolved.
      calls: mean target calls of a user.
      rounds: mean target calls of a batch.
    """

    search: SearchConfig
    calls: float
    rounds: float


def predict(run: RunView, config: SpeedupConfig, path: Path | None, say: Callable[[str], None]) -> list[dict]:
    """Predicts the time of plain and of speculative beam search.

    Args:
      run: a trained run.
      config: what is predicted.
      path: file of all rows, written after each row. What the compiler said in an
        earlier call is taken from the file. None for no file.
      say: gets lines about what is done.

    Returns:
      Rows, one per K, batch size, shape and chip. Names with _ms are milliseconds.
      "compiler_..." are None for a chip that was not compiled for.

    Raises:
      ChipError, TpuCompilerError, WidenError: a name is unknown, or the compiler is not
        installed. Raised before anything is decoded.
      DecodeError: no widths hold a K.
    """
    chips = {name: chip_of(name) for name in config.chips}
    models = {name: _target(run, name, config.dtype) for name in config.shapes}
    devices = {name: tpu_devices(name, 1)[0] for name in chips if config.compiler and name in SLICES}
    draft = dataclasses.replace(run.assets.draft.config, dtype=config.dtype)
    first = first_logit(run.assets.target.config, run.catalog.first_code, run.serve.decode.score_norm)
    known = read_json(path, "delete it", {"rows": list})["rows"] if path and path.is_file() else []
    rows: list[dict] = []
    for beams, batch in itertools.product(config.beams, config.batches):
        settings = list(_measured(run, config, beams, batch, say))
        for (shape, target), (name, chip) in itertools.product(models.items(), chips.items()):
            pair = Pair(*(computed_head(one, first) for one in (target, draft)))
            best, figures = _by_roofline(pair, chip, settings, config, batch)
            row = {"chip": name, "shape": shape, "K": beams, "batch": batch, "prompt": config.prompt}
            row |= {"head": config.head, "dtype": config.dtype, "widths": list(best.search.widths)}
            times = _known_times(known, row) if name in devices else None
            if times is None and name in devices:
                say(f"{name}, {shape}, K={beams}, batch {batch}: compiling")
                of_search = target, draft, best.search, run.assets.trie
                times = Programs(*of_search, batch, config.prompt, devices[name], chip, config.head, first).times()
            row |= {"target_calls": best.calls, "rounds": best.rounds} | figures
            rows.append(row | _figures("compiler", times, best.rounds))
            if path:
                others = [one for one in known if not any(_same(one, row) for row in rows)]
                write_json(path, {"note": NOTE, "rows": rows + others})
    return rows


def _target(run: RunView, shape: str, dtype: str) -> LlamaConfig:
    """Returns the config of the target of a shape."""
    small = dataclasses.replace(run.assets.target.config, dtype=dtype)
    return small if shape == "pair" else widened_config(small, shape)


def _measured(
    run: RunView, config: SpeedupConfig, beams: int, batch: int, say: Callable[[str], None]
) -> Iterator[Measured]:
    """Decodes validation users with all widths that hold K."""
    decoders, tree = run.decoders(run.draft_params), run.serve.decode
    shape = run.serve.evaluate.batch_shape(run.config.data.history)
    users = held_out_users(run.dataset, "valid").sample(config.users, config.seed)
    batches = users.batches(run.dataset, dataclasses.replace(shape, batch_size=batch))
    found, why = False, None
    for widths in config.widths:
        setting = Setting.strict("draft", beams, dataclasses.replace(tree, widths=widths))
        try:
            search = setting.search.resolve(decoders.prefixes[tree.score_norm])
        except DecodeError as error:
            why = error
            continue
        found = True
        say(f"K={beams}, batch {batch}, widths {widths_label(widths)}: {len(users.users)} users are decoded")
        decoded = decode_users(decoders.build(setting), batches, len(users.users))
        yield Measured(search, float(decoded.calls.mean()), decoded.batch_rounds / decoded.batches)
    if not found:
        raise DecodeError(f"K={beams}: none of the widths holds it; {why}")


def _by_roofline(
    pair: Pair, chip: Chip, settings: Sequence[Measured], config: SpeedupConfig, batch: int
) -> tuple[Measured, dict[str, Any]]:
    """Chooses the setting that the roofline finds fastest, and gives its figures."""
    length = len(settings[0].search.widths) + 1

    def times(search: SearchConfig) -> DecodeTimes:
        return DecodeTimes(
            least_seconds(plain_search(pair.target, search.beams, length, config.prompt, batch, config.head), chip),
            least_seconds(first_round(pair, search, config.prompt, batch, config.head), chip),
            least_seconds(later_round(pair, search, config.prompt, batch), chip),
        )

    best = min(settings, key=lambda one: times(one.search).speculative(one.rounds))
    return best, _figures("roofline", times(best.search), best.rounds)


def least_seconds(passes: Iterable[Pass], chip: Chip) -> float:
    """Adds up the rooflines of passes that run one after the other on one chip."""
    total = 0.0
    for one in passes:
        needs = one.needs(ONE)
        work = needs.flops * product_time([one], chip)
        total += roofline(chip, flops=work, hbm_bytes=needs.hbm_bytes, received=0.0).seconds
    return total


KEY = ("chip", "shape", "K", "batch", "prompt", "head", "dtype", "widths")  # fields that name a row
TIMES = ("plain_ms", "first_ms", "later_ms")


def _known_times(known: Sequence[dict], row: dict) -> DecodeTimes | None:
    """Finds what the compiler said of a row in an earlier call; None if it did not."""
    for one in known:
        if _same(one, row) and one["compiler_ms"] is not None:
            return DecodeTimes(*(one[f"compiler_{name}"] / 1e3 for name in TIMES))
    return None


def _same(one: dict, other: dict) -> bool:
    return all({"head": 0, **one}[name] == other[name] for name in KEY)  # older files know no head


def _figures(by: str, times: DecodeTimes | None, rounds: float) -> dict[str, Any]:
    """Returns milliseconds and the speed-up by one of the two predictions."""
    if times is None:
        return dict.fromkeys(f"{by}_{name}" for name in (*TIMES, "ms", "speedup"))
    total = times.speculative(rounds)
    parts = dict(zip(TIMES, times, strict=True)) | {"ms": total}
    return {f"{by}_{name}": 1e3 * value for name, value in parts.items()} | {f"{by}_speedup": times.plain / total}


def speedup_table(rows: Sequence[dict]) -> Table:
    """Makes the table of predictions, a row each."""
    columns = ("plain_ms", "ms", "speedup")
    header = ["chip", "target", "K", "batch", "widths", "calls of a user"]
    for by in PREDICTED_BY:
        header += [f"plain, ms, {by}", f"speculative, ms, {by}", f"predicted speed-up, {by}"]

    def text(value: float | None) -> str:
        return ABSENT if value is None else f"{value:.2f}"

    cells = []
    for row in rows:
        found = [text(row[f"{by}_{name}"]) for by in PREDICTED_BY for name in columns]
        setting = [str(row["K"]), str(row["batch"]), widths_label(row["widths"]), text(row["target_calls"])]
        cells.append([row["chip"], row["shape"], *setting, *found])
    return Table("Predicted, not measured", header, cells)
