"""Suite `decode`: what speculation saves, at the cost of targets of many sizes.

A trained pair's target is embedded in larger ones of equal logits (`models.widen`), so
that the time is that of the larger target and the acceptance is real. Plain beam search
and its rivals decode the same users, interleaved.

A machine without the data libraries measures a pair that was packed elsewhere:

    python -m launch.benchmark --suite=decode --workdir=RUN --pack=FILE
    python -m atspeed_jax.benchmarks.decode --pair=FILE --json=F --shapes=110m,1b
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from atspeed_jax.benchmarks.decode_bench import Bench, Clock, OutOfTime
from atspeed_jax.benchmarks.decode_cells import (
    PAIR,
    Cell,
    DecodeSuite,
    SuiteError,
    check_suite,
    config_of,
    finished,
    identity,
    ways_of,
)
from atspeed_jax.benchmarks.decode_floor import Ceilings, floor_seconds, measure_ceilings
from atspeed_jax.benchmarks.decode_measure import measure_cell, tuned_setting
from atspeed_jax.benchmarks.decode_memory import fitting, parameters
from atspeed_jax.benchmarks.pair import Pair, read_pair
from atspeed_jax.models.widen import COST_NOTE
from atspeed_jax.reporting.tables import Table, as_text
from atspeed_jax.serving.settings import Setting
from atspeed_jax.utils import files
from atspeed_jax.utils.device_time import in_words
from atspeed_jax.utils.program_memory import forget_programs

Say = Callable[[str], None]
SHOWN = ("K", "batch", "prompt", "mode", "method", "target_calls_mean", "ms", "ms_p95", "ratio_to_plain")


def measure_decode(pair: Pair, suite: DecodeSuite, path: Path, say: Say, *, memory: float | None = None) -> list[dict]:
    """Measures every cell that fits, and writes the rows after each.

    A cell that `path` holds already is not measured again. It is known by its settings,
    the device, the code that is timed, and the pair.

    Args:
      pair, suite: what is measured.
      path: of the JSON file.
      say: called with a line.
      memory: bytes of the device; None for what the device says.

    Returns:
      The rows of all cells, those of an earlier run included.

    Raises:
      SuiteError: nothing fits, or `path` holds something else.
      WidenError: the pair's target does not fit into a shape.
    """
    check_suite(pair, suite)
    clock = Clock() if suite.seconds is None else Clock(time.perf_counter() + suite.seconds)
    rows = read_rows(path)
    cells, left_out = fitting(pair, suite, memory)
    for line in left_out:
        say(f"left out: {line}")
    ceilings = measure_ceilings(config_of(pair, suite, PAIR))
    say(
        f"{jax.devices()[0].device_kind}: {ceilings.flops / 1e9:.0f} GFLOP/s ({suite.dtype}), "
        f"{ceilings.bandwidth / 1e9:.1f} GB/s copied"
    )
    say(f"{len(cells)} cells, about {expected_seconds(pair, suite, cells, ceilings) / 60:.1f} minutes")
    trained = pair.decoders(pair.target, unrolled=False)
    try:
        for shape in dict.fromkeys(cell.shape for cell in cells):
            clock.check()
            began = time.perf_counter()
            config = config_of(pair, suite, shape)
            decoders = pair.decoders(config, unrolled=suite.unrolled)
            jax.block_until_ready(decoders.target_params)
            say(
                f"{shape}: target of {parameters(config) / 1e6:.1f} M, draft of {parameters(pair.draft) / 1e6:.2f} M "
                f"parameters, {suite.dtype}, made in {time.perf_counter() - began:.1f} s"
            )
            bench = Bench(pair, suite, decoders, trained, ceilings, clock, say)
            own = [cell for cell in cells if cell.shape == shape]
            for number in range(len(own)):
                rows = _measured(bench, own[number:], rows, path)
            forget_programs()
    except OutOfTime:
        say(f"the budget of {suite.seconds} s is used up: what is measured is in {path}; the same command goes on")
    return rows


def _measured(bench: Bench, cells: Sequence[Cell], rows: list[dict], path: Path) -> list[dict]:
    """Returns the rows with those of the first cell, which is measured if it is not
    there. Later cells of the shape tell what else to compile.
    """
    cell = cells[0]
    ways = ways_of(bench.pair, bench.suite, cell, bench.decoders)
    name = identity(bench.pair, bench.suite, cell, ways)
    if name in finished(rows):
        bench.say(f"{cell.title}: measured before")
        return rows
    bench.clock.check()
    if bench.suite.tune and not bench.suite.trees:
        ways = ways_of(bench.pair, bench.suite, cell, bench.decoders, tuned_setting(bench, cell))
    elif bench.suite.threads > 1:
        # The first cell is measured before others are compiled: time may run out.
        _compile_ahead(bench, cells if bench.ahead else cells[:1], rows)
    found, whole = measure_cell(bench, cell, ways)
    for row in found:
        bench.say(line_of(row))
    rows = [row for row in rows if row["cell"] != name]
    rows += [row | {"cell": name, "finished": whole} for row in found]
    files.write_json(path, files.jsonable(rows))
    return rows


def _compile_ahead(bench: Bench, cells: Sequence[Cell], rows: Sequence[dict]) -> None:
    """Compiles what some cells lack, several programs at once."""
    pair, suite, wanted = bench.pair, bench.suite, []
    for cell in cells:
        ways = ways_of(pair, suite, cell, bench.decoders)
        if identity(pair, suite, cell, ways) not in finished(rows):
            batch = pair.batches(cell.prompt, cell.batch, suite.users)[0]
            wanted += [(way, batch) for way in ways if way.mode == "strict" and way.method != "hf"]
    bench.compile_ahead(wanted)


def read_rows(path: Path) -> list[dict]:
    """Reads the rows of an earlier run; none without such a file.

    Raises:
      SuiteError: the file holds something else.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(rows, list) or any("cell" not in row for row in rows):
            raise ValueError("no list of rows of suite decode")
    except (ValueError, TypeError) as error:
        raise SuiteError(f"{path} is damaged or of another suite ({error}); delete it or name another file") from error
    return rows


def expected_seconds(pair: Pair, suite: DecodeSuite, cells: Sequence[Cell], ceilings: Ceilings) -> float:
    """Guesses how long the cells take: twice the floor of every run, and compilation."""
    total, levels = 0.0, pair.id_tokens.shape[1] - 1
    for cell in cells:
        config = config_of(pair, suite, cell.shape)
        programs = len(suite.methods) + 2 * len(suite.modes) + max(0, len(suite.trees) - 1)
        setting = Setting.beam_search(cell.beams, pair.decode.score_norm)
        floor, _ = floor_seconds(config, setting, (1,) * levels, cell.batch, cell.prompt + 1, ceilings)
        batches = max(3, -(-suite.users // cell.batch))
        total += programs * (5 + 0.8 * config.layers + 2 * floor * batches * (suite.repeats + 1))
    return total


def line_of(row: Mapping[str, Any]) -> str:
    """Says in one line what a row holds."""
    if row["ratio_to_plain"] is None:
        ratio = f"no ratio: {row['mismatched_users']} of {row['users']} lists differ"
    else:
        ratio = f"{row['ratio_to_plain']:.2f}x [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"
    lists = "" if row["equal"] is None or row["method"] == "plain" else f", same lists {row['same_list']:.2f}"
    near = f", near ties {row['near_tie_users']}" if row["near_tie_users"] else ""
    return (
        f"{row['shape']} K={row['K']} batch {row['batch']} prompt {row['prompt']} {row['mode']} {row['method']} "
        f"{row['settings']}: {row['target_calls_mean']:.3f} calls, {row['ms']:.3f} ms (p95 {row['ms_p95']:.3f}), "
        f"{ratio}, {row['floor_ratio']:.2f} times the floor{lists}{near}, compiled in {row['compile_s']:.1f} s"
        f"{'; ' + in_words(row['device_time']) if row['device_time'] else ''}"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as tables, one per shape, dtype and device."""
    parts: dict[tuple, list] = {}
    for row in rows:
        parts.setdefault((row["shape"], row["dtype"], row["device"], row["parameters"]), []).append(row)
    texts = []
    for (shape, dtype, device, count), own in parts.items():
        title = f"{shape}, {count / 1e6:.1f} M parameters, {dtype}, {device} ({COST_NOTE})"
        header = [*SHOWN, "interval", "equal", "floor_ratio"]
        lines = [[_text(row[name]) for name in SHOWN] + [_interval(row)] + _text_of(row) for row in own]
        texts.append(as_text(Table(title, header, lines)))
    return "\n".join(texts)


def _text_of(row: Mapping[str, Any]) -> list[str]:
    equal = {True: "yes", False: "NO", None: "in law"}[row["equal"]]
    return [equal, _text(row["floor_ratio"])]


def _interval(row: Mapping[str, Any]) -> str:
    return "refused" if row["ratio_low"] is None else f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}"


def _text(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line of this module."""
    command = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    command.add_argument("--pair", required=True, type=Path, help="file of a packed pair")
    command.add_argument("--json", required=True, type=Path, help="file of the rows; an interrupted suite goes on")
    command.add_argument("--shapes", default=PAIR)
    command.add_argument("--beams", default="1,5,20")
    command.add_argument("--batches", default="1,4")
    command.add_argument("--prompts", default="80")
    command.add_argument("--methods", default="plain,speculative,popularity", help="also hf, whole_prompt")
    command.add_argument("--modes", default="", help="drawing modes: relaxed,coupled")
    command.add_argument("--settings", default="", help="widths, as 1:8,8,8;128,64,64/192; else the tuner chooses")
    command.add_argument("--dtype", default="float32")
    command.add_argument("--stacked", action="store_true", help="stacked layers")
    command.add_argument("--users", default=20, type=int)
    command.add_argument("--repeats", default=3, type=int)
    command.add_argument("--seconds", default=None, type=float, help="budget of the suite")
    command.add_argument("--parts", action="store_true", help="time the model calls alone as well")
    command.add_argument("--noise", action="store_true", help="compare plain beam search with itself")
    command.add_argument("--trace", action="store_true", help="say where the device's time goes, by a trace")
    command.add_argument("--threads", default=1, type=int, help="programs that are compiled at once")
    return command


def suite_of(given: Mapping[str, Any]) -> DecodeSuite:
    """Makes the suite that flags describe.

    Args:
      given: values by name; lists are texts with commas between.

    Raises:
      SuiteError, ValueError: a value that cannot be used.
    """

    def numbers(name: str) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in _parts(given[name]))
        except ValueError:
            raise SuiteError(f"--{name}={given[name]}: expected whole numbers with commas between") from None

    lists = {name: _parts(given[name]) for name in ("shapes", "methods", "modes")}
    counts = {name: numbers(name) for name in ("beams", "batches", "prompts")}
    names = ("settings", "stacked", "dtype", "users", "repeats", "seconds", "noise", "parts", "trace", "threads")
    return DecodeSuite.of(**lists, **counts, **{name: given[name] for name in names})


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures a packed pair, as the command line says."""
    given = parser().parse_args(arguments)
    try:
        suite = suite_of(vars(given))
        files.check_writable("--json", given.json)
        rows = measure_decode(read_pair(given.pair), suite, given.json, _say)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    print(table(rows))


def _say(text: str) -> None:
    print(f"[decode] {text}", flush=True)


if __name__ == "__main__":
    main()
