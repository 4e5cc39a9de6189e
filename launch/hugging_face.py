"""Flags of a Hugging Face model that knows the codes of items and is served without a run."""

from pathlib import Path
from typing import cast, get_args

from absl import flags

from atspeed_jax.data.instructions import PLACEHOLDER, PromptConfig
from atspeed_jax.decoding.base import ScoreNorm
from atspeed_jax.serving.hugging_face import ModelDirectory, ServedModel
from launch.command_line import CommandLineError

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Defines the flags."""
    flags.DEFINE_string("model", None, "Hugging Face directory to serve, in the place of a run.")
    flags.DEFINE_string("index", None, "File of the items' ids, such as data.index.json.")
    flags.DEFINE_string("draft", None, "Directory of a smaller model of the same tokenizer, which drafts.")
    flags.DEFINE_string("template", PLACEHOLDER, "Prompt, with {items} where the items stand.")
    flags.DEFINE_string("separator", "", "Text between two items.")
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
    alone = FLAGS.template == PLACEHOLDER and not FLAGS.separator
    prompt = PromptConfig() if alone else PromptConfig("instruction", FLAGS.template, FLAGS.separator)
    how = {"history": FLAGS.history, "dtype": FLAGS.dtype, "norm": cast(ScoreNorm, FLAGS.norm)}
    draft = Path(FLAGS.draft) if FLAGS.draft else None
    return ServedModel(ModelDirectory(Path(FLAGS.model), Path(FLAGS.index), draft, prompt, **how))
