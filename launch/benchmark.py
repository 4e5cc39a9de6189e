"""Benchmarks of single parts, printed and written as JSON.

python -m launch.benchmark --suite=trie --json=trie.json [--sizes=10000,100000,1000000,10000000]
python -m launch.benchmark --suite=overhead --json=overhead.json --config=configs/lcrec_small.py --workdir=DIR
python -m launch.benchmark --suite=peers --json=peers.json [--models=4M,25M,110M]   # or --suite=lora

trie: every size is measured in a process of its own, so that its peak memory is its own. overhead: of a trained run,
every mode on validation users, one at a time. peers, lora: Hugging Face `generate` and PEFT beside ours.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from absl import flags

from atspeed_jax import files
from atspeed_jax.evaluation.overhead_benchmark import overhead_of_modes
from atspeed_jax.evaluation.tables import Table, plain
from atspeed_jax.evaluation.trie_benchmark import TrieBenchmark, measure
from launch.peers import peers_rows
from launch.peers_lora import lora_rows
from launch.stage import open_run, start

_SUITE = flags.DEFINE_enum("suite", None, ["trie", "overhead", "peers", "lora"], "What is measured.")
_JSON = flags.DEFINE_string("json", None, "File to write the rows to.")
_SIZES = flags.DEFINE_list("sizes", ["10000", "100000", "1000000", "10000000"], "Items of each trie.")
_CODES = flags.DEFINE_integer("codes", 2048, "Codes per level.", lower_bound=2)
_BEAMS = flags.DEFINE_integer("beams", 20, "K of the overhead suite.", lower_bound=1)
_USERS = flags.DEFINE_integer("users", 100, "Validation users of the overhead suite.", lower_bound=1)


def trie_rows(_: Path) -> list[dict]:
    config, sizes = TrieBenchmark(codes=_CODES.value), [int(size) for size in _SIZES.value]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as fresh:
        return [fresh.submit(measure, config, items).result() for items in sizes]


def overhead_rows(_: Path) -> list[dict]:
    for name in ("config", "workdir"):
        if not flags.FLAGS[name].present:
            raise ValueError(f"--suite=overhead measures a trained run: give --{name}")
    run = open_run()
    c = run.config
    shared = {"history": c.data.history, "beams": _BEAMS.value, "users": _USERS.value}
    return overhead_of_modes(run.decoders(run.draft_params), run.dataset, c.decode, c.evaluate, **shared)


def benchmark() -> None:
    path = Path(_JSON.value)
    if not path.parent.is_dir():
        raise ValueError(f"--json={path}: there is no directory {path.parent}; make it first")
    rows = {"trie": trie_rows, "overhead": overhead_rows, "peers": peers_rows, "lora": lora_rows}[_SUITE.value](path)
    files.write_json(path, rows)
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    print(plain(Table(_SUITE.value.title(), list(rows[0]), cells)))


if __name__ == "__main__":
    start(benchmark, required=("suite", "json"))
