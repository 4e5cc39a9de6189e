"""Writes a trained model, or what it found, for other programs.

python -m launch.export --workdir=DIR --output=HF_DIR [--model=draft] [--dtype=bfloat16]

--format=hf: a directory for transformers, with an adapter merged.
--format=peft: the adapter alone, as PEFT stores it, and the tokenizer.
--format=decoder: the compiled decoder. --format=figures: report.json as parquet tables.
--format=lists: of all test users the history, the recommended list and the next items.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.export import decoder, directory, hugging_face, tables
from atspeed_jax.reporting.report import read_report
from atspeed_jax.runs.serve import decoders_of, lists_by, names_of, titles_of
from launch.serving import DRAFTER_HELP
from launch.stage import FLAGS, open_run, say, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_enum("model", "target", ["target", "draft"], "Which model is written.")
    flags.DEFINE_string("output", None, "Directory to make; it must be new or empty.")
    flags.DEFINE_enum("format", "hf", ["hf", "peft", "decoder", "figures", "lists"], "What is written.")
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "hf: dtype of the stored tensors.")
    flags.DEFINE_integer("k", 20, "decoder, lists: items per list.", lower_bound=1, upper_bound=10_000)
    flags.DEFINE_enum("drafter", None, ["draft", "popularity", "none", "tuned"], DRAFTER_HELP)
    flags.DEFINE_integer("batch", 1, "decoder: users per call.", lower_bound=1, upper_bound=65_536)
    flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], f"decoder: where, of {', '.join(decoder.PLATFORMS)}.")


def export() -> None:
    directory.check_new(output := Path(FLAGS.output))
    decoder.check_platforms(FLAGS.platforms)
    run, name, note = open_run(writes=False), FLAGS.model, ""
    catalog, history = run.catalog, run.config.data.history
    if FLAGS.format == "lists":
        lists = lists_by(run, *decoders_of(run, FLAGS.drafter, FLAGS.k, say), exclude_seen=False)
        tables.export_lists(output, lists, run.dataset, titles_of(run), names_of(run))
    elif FLAGS.format == "decoder":
        decoders, setting = decoders_of(run, FLAGS.drafter, FLAGS.k, say, batch_size=FLAGS.batch)
        how = {"history": history, "batch": FLAGS.batch, "platforms": FLAGS.platforms}
        decoder.export_decoder(output, decoders, setting, catalog, **how)
    elif FLAGS.format == "figures":
        tables.export_figures(output, read_report(run.workdir))
    elif FLAGS.format == "peft":
        if not (base := run.pretrained.get(name)) or base.lora is None:
            raise ValueError(f"--format=peft: the {name} of this run has no adapter; use --format=hf")
        note = hugging_face.export_adapter(output, base, run.trained(name), catalog)
    else:
        size, params = (run.draft_model, run.draft_params) if name == "draft" else (run.target_model, run.target_params)
        how = {"history": history, "dtype": FLAGS.dtype, "base": run.base_of(name)}
        note = hugging_face.export_hf(output, size, params, catalog, **how)
    print(f"{FLAGS.format}: {output}{note}")


if __name__ == "__main__":
    start(export, define_flags, required=("workdir", "output"))
