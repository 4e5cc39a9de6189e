"""A trained model for other programs.

python -m launch.export --config=configs/lcrec_small.py --workdir=DIR --output=HF_DIR [--model=draft] [--dtype=bfloat16]

--format=hf: a directory that transformers' AutoModelForCausalLM and AutoTokenizer load; an adapter is merged.
--format=peft: the target's adapter alone, as PEFT stores it.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.export import export_adapter, export_hf
from launch.stage import open_run, start

_MODEL = flags.DEFINE_enum("model", "target", ["target", "draft"], "Which of the two.")
_OUTPUT = flags.DEFINE_string("output", None, "Directory to make; it must be new or empty.")
_FORMAT = flags.DEFINE_enum("format", "hf", ["hf", "peft"], "What is written.")
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Of the stored tensors, in hf.")


def export() -> None:
    run, name, output = open_run(), _MODEL.value, Path(_OUTPUT.value)
    began = run.pretrained.get(name)
    if _FORMAT.value == "peft":
        if began is None or began.lora is None:
            raise ValueError(f"--format=peft: the {name} of this run has no adapter; use --format=hf")
        export_adapter(output, began, run.trained(name))
    else:
        config, params = getattr(run, f"{name}_model"), getattr(run, f"{name}_params")
        base = None if began is None else Path(began.config.directory)
        how = {"history": run.config.data.history, "dtype": _DTYPE.value, "base": base}
        export_hf(output, config, params, run.dataset.catalog, **how)
    print(f"{name} -> {output}")


if __name__ == "__main__":
    start(export, required=("config", "workdir", "output"))
