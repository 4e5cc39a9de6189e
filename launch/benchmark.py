"""Benchmarks of single parts, printed and written as JSON.

python -m launch.benchmark --suite=trie --json=trie.json [--sizes=10000,100000,1000000,10000000]
python -m launch.benchmark --suite=overhead --json=overhead.json --workdir=DIR
python -m launch.benchmark --suite=alignment --json=alignment.json --workdir=DIR
python -m launch.benchmark --suite=input --json=input.json --workdir=DIR
python -m launch.benchmark --suite=peers --json=peers.json [--models=4M,25M,110M]   # or --suite=lora

trie: every size is built in a process of its own, so that its peak memory is its own; the steps of all sizes are timed
interleaved in one more. overhead: of a trained run, every mode on validation users, one at a time. alignment: of a
trained run, a step with one tree per sample beside a copy of the prompt per beam. input: of a run whose data stage is
done, how fast batches are made beside how fast the target's training reads them. peers, lora: Hugging Face `generate`
and PEFT beside ours.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.reporting.tables import Table, plain
from atspeed_jax.utils import files
from launch.peers import peers_rows
from launch.peers_lora import lora_rows
from launch.stage import start
from launch.suites import alignment_rows, input_rows, overhead_rows, trie_rows

_SUITE = flags.DEFINE_enum(
    "suite", None, ["trie", "overhead", "alignment", "input", "peers", "lora"], "What is measured."
)
_JSON = flags.DEFINE_string("json", None, "File to write the rows to.")


def benchmark() -> None:
    path = Path(_JSON.value)
    files.check_writable("--json", path)
    suites = {"trie": trie_rows, "overhead": overhead_rows, "alignment": alignment_rows, "input": input_rows}
    rows = (suites | {"peers": peers_rows, "lora": lora_rows})[_SUITE.value](path)
    files.write_json(path, rows)
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    print(plain(Table(_SUITE.value.title(), list(rows[0]), cells)))


if __name__ == "__main__":
    start(benchmark, required=("suite", "json"))
