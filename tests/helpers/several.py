"""One of several processes: trains the toy, and asks what every process sees. Prints a JSON object.

python several.py DIRECTORY PORT COUNT NUMBER [SETTINGS [OPTIONS]]

SETTINGS: of the toy, JSON. OPTIONS: {"pause": seconds before each batch, "term": which sends
itself SIGTERM before the first}.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from atspeed_jax.training import sharding
from atspeed_jax.training.preemption import RESTART, Preempted
from atspeed_jax.utils import distributed, files
from atspeed_jax.utils.distributed import ProcessError
from devices import whole_mesh
from tests.training import toy


def refused(check, *arguments) -> str | None:
    try:
        check(*arguments)
    except ProcessError as error:
        return str(error)
    return None


def main():
    directory, port, count, number = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    directory.mkdir(exist_ok=True)
    distributed.join(f"localhost:{port}", count, number)
    mesh = whole_mesh()
    rows = np.arange(2.0 * mesh.size).reshape(-1, 2)
    given = {"rows": rows, "keys": jax.random.split(jax.random.key(3), mesh.size)}
    placed = distributed.place(given, sharding.sharding(mesh, "batch"))
    doubled = jax.jit(lambda x: 2 * x["rows"] + 0 * jax.random.bits(x["keys"][0], (), jnp.uint8))(placed)
    files.write_text(directory / f"written_by_{number}.txt", "only the first process writes")
    looked = []

    def look(found: bool) -> bool:
        looked.append(True)
        return found

    report = {
        "devices": [jax.device_count(), jax.local_device_count()],
        "own_rows": len(placed["rows"].addressable_shards) * placed["rows"].addressable_shards[0].data.shape[0],
        "gathered": distributed.gather(doubled).tolist(),
        "same": refused(distributed.check_same, "a", "config"),
        "another": refused(distributed.check_same, "a" if number < count - 1 else "b", "config"),
        "shared": refused(distributed.check_shared, directory),
        "agreed": [distributed.agreed(lambda: look(number == 0)), distributed.agreed(lambda: look(number == 1))],
        "not_shared": refused(distributed.check_shared, directory / str(number)),
    }
    report["looked"] = looked
    settings, options = (json.loads(text) for text in (*sys.argv[5:], "{}", "{}")[:2])
    settings = {"learning_rate": 0.01, "steps": 10, "eval_every": 5} | settings
    asked = []

    class OwnRows(toy.ToyBatches):
        def __getitem__(self, step):
            asked.append(step)
            time.sleep(options.get("pause", 0))
            return {name: x[sharding.own_rows(mesh, toy.ROWS)] for name, x in super().__getitem__(step).items()}

    if options.get("term") == number:
        os.kill(os.getpid(), signal.SIGTERM)
    try:
        params = toy.fit_toy(directory / "run", toy.toy_config(**settings), batches=OwnRows())
    except Preempted as stop:
        print(stop, file=sys.stderr)
        raise SystemExit(RESTART) from stop
    report["first_batch"] = asked[0]
    report["params"] = jax.tree.map(np.ndarray.tolist, distributed.gather(params))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
