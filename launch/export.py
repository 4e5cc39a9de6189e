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
from atspeed_jax.serving.decoders import strict
from atspeed_jax.serving.recommend import lists_of
from launch.stage import open_run, start

_MODEL = flags.DEFINE_enum("model", "target", ["target", "draft"], "Which of the two.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory to make; it must be new or empty.")
_FORMAT = flags.DEFINE_enum("format", "hf", ["hf", "peft", "decoder", "figures", "lists"], "What is written.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of the stored tensors, in hf.")
_K = flags.DEFINE_integer("k", 20, "Items per list, in decoder and lists.", lower_bound=1, upper_bound=10_000)
_DRAFTER = flags.DEFINE_enum("drafter", "draft", ["draft", "popularity", "none"], "none: plain beam search.")
_BATCH = flags.DEFINE_integer("batch", 1, "Users per call, in decoder.", lower_bound=1, upper_bound=65_536)
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], f"Of {', '.join(made.PLATFORMS)}: where it runs.")


def export() -> None:
    made.check_wanted(output := Path(_OUTPUT.value), _PLATFORMS.value)
    run, name, note = open_run(writes=False), _MODEL.value, ""
    serve, shape = run.serve, {"history": run.config.data.history}
    if _FORMAT.value in ("decoder", "lists"):
        decoders = run.decoders(run.draft_params if _DRAFTER.value == "draft" else None)
        setting = decoders.fitted(strict(_DRAFTER.value, _K.value, serve.decode), print)
        if _FORMAT.value == "lists":
            shape |= {"buckets": serve.evaluate.buckets, "batch_size": serve.evaluate.batch_size}
            lists = lists_of(decoders, setting, run.dataset, **shape, exclude_seen=False)
            made.export_lists(output, lists, run.dataset)
        else:
            shape |= {"batch": _BATCH.value, "platforms": _PLATFORMS.value}
            made.export_decoder(output, decoders, setting, run.dataset.catalog, **shape)
    elif _FORMAT.value == "figures":
        made.export_figures(output, read_report(run.workdir))
    elif _FORMAT.value == "peft":
        if not (began := run.pretrained.get(name)) or began.lora is None:
            raise ValueError(f"--format=peft: the {name} of this run has no adapter; use --format=hf")
        note = made.export_adapter(output, began, run.trained(name), run.dataset.catalog)
    else:
        how = shape | {"dtype": _DTYPE.value, "base": run.base_of(name)}
        config, params = getattr(run, f"{name}_model"), getattr(run, f"{name}_params")
        note = made.export_hf(output, config, params, run.dataset.catalog, **how)
    print(f"{_FORMAT.value}: {output}{note}")


if __name__ == "__main__":
    start(export, required=("workdir", "output"))
