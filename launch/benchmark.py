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

from atspeed_jax.reporting.tables import Table, as_text
from atspeed_jax.utils import files
from launch import peers, peers_lora, suites
from launch.stage import FLAGS, start

ROWS = {
    "trie": suites.trie_rows,
    "overhead": suites.overhead_rows,
    "alignment": suites.alignment_rows,
    "input": suites.input_rows,
    "peers": peers.peers_rows,
    "lora": peers_lora.lora_rows,
}


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_enum("suite", None, list(ROWS), "What is measured.")
    flags.DEFINE_string("json", None, "File to write the rows to.")
    for module in (peers, peers_lora, suites):
        module.define_flags()


def benchmark() -> None:
    path = Path(FLAGS.json)
    files.check_writable("--json", path)
    rows = ROWS[FLAGS.suite](path)
    files.write_json(path, rows)
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    print(as_text(Table(FLAGS.suite.title(), list(rows[0]), cells)))


if __name__ == "__main__":
    start(benchmark, define_flags, required=("suite", "json"))
