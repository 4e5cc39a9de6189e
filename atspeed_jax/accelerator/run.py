"""Measures everything that needs an accelerator, unattended, in a few minutes.

    python -m atspeed_jax.accelerator.run --pair=FILE --out=DIR --minutes=8

Needs a packed pair (`python -m launch.benchmark --suite=decode --workdir=RUN
--pack=FILE`), and neither a network nor the data libraries. Each part runs in a process
with a time limit. A part that fails is named, and the rest goes on. DIR holds the rows
and a report after each part; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from atspeed_jax.accelerator.parts import Part, Plan, names, parts_of, run_part
from atspeed_jax.accelerator.report import report
from atspeed_jax.benchmarks.decode_cells import SuiteError
from atspeed_jax.benchmarks.pair import read_pair
from atspeed_jax.utils import files

STATES, REPORT = "parts.json", "report.txt"
NOT_WHOLE = 75  # exit code of a part that ran out of time, as that of a stopped main
LEAST_S = 45.0  # with fewer seconds left no part is begun
DONE, FAILED, OUT_OF_TIME = "done", "failed", "out of time"

Say = Callable[[str], None]


def run_all(parts: Sequence[Part], pair: Path, out: Path, minutes: float, start: Callable, say: Say) -> dict[str, dict]:
    """Runs the parts that are not done, and writes states and report after each.

    Args:
      parts: in order.
      pair: file of the pair.
      out: directory of the results.
      minutes: for all parts together.
      start: (part with its seconds, say) -> (exit code, None if it was ended; its last
        line).
      say: called with a line.

    Returns:
      name of a part -> "state", "seconds", "error" and "identity".
    """
    end, path = time.perf_counter() + 60 * minutes, out / STATES
    states = files.read_json(path, "delete it, and what it names is measured again") if path.exists() else {}
    for part in parts:
        identity, left = part.identity(pair), end - time.perf_counter()
        before = states.get(part.name, {})
        if before.get("state") == DONE and before.get("identity") == identity:
            say(f"{part.name}: measured before")
            continue
        if left < LEAST_S:
            states[part.name] = _state(OUT_OF_TIME, 0.0, "not begun", identity)
            continue
        limited, began = dataclasses.replace(part, seconds=min(part.seconds, left)), time.perf_counter()
        say(f"{part.name}: at most {limited.seconds:.0f} s")
        code, last = start(limited, say)
        state = {0: DONE, NOT_WHOLE: OUT_OF_TIME, None: OUT_OF_TIME}.get(code, FAILED)
        error = "" if state == DONE else "ended" if code is None else last
        states[part.name] = _state(state, time.perf_counter() - began, error, identity)
        say(f"{part.name}: {state}{': ' + error if error else ''}")
        _keep(states, out)
    _keep(states, out)
    return states


def _keep(states: dict[str, dict], out: Path) -> None:
    """Writes states and report.

    Not by `files.write_text`, which asks JAX for the number of this process: that would
    take the device from the parts.
    """
    for name, text in ((STATES, json.dumps(states, indent=2)), (REPORT, report(states, out))):
        partial = out / f".{name}.partial"
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(out / name)


def _state(state: str, seconds: float, error: str, identity: str) -> dict:
    return {"state": state, "seconds": round(seconds, 1), "error": error, "identity": identity}


def limited(command: Sequence[str], seconds: float, say: Say) -> tuple[int | None, str]:
    """Runs a command, and ends it after `seconds`.

    Args:
      command: the program and its arguments.
      seconds: the limit.
      say: called with each line that the command prints.

    Returns:
      (exit code, None if the command was ended; the last line that was not empty).
    """
    late = threading.Event()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")

    def end() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, end)
    timer.start()
    last: deque[str] = deque(maxlen=1)
    try:
        assert process.stdout is not None, "it is a pipe"
        with process.stdout:
            for line in process.stdout:
                say(line.rstrip("\n"))
                last.extend([line.strip()] if line.strip() else [])
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
    return None if late.is_set() else code, last[0] if last else f"exit code {code}"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    command.add_argument("--pair", required=True, type=Path, help="file of a packed pair")
    command.add_argument("--out", required=True, type=Path, help="directory of the results")
    command.add_argument("--minutes", default=8.0, type=float, help="for all parts together")
    command.add_argument("--only", default="", help="parts whose name contains this")
    command.add_argument("--part", default=None, help="one part, in this process")
    command.add_argument("--seconds", default=None, type=float, help="of --part")
    for field in dataclasses.fields(Plan):
        default = ",".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
        command.add_argument(f"--{field.name}", default=str(default))
    return command


def plan_of(given: dict[str, str]) -> Plan:
    """Makes the plan that flags describe.

    Raises:
      SuiteError, ValueError: a value that cannot be used.
    """
    values = {}
    for field in dataclasses.fields(Plan):
        text, default = given[field.name], field.default
        try:
            if isinstance(default, tuple):
                kind = type(default[0])
                values[field.name] = tuple(kind(part) for part in text.split(",") if part)
            elif isinstance(default, bool):
                values[field.name] = {"True": True, "False": False}[text]
            else:
                values[field.name] = type(default)(text)
        except (KeyError, ValueError):
            raise SuiteError(f"--{field.name}={text}: expected a value such as {default}") from None
    return Plan(**values)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what the command line says.

    Raises:
      SystemExit: with a message, the input cannot be used; with 75, a part ran out of
        time; with 1, a part failed.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    given = parser().parse_args(arguments)
    try:
        pair = read_pair(given.pair)
        parts = parts_of(plan_of(vars(given)), pair.id_tokens.shape[1])
        if given.part is not None:
            (part,) = [part for part in parts if part.name == given.part]
            part = dataclasses.replace(part, seconds=given.seconds or part.seconds)
            raise SystemExit(0 if run_part(part, pair, given.out, _say) else NOT_WHOLE)
        chosen = [part for part in parts if given.only in part.name]
        if not chosen:
            raise SuiteError(f"--only={given.only}: no part has it in its name; expected one of {names(parts)}")
        files.check_writable("--out", given.out / STATES)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error

    def start(part: Part, say: Say) -> tuple[int | None, str]:
        alone = [*arguments, f"--part={part.name}", f"--seconds={part.seconds}"]
        return limited([sys.executable, "-m", "atspeed_jax.accelerator.run", *alone], part.seconds, say)

    states = run_all(chosen, given.pair, given.out, given.minutes, start, _say)
    print((given.out / REPORT).read_text(encoding="utf-8"))
    ended = [states[part.name]["state"] for part in chosen]
    raise SystemExit(1 if FAILED in ended else NOT_WHOLE if OUT_OF_TIME in ended else 0)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
