"""Runs mains as a user does, as forked children of one process, since importing is most of their time.

`python mains.py CASES`, CASES a JSON list of [module, arguments, pattern]: a child runs `python -m module arguments`,
until it kills itself with SIGKILL as soon as something matches the glob pattern ("" never kills). Prints a JSON list of
{"code": exit code or minus the signal, "out": standard output, "err": standard error}.
"""

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
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # see `compilation.compile_quickly`


def run_mains(cases, environment: dict[str, str]) -> list[SimpleNamespace]:
    """(code, out, err) of each case (module below launch/, workdir, config, further arguments, pattern).

    A workdir or config of None is not given.
    """
    rows = []
    for name, workdir, config, more, pattern in cases:
        given = {"workdir": workdir, "config": config}
        flags = [f"--{flag}={value}" for flag, value in given.items() if value is not None]
        rows.append([f"launch.{name}", [*flags, *more], pattern])
    paths = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(rows)],
        cwd=ROOT,
        env=os.environ | paths | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [SimpleNamespace(**result) for result in json.loads(done.stdout.splitlines()[-1])]


def _watch(pattern):
    while not glob.glob(pattern, include_hidden=True):
        time.sleep(0.0005)
    os.kill(os.getpid(), signal.SIGKILL)


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
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            sys.stdout.flush()
            child = os.fork()  # before JAX starts any thread
            if child == 0:
                _become(module, arguments, pattern, out, err)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read())
        results.append({"code": code, "out": texts[0], "err": texts[1]})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
