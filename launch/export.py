"""A trained model for other programs.

python -m launch.export --config=configs/lcrec_small.py --workdir=DIR --output=HF_DIR [--model=draft] [--dtype=bfloat16]

--format=hf: a directory that transformers' AutoModelForCausalLM and AutoTokenizer load; an adapter is merged.
--format=peft: the target's adapter alone, as PEFT stores it.
--format=decoder: the compiled decoder (--k, --drafter, --batch, --platforms) for a process without this code.
--format=figures: the figures of report.json as parquet tables.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.evaluation.decoders import plain, speculative
from atspeed_jax.evaluation.report import read_report
from atspeed_jax.export import export_adapter, export_decoder, export_figures, export_hf
from atspeed_jax.pipeline import Run
from launch.stage import open_run, start

_MODEL = flags.DEFINE_enum("model", "target", ["target", "draft"], "Which of the two.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory to make; it must be new or empty.")
_FORMAT = flags.DEFINE_enum("format", "hf", ["hf", "peft", "decoder", "figures"], "What is written.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of the stored tensors, in hf.")
_K = flags.DEFINE_integer("k", 20, "Items per list, in decoder.", lower_bound=1)
_DRAFTER = flags.DEFINE_enum("drafter", "draft", ["draft", "popularity", "none"], "none: plain beam search.")
_BATCH = flags.DEFINE_integer("batch", 1, "Users per call, in decoder.", lower_bound=1)
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "That the decoder runs on.")


def decoder(run: Run, output: Path) -> None:
    c = run.config
    alone = _DRAFTER.value == "none"
    setting = plain(_K.value, c.decode.score_norm) if alone else speculative(_DRAFTER.value, _K.value, c.decode)
    shape = {"batch": _BATCH.value, "history": c.data.history, "platforms": _PLATFORMS.value}
    draft = run.draft_params if setting.drafter == "draft" else None
    export_decoder(output, run.decoders(draft), setting, run.dataset.catalog, **shape)


def export() -> None:
    run, name, output = open_run(), _MODEL.value, Path(_OUTPUT.value)
    if _FORMAT.value == "decoder":
        decoder(run, output)
    elif _FORMAT.value == "figures":
        export_figures(output, read_report(run.workdir))
    elif _FORMAT.value == "peft":
        began = run.pretrained.get(name)
        if began is None or began.lora is None:
            raise ValueError(f"--format=peft: the {name} of this run has no adapter; use --format=hf")
        export_adapter(output, began, run.trained(name))
    else:
        config, params = getattr(run, f"{name}_model"), getattr(run, f"{name}_params")
        how = {"history": run.config.data.history, "dtype": _DTYPE.value, "base": run.base_of(name)}
        export_hf(output, config, params, run.dataset.catalog, **how)
    print(f"{_FORMAT.value}: {output}")


if __name__ == "__main__":
    start(export, required=("config", "workdir", "output"))
