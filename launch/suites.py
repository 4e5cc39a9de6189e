"""The suites of launch.benchmark: from flags to the rows of each."""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from absl import flags

from atspeed_jax.benchmarks.alignment import alignment_steps
from atspeed_jax.benchmarks.decode import measure_decode
from atspeed_jax.benchmarks.decode import table as decode_table
from atspeed_jax.benchmarks.decode_cells import DecodeSuite
from atspeed_jax.benchmarks.generate import GenerateConfig, PromptTokens, measure_generate
from atspeed_jax.benchmarks.hugging_face import missing
from atspeed_jax.benchmarks.ids import IdsBenchmark, measure_ids
from atspeed_jax.benchmarks.ids_quality import measure_ids_quality
from atspeed_jax.benchmarks.ingest import IngestBenchmark, measure_ingest, write_log
from atspeed_jax.benchmarks.input import input_speed
from atspeed_jax.benchmarks.lora import LoraBenchmark, measure_lora
from atspeed_jax.benchmarks.overhead import overhead_of_modes
from atspeed_jax.benchmarks.pack import pair_of_run
from atspeed_jax.benchmarks.pair import Pair, read_pair, write_pair
from atspeed_jax.benchmarks.plot import speed_up_plot
from atspeed_jax.benchmarks.random_models import SIZES
from atspeed_jax.benchmarks.trie import TrieBenchmark, measure_build, measure_steps
from atspeed_jax.reporting.tables import Table, as_text
from atspeed_jax.runs.pipeline import Run
from atspeed_jax.utils import files
from atspeed_jax.utils.ranges import BatchSize, Beams, Range
from launch.command_line import define_numbers
from launch.stage import FLAGS, given_config, open_run

PACKED_USERS = 200
IDS_SIZES = (12_000, 100_000, 1_000_000)


def define_flags() -> None:
    """Defines the flags of all suites."""
    flags.DEFINE_list("models", list(SIZES), "hugging_face: sizes of the targets.")
    define_numbers("batches", "1,8", BatchSize, "hugging_face: users at once (110M: 1 alone). decode: 1,4 by default.")
    define_numbers("ks", "1,5,20", Beams, "hugging_face: K.")
    define_numbers("prompts", "80,300", PromptTokens, "hugging_face, decode: tokens per prompt, BOS apart.")
    flags.DEFINE_integer("repeats", 15, "hugging_face: timed rounds of each cell. decode: 3 by default.", 1, 10_000)
    seconds = "hugging_face: a slower cell stops after three rounds. decode: budget of the suite, none by default."
    flags.DEFINE_float("seconds", 20.0, seconds, 0.0, 1e6)
    dtypes = ["float32", "bfloat16"]
    flags.DEFINE_multi_enum("dtypes", dtypes, dtypes, "lora: dtypes of the weights (--dtypes=float32 for that alone).")
    flags.DEFINE_integer("rows", 8, "lora: rows per step.", lower_bound=1, upper_bound=65_536)
    sizes = Annotated[int, Range(1, 1_000_000_000)]
    about = "trie: items of each trie. ingest: rows of each log (1000000). ids: vectors (12000,100000,1000000)."
    define_numbers("sizes", "10000,100000,1000000,10000000", sizes, about)
    flags.DEFINE_integer("codes", 2048, "trie: codes per level.", lower_bound=2, upper_bound=1_000_000)
    define_numbers("beams", "20", Beams, "overhead: K. decode: 1,5,20 by default.")
    flags.DEFINE_integer("users", 100, "overhead: validation users. decode: 20 per cell by default.", 1, 1_000_000_000)
    flags.DEFINE_integer("seeds", 3, "ids_quality: worlds, each with a target per kind of ids.", 1, 100)
    define_decode_flags()


def define_decode_flags() -> None:
    """Defines the flags that suite decode alone has."""
    flags.DEFINE_string("pack", None, "decode: write the run of --workdir into this file, and measure nothing.")
    flags.DEFINE_string("pair", None, "decode: a file that --pack wrote; --workdir is not read then.")
    flags.DEFINE_list("shapes", ["pair"], "decode: sizes of the target; pair is the trained one.")
    flags.DEFINE_list(
        "methods", list(DecodeSuite().methods), "decode: plain, speculative, popularity, hf (generate), whole_prompt."
    )
    flags.DEFINE_list("modes", [], "decode: drawing modes, relaxed and coupled.")
    settings = "decode: widths, as 1:8,8,8;128,64,64/192 (K=1; any K, a budget of 192); else the tuner chooses."
    flags.DEFINE_string("settings", "", settings)
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "decode: of both models.")
    flags.DEFINE_bool("stacked", False, "decode: stacked layers, else side by side.")
    flags.DEFINE_bool("parts", False, "decode: time the model calls alone as well.")
    flags.DEFINE_bool("trace", False, "decode: say where the device's time goes, by a trace.")
    flags.DEFINE_integer("threads", 1, "decode: programs that are compiled at once.", 1, 64)
    flags.DEFINE_bool("noise", False, "decode: compare plain beam search with itself, below float32.")


def trie_rows(_: Path) -> list[dict]:
    config = TrieBenchmark(codes=FLAGS.codes)
    processes = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    with tempfile.TemporaryDirectory() as temporary, processes as fresh:
        kept = [Path(temporary) / str(number) for number in range(len(FLAGS.sizes))]
        sizes = zip(FLAGS.sizes, kept, strict=True)
        made = [fresh.submit(measure_build, config, size, directory).result() for size, directory in sizes]
        steps = fresh.submit(measure_steps, config, kept).result()
    return [build | step for build, step in zip(made, steps, strict=True)]


def _say_ingest(line: str) -> None:
    print(f"[ingest] {line}", flush=True)


def ingest_rows(path: Path) -> list[dict]:
    """Generates, ingests and removes a log of each size, beside `path`."""
    config, rows = IngestBenchmark(), []
    processes = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)
    with processes as fresh:
        for size in FLAGS.sizes if FLAGS["sizes"].present else (1_000_000,):
            with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
                log = Path(temporary, "log.csv")
                fresh.submit(write_log, config, size, log).result()
                rows.append(fresh.submit(measure_ingest, config, log, _say_ingest).result())
    return rows


def trained_run() -> Run:
    if not FLAGS["workdir"].present:
        raise ValueError("this suite measures a trained run: give --workdir")
    return open_run(writes=False)


def alignment_rows(_: Path) -> list[dict]:
    run = trained_run()
    batches = run.alignment_batches((run.config.data.history,))  # of one shape
    first = [batches[number] for number in range(8)]
    return alignment_steps(run.draft_model, run.draft_params, run.tree_context, first, repeats=3)


def input_rows(_: Path) -> list[dict]:
    return [input_speed(trained_run(), batches=200, steps=60)]


def overhead_rows(_: Path) -> list[dict]:
    run = trained_run()
    if len(FLAGS.beams) > 1:
        raise ValueError(
            f"--beams={','.join(map(str, FLAGS.beams))}: suite overhead measures one K, such as --beams=20"
        )
    serve, shared = run.serve, {"history": run.config.data.history, "beams": FLAGS.beams[0], "users": FLAGS.users}
    return overhead_of_modes(run.decoders(run.draft_params), run.dataset, serve.decode, serve.evaluate, **shared)


def hugging_face_rows(path: Path) -> list[dict]:
    """Returns the rows that the flags ask for, and writes their plot beside `path`."""
    if unknown := set(FLAGS.models) - SIZES.keys():
        raise ValueError(f"--models={min(unknown)}: expected some of {', '.join(SIZES)}")
    check_installed("torch", "transformers")
    config = GenerateConfig(
        models=tuple(FLAGS.models),
        batches=tuple(FLAGS.batches),
        beams=tuple(FLAGS.ks),
        prompts=tuple(FLAGS.prompts),
        widths=("all", 64, 96),
        repeats=FLAGS.repeats,
        seconds=FLAGS.seconds,
    )
    rows = measure_generate(config, lambda text: print(f"[hugging_face] {text}", flush=True))
    files.write_bytes(path.with_suffix(".png"), speed_up_plot(rows))
    return rows


def decode_rows(path: Path) -> list[dict]:
    given: dict[str, Any] = {name: FLAGS[name].value for name in ("users", "repeats", "seconds") if FLAGS[name].present}
    given |= {name: tuple(getattr(FLAGS, name)) for name in ("beams", "batches", "prompts") if FLAGS[name].present}
    given |= {name: tuple(getattr(FLAGS, name)) for name in ("shapes", "methods", "modes")}
    given |= {
        name: getattr(FLAGS, name) for name in ("settings", "stacked", "dtype", "parts", "trace", "threads", "noise")
    }
    suite = DecodeSuite.of(**given)
    return measure_decode(trained_pair(), suite, path, lambda text: print(f"[decode] {text}", flush=True))


def trained_pair() -> Pair:
    return pair_of_run(trained_run(), PACKED_USERS) if FLAGS.pair is None else read_pair(Path(FLAGS.pair))


def pack_pair(path: Path) -> None:
    """Writes the run of --workdir into one file for a machine without the data
    libraries.
    """
    if extra := [f"--{name}" for name in ("json", "pair") if FLAGS[name].value is not None]:
        raise ValueError(f"--pack writes the run of --workdir and measures nothing: leave out {' and '.join(extra)}")
    files.check_writable("--pack", path)
    if path.exists():
        raise ValueError(f"--pack={path} is a file already: remove it, or name another file")
    write_pair(path, trained_pair())
    print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")


def table(rows: list[dict]) -> str:
    """Returns the rows of the suite as text."""
    if FLAGS.suite == "decode":
        return decode_table(rows)
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return as_text(Table(FLAGS.suite.replace("_", " ").title(), list(rows[0]), cells))


def lora_rows(_: Path) -> list[dict]:
    check_installed("torch", "transformers", "peft")
    config = LoraBenchmark(FLAGS.rows, tuple(FLAGS.dtypes))
    return measure_lora(config, lambda text: print(f"[lora] {text}", flush=True))


def ids_rows(_: Path) -> list[dict]:
    config, sizes = IdsBenchmark(), FLAGS.sizes if FLAGS["sizes"].present else IDS_SIZES
    rows = []
    for size in sizes:
        rows += measure_ids(config, size, lambda text: print(f"[ids] {text}", flush=True))
    return rows


def ids_quality_rows(path: Path) -> list[dict]:
    """Trains the targets of suite ids_quality, or goes on, in a directory beside `path`."""
    config = given_config()
    if config is None or config.data.source != "synthetic":
        raise ValueError("suite ids_quality trains targets on synthetic data: give --config=configs/tiny.py")
    runs, seeds = path.with_name(f"{path.stem}_runs"), range(FLAGS.seeds)
    return measure_ids_quality(config, seeds, runs, lambda text: print(f"[ids_quality] {text}", flush=True))


def check_installed(*packages: str) -> None:
    """Raises ValueError, naming the packages that are not installed."""
    if lack := missing(*packages):
        raise ValueError(f"--suite={FLAGS.suite} {lack}")


SUITES = {
    "trie": trie_rows,
    "ingest": ingest_rows,
    "overhead": overhead_rows,
    "alignment": alignment_rows,
    "input": input_rows,
    "hugging_face": hugging_face_rows,
    "lora": lora_rows,
    "decode": decode_rows,
    "ids": ids_rows,
    "ids_quality": ids_quality_rows,
}
