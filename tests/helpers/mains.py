"""Runs mains as a user does, as forked children of one process, since importing is most of their time.

`python mains.py` reads lines of JSON: a directory for compiled programs, and a list of [module, arguments, pattern].
For each of the list a child runs `python -m module arguments`, until it kills itself with SIGKILL as soon as something
matches the glob pattern ("" never kills). The answer to a line is a JSON list of {"code": exit code or minus the
signal, "out": standard output, "err": standard error, "compiled": programs that were asked for, and how many of them
came from the persistent cache; None of one that was killed}.
"""

import atexit
import contextlib
import functools
import gc
import glob
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SMALL = "tests/helpers/small.py"
IS_MAIN = 'if __name__ == "__main__":'
ALL = sorted(path.stem for path in (ROOT / "launch").glob("*.py") if f"\n{IS_MAIN}" in path.read_text(encoding="utf-8"))
PROGRAMS = "JAX_COMPILATION_CACHE_DIR"
COUNTED = {
    "/jax/compilation_cache/compile_requests_use_cache": "asked",
    "/jax/compilation_cache/cache_hits": "loaded",
}


def run_mains(cases, environment: Mapping[str, str] = MappingProxyType({})) -> list[SimpleNamespace]:
    """(code, out, err, compiled) of each case (module below launch/, workdir, config, further arguments, pattern).

    A workdir or config of None is not given. All keep their compiled programs in one directory; those of a call in
    which something is killed, in another one.
    """
    rows = []
    for name, workdir, config, more, pattern in cases:
        given = {"workdir": workdir, "config": config}
        flags = [f"--{flag}={value}" for flag, value in given.items() if value is not None]
        rows.append([f"launch.{name}", [*flags, *more], pattern])
    settings = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    settings |= {"JAX_ENABLE_COMPILATION_CACHE": "1"}
    ambient = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    with tempfile.TemporaryDirectory() as torn:
        # One that is killed may leave half a program, which those of later calls would complain of.
        programs = torn if any(pattern for *_, pattern in rows) else _programs()
        results = _ask(rows, ambient | settings | environment, environment.get(PROGRAMS, programs))
    return [SimpleNamespace(**result) for result in results]


@functools.cache
def _programs() -> str:
    directory = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


class _Server(NamedTuple):
    """A process that runs mains."""

    environment: dict[str, str]
    process: subprocess.Popen


_serving: list[_Server] = []  # none or one: most calls have the same environment


def _ask(rows: list, environment: dict[str, str], programs: str) -> list[dict]:
    if not _serving or _serving[0].environment != environment:
        _end()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([sys.executable, __file__], cwd=ROOT, env=environment, **pipes)
        _serving.append(_Server(environment, process))
    server = _serving[0]
    server.process.stdin.write(json.dumps([programs, rows]) + "\n")
    server.process.stdin.flush()
    line = server.process.stdout.readline()
    if not line:
        _end()
    assert line, "the process that runs mains has ended: see its standard error"
    return json.loads(line)


@atexit.register
def _end():
    while _serving:
        _serving.pop().process.communicate()  # closes its standard input, and waits


def _watch(pattern):
    while not glob.glob(pattern, include_hidden=True):  # noqa: PTH207 (the pattern is absolute)
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.SIGKILL)


def _count(file):
    """Writes at the end of this process what JAX has asked of its compiler."""
    import jax

    counts, place = dict.fromkeys(COUNTED.values(), 0), os.dup(file.fileno())  # the file itself is closed by then

    def note(event, **_):
        if event in COUNTED:
            counts[COUNTED[event]] += 1

    jax.monitoring.register_event_listener(note)
    atexit.register(lambda: os.write(place, json.dumps(counts).encode()))


def _become(module, arguments, pattern, out, err):
    """The rest of this process's life is that of the main; how it ends is left to the interpreter.

    A main that ends before JAX has looked for devices ends at once: what it was forked with takes longest to free.
    """
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    if pattern:
        threading.Thread(target=_watch, args=(pattern,), daemon=True).start()
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        sys.exit()
    except SystemExit as stop:
        import jax

        if jax._src.xla_bridge.backends_are_initialized():
            raise
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1 if isinstance(stop.code, str) else stop.code or 0)


def _ended(module, arguments, pattern) -> dict:
    with contextlib.ExitStack() as stack:
        out, err, compiled = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        child = os.fork()  # before JAX starts any thread
        if child == 0:
            _count(compiled)
            _become(module, arguments, pattern, out, err)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = []
        for file in (out, err, compiled):
            file.seek(0)
            texts.append(file.read())
    return {"code": code, "out": texts[0], "err": texts[1], "compiled": json.loads(texts[2] or "null")}


def main():
    import launch.stage  # noqa: F401 (what all mains import; none of it starts a thread)

    gc.freeze()  # or each child would spend a second, as it ends, on collecting what it was forked with
    for line in sys.stdin:  # no block with something to leave at its end: each child would leave it too
        os.environ[PROGRAMS], cases = json.loads(line)
        print(json.dumps([_ended(*case) for case in cases]), flush=True)


if __name__ == "__main__":
    main()
