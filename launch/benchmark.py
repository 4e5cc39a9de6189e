"""Benchmarks of single parts, printed and written as JSON.

python -m launch.benchmark --suite=trie --json=trie.json [--sizes=10000,100000]
python -m launch.benchmark --suite=ingest --json=ingest.json [--sizes=1000000,100000000]
python -m launch.benchmark --suite=overhead|alignment --json=F.json --workdir=DIR
python -m launch.benchmark --suite=input --json=input.json --workdir=DIR
python -m launch.benchmark --suite=hugging_face --json=hugging_face.json [--models=4M]
python -m launch.benchmark --suite=lora --json=lora.json [--rows=8]
python -m launch.benchmark --suite=decode --json=decode.json --workdir=DIR [--shapes=10m]

trie: build time and memory of each size, in a process per size, and the time of a step.
ingest: time and memory to filter, split and store a generated log. ids: quantizers.
ids_quality: a target for each kind of ids, of --config=configs/tiny.py.
overhead: every mode of a trained run on validation users, one user at a time.
alignment: a training step with one tree per sample, beside one with a prompt per beam.
input: how fast a run's batches are made, beside how fast its target's training reads
them. hugging_face: our decoders beside Hugging Face `generate` on random models.
lora: a training step of an adapter, beside PEFT.
decode: plain and speculative beam search of a trained run, with targets of many sizes.

The rows are also shown as a page, F.html beside --json=F.json.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.benchmarks.page import write_page
from atspeed_jax.utils import files
from launch import suites
from launch.command_line import define_choice
from launch.stage import FLAGS, start


def define_flags() -> None:
    """Defines the flags of this main, and those of its suites."""
    define_choice("suite", list(suites.SUITES), "What is measured.", renamed={"peers": "hugging_face"})
    flags.DEFINE_string("json", None, "File to write the rows to.")
    suites.define_flags()


def benchmark() -> None:
    if FLAGS.pack is not None:
        return suites.pack_pair(Path(FLAGS.pack))
    if FLAGS.json is None:
        raise ValueError("give --json=FILE, the file to write the rows to; --help says more")
    path = Path(FLAGS.json)
    files.check_writable("--json", path)
    rows = suites.SUITES[FLAGS.suite](path)
    files.write_json(path, files.jsonable(rows))
    if not rows:  # a budget that was too short for any
        return None
    page = write_page(path, FLAGS.suite, rows)
    print(suites.table(rows))
    print(f"the report: {page}")
    return None


if __name__ == "__main__":
    start(benchmark, define_flags, required=("suite",))
