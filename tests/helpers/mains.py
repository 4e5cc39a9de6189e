"""Runs mains as a user does, as forked children of one process, since importing is most of their time.

`python mains.py CASES`, CASES a JSON list of [module, arguments, pattern]: a child runs `python -m module arguments`,
until it kills itself with SIGKILL as soon as something matches the glob pattern ("" never kills). Prints a JSON list of
{"code": exit code or minus the signal, "out": standard output, "err": standard error, "compiled": programs that were
asked for, and how many of them came from the persistent cache; None of one that was killed}.
"""

import atexit
import contextlib
import gc
import glob
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
SMALL = "tests/helpers/small.py"
IS_MAIN = 'if __name__ == "__main__":'
ALL = sorted(path.stem for path in (ROOT / "launch").glob("*.py") if f"\n{IS_MAIN}" in path.read_text(encoding="utf-8"))
COUNTED = {
    "/jax/compilation_cache/compile_requests_use_cache": "asked",
    "/jax/compilation_cache/cache_hits": "loaded",
}
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # see `compilation.compile_quickly`


def run_mains(cases, environment: dict[str, str]) -> list[SimpleNamespace]:
    """(code, out, err, compiled) of each case (module below launch/, workdir, config, further arguments, pattern).

    A workdir or config of None is not given. The cases keep their compiled programs in one temporary directory.
    """
    rows = []
    for name, workdir, config, more, pattern in cases:
        given = {"workdir": workdir, "config": config}
        flags = [f"--{flag}={value}" for flag, value in given.items() if value is not None]
        rows.append([f"launch.{name}", [*flags, *more], pattern])
    own = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    command = [sys.executable, __file__, json.dumps(rows)]
    with tempfile.TemporaryDirectory() as cache:
        own |= {"JAX_ENABLE_COMPILATION_CACHE": "1", "JAX_COMPILATION_CACHE_DIR": cache}
        done = subprocess.run(command, cwd=ROOT, env=os.environ | own | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [SimpleNamespace(**result) for result in json.loads(done.stdout.splitlines()[-1])]


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
    """The rest of this process's life is that of the main; how it ends is left to the interpreter."""
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    if pattern:
        threading.Thread(target=_watch, args=(pattern,), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


def main():
    import launch.stage  # noqa: F401 (what all mains import; none of it starts a thread)

    gc.freeze()  # or each child would spend a second, as it ends, on collecting what it was forked with
    results = []
    for module, arguments, pattern in json.loads(sys.argv[1]):
        with contextlib.ExitStack() as stack:
            out, err, compiled = (stack.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            sys.stdout.flush()
            child = os.fork()  # before JAX starts any thread
            if child == 0:
                _count(compiled)
                _become(module, arguments, pattern, out, err)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = []
            for file in (out, err, compiled):
                file.seek(0)
                texts.append(file.read())
        results.append({"code": code, "out": texts[0], "err": texts[1], "compiled": json.loads(texts[2] or "null")})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
