"""Benchmarks of single parts, printed and written as JSON.

python -m launch.benchmark --suite=trie --json=trie.json [--sizes=10000,100000,1000000,10000000]

Every size is measured in a process of its own, so that its peak memory is its own.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from absl import flags

from atspeed_jax import files
from atspeed_jax.evaluation.tables import Table, plain
from atspeed_jax.evaluation.trie_benchmark import TrieBenchmark, measure
from launch.stage import start

_SUITE = flags.DEFINE_enum("suite", None, ["trie"], "What is measured.")
_JSON = flags.DEFINE_string("json", None, "File to write the rows to.")
_SIZES = flags.DEFINE_list("sizes", ["10000", "100000", "1000000", "10000000"], "Items of each trie.")
_CODES = flags.DEFINE_integer("codes", 2048, "Codes per level.", lower_bound=2)


def benchmark() -> None:
    path, config = Path(_JSON.value), TrieBenchmark(codes=_CODES.value)
    if not path.parent.is_dir():
        raise ValueError(f"--json={path}: there is no directory {path.parent}; make it first")
    sizes = [int(size) for size in _SIZES.value]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as fresh:
        rows = [fresh.submit(measure, config, items).result() for items in sizes]
    files.write_json(path, rows)
    cells = [[f"{row['items']:,}", *(f"{value:.3g}" for value in list(row.values())[1:])] for row in rows]
    print(plain(Table("Trie", list(rows[0]), cells)))


if __name__ == "__main__":
    start(benchmark, required=("suite", "json"))
