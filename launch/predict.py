"""Predicts the speed-up of speculation on chips that are not here, for a trained run.

python -m launch.predict --workdir=RUN --chips=v5e,h100 --shapes=1b,llama-7b [--compiler=tpu] [--json=F]
    [--beams=20,5,1] [--batches=1,8] [--widths=128,64,64] [--prompt=100] [--head=60] [--dtype=bfloat16] [--users=200]

Rounds are measured: the run's pair decodes validation users here. The time of a round
is the chip's roofline and, with --compiler=tpu, what libtpu's compiler estimates.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.planning.speedup import NOTE, SpeedupConfig, predict, speedup_table
from atspeed_jax.reporting.tables import as_text
from atspeed_jax.runs.checks import check_grid
from atspeed_jax.runs.open_run import open_run
from atspeed_jax.serving.settings import parse_widths
from atspeed_jax.training.chips import CHIPS
from atspeed_jax.utils.files import check_writable
from atspeed_jax.utils.ranges import BatchSize, Beams
from launch.command_line import define_numbers
from launch.host_devices import use_cpu
from launch.stage import FLAGS, say, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_list("chips", ["v5e", "v5p", "v6e", "h100"], f"Of {', '.join(CHIPS)}.")
    flags.DEFINE_list("shapes", ["pair"], "Sizes of the target, such as 1b,llama-7b; pair: that of the run.")
    flags.DEFINE_enum("compiler", "none", ["none", "tpu"], "tpu: TPUs are compiled for too.")
    define_numbers("beams", "20,5,1", Beams, "K.")
    define_numbers("batches", "1", BatchSize, "Users decoded at once.")
    flags.DEFINE_multi_string("widths", [], "Widths to choose from, such as 128,64,64; without it, the run's.")
    flags.DEFINE_integer("prompt", 100, "Tokens of a prompt.", 1, 65_536)
    flags.DEFINE_integer("head", 0, "How many of them all prompts share, read once and not per user.", 0, 65_536)
    flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float32"], "Arithmetic of both models.")
    flags.DEFINE_integer("users", 200, "Validation users who are decoded here.", 1, 1_000_000)
    flags.DEFINE_string("json", None, "File to write the figures to, one by one.")


def main() -> None:
    run, path = open_run(FLAGS.workdir), Path(FLAGS.json) if FLAGS.json else None
    if path:
        check_writable("--json", path)
    check_grid("--widths", widths := tuple(map(parse_widths, FLAGS.widths)) or (run.serve.decode.widths,), run.dataset)
    config = SpeedupConfig(
        chips=tuple(FLAGS.chips),
        shapes=tuple(FLAGS.shapes),
        beams=tuple(FLAGS.beams),
        batches=tuple(FLAGS.batches),
        widths=widths,
        **{name: getattr(FLAGS, name) for name in ("prompt", "head", "dtype", "users")},
        compiler=FLAGS.compiler == "tpu",
    )
    print(as_text(speedup_table(predict(run, config, path, say))), NOTE, sep="\n")


if __name__ == "__main__":
    start(main, define_flags, required=("workdir",), first=use_cpu)
