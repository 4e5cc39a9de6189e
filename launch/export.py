"""A trained model for other programs.

python -m launch.export --workdir=DIR --output=HF_DIR [--model=draft] [--dtype=bfloat16]

--format=hf: a directory that transformers' AutoModelForCausalLM and AutoTokenizer load; an adapter is merged.
--format=peft: the target's adapter alone, as PEFT stores it, and the tokenizer.
--format=decoder: the compiled decoder (--k, --drafter, --batch, --platforms) for a process without this code.
--format=figures: the figures of report.json as parquet tables.
--format=lists: what all test users had, are given (--k, --drafter) and took next, for evaluation elsewhere.
"""

from pathlib import Path

from absl import flags

from atspeed_jax import export as made
from atspeed_jax.reporting.report import read_report
from atspeed_jax.runs.serve import decoders_of, lists_by
from launch.stage import FLAGS, open_run, say, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_enum("model", "target", ["target", "draft"], "Which of the two.")
    flags.DEFINE_string("output", None, "Directory to make; it must be new or empty.")
    flags.DEFINE_enum("format", "hf", ["hf", "peft", "decoder", "figures", "lists"], "What is written.")
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of the stored tensors, in hf.")
    flags.DEFINE_integer("k", 20, "Items per list, in decoder and lists.", lower_bound=1, upper_bound=10_000)
    flags.DEFINE_enum("drafter", "draft", ["draft", "popularity", "none"], "none: plain beam search.")
    flags.DEFINE_integer("batch", 1, "Users per call, in decoder.", lower_bound=1, upper_bound=65_536)
    flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], f"Of {', '.join(made.PLATFORMS)}: where it runs.")


def export() -> None:
    made.check_wanted(output := Path(FLAGS.output), FLAGS.platforms)
    run, name, note = open_run(writes=False), FLAGS.model, ""
    catalog, history = run.dataset.catalog, run.config.data.history
    if FLAGS.format == "lists":
        decoders, setting = decoders_of(run, FLAGS.drafter, FLAGS.k, say)
        made.export_lists(output, lists_by(run, decoders, setting, exclude_seen=False), run.dataset)
    elif FLAGS.format == "decoder":
        decoders, setting = decoders_of(run, FLAGS.drafter, FLAGS.k, say)
        how = {"history": history, "batch": FLAGS.batch, "platforms": FLAGS.platforms}
        made.export_decoder(output, decoders, setting, catalog, **how)
    elif FLAGS.format == "figures":
        made.export_figures(output, read_report(run.workdir))
    elif FLAGS.format == "peft":
        if not (began := run.pretrained.get(name)) or began.lora is None:
            raise ValueError(f"--format=peft: the {name} of this run has no adapter; use --format=hf")
        note = made.export_adapter(output, began, run.trained(name), catalog)
    else:
        config, params = getattr(run, f"{name}_model"), getattr(run, f"{name}_params")
        how = {"history": history, "dtype": FLAGS.dtype, "base": run.base_of(name)}
        note = made.export_hf(output, config, params, catalog, **how)
    print(f"{FLAGS.format}: {output}{note}")


if __name__ == "__main__":
    start(export, define_flags, required=("workdir", "output"))
