"""Flags of a Hugging Face model that knows the codes of items and is served without a run."""

import json
from pathlib import Path
from typing import cast, get_args

from absl import flags

from atspeed_jax.data.instructions import PLACEHOLDER, PromptConfig
from atspeed_jax.data.prompt_presets import PRESETS, preset
from atspeed_jax.decoding.base import ScoreNorm
from atspeed_jax.runs.config import load
from atspeed_jax.serving.hugging_face import ModelDirectory, ServedModel
from launch.command_line import CommandLineError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("model", None, "Hugging Face directory to serve, in the place of a run.")
    flags.DEFINE_string("index", None, "File of the items' ids, such as data.index.json.")
    flags.DEFINE_string("draft", None, "Directory of a smaller model of the same tokenizer, which drafts.")
    flags.DEFINE_string("template", PLACEHOLDER, "Prompt, with {items} where the items stand.")
    flags.DEFINE_string("separator", "", "Text between two items of --template.")
    names = ", ".join(PRESETS)
    flags.DEFINE_string("prompt", None, f"Instead of --template: {names}, or a JSON file of fields of PromptConfig.")
    flags.DEFINE_integer("history", 20, "Newest items of a user that a prompt holds.", 1, 100_000)
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of weights and activations.")
    flags.DEFINE_enum("norm", "vocab", list(get_args(ScoreNorm)), "What log-probabilities are normalized over.")
    flags.DEFINE_integer("batch_size", 8, "Users decoded at once.", 1, 65_536)


def served_model() -> ServedModel:
    """Opens the model that the flags name.

    Raises:
      CommandLineError: flags that do not go together.
      ValueError: as `ServedModel`.
    """
    if not FLAGS.index:
        raise CommandLineError(f"--model={FLAGS.model}: give --index=FILE too, which says what codes each item has")
    if FLAGS.workdir or FLAGS["config"].present:
        raise CommandLineError("--model serves a Hugging Face directory: leave --workdir and --config out")
    how = {"history": FLAGS.history, "dtype": FLAGS.dtype, "norm": cast(ScoreNorm, FLAGS.norm)}
    draft = Path(FLAGS.draft) if FLAGS.draft else None
    return ServedModel(ModelDirectory(Path(FLAGS.model), Path(FLAGS.index), draft, _prompt(), **how))


def _prompt() -> PromptConfig:
    """What --prompt, or --template and --separator, say."""
    if FLAGS.prompt is None:
        alone = FLAGS.template == PLACEHOLDER and not FLAGS.separator
        return PromptConfig() if alone else PromptConfig("instruction", FLAGS.template, FLAGS.separator)
    if FLAGS["template"].present or FLAGS["separator"].present:
        raise CommandLineError(f"--prompt={FLAGS.prompt} is a whole prompt: leave --template and --separator out")
    if FLAGS.prompt in PRESETS:
        return preset(FLAGS.prompt)
    try:
        fields = json.loads(Path(FLAGS.prompt).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CommandLineError(
            f"--prompt={FLAGS.prompt}: expected one of {', '.join(PRESETS)}, or a JSON file such as "
            f'{{"kind": "instruction", "template": "Items: {PLACEHOLDER}", "separator": ", "}} ({error})'
        ) from error
    return load(fields, PromptConfig)
