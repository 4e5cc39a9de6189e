"""Measures every mode of the decoder on the test users of a trained run.

python -m launch.compare_modes --workdir=DIR [--seeds=5] [--beams=20,5,1]

Writes target calls, quality and overlap with the exact lists to DIR/modes.json and
DIR/modes.md. Finished measurements are kept: the same command continues.
"""

from typing import Any, get_args

from absl import flags

from atspeed_jax.decoding.base import Mode
from atspeed_jax.evaluation.modes import ModesConfig, ModeTable, Tolerance
from atspeed_jax.reporting.tables import mode_table
from atspeed_jax.runs.checks import check_grid
from atspeed_jax.runs.serve import tuned_of
from atspeed_jax.serving.settings import parse_widths
from atspeed_jax.utils.ranges import Beams, Nodes
from launch.command_line import define_numbers
from launch.serving import publish
from launch.stage import FLAGS, main, say


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_integer("seeds", 5, "Draws per user in modes that draw.", lower_bound=1, upper_bound=10_000)
    define_numbers("beams", "20,5,1", Beams, "K: the first on all test users, the others on grid_users of them.")
    flags.DEFINE_enum("drafter", "draft", ["draft", "popularity"], "Which model drafts.")
    flags.DEFINE_list("norms", ["vocab", "trie"], "Score norms.")
    flags.DEFINE_list("constraints", ["trie"], "trie: real ids only; levels: any known code of each level.")
    define_numbers("tolerances", "0.01,0.05", Tolerance, "Probability that strict may give up.", may_be_empty=True)
    define_numbers("budgets", "128", Nodes, "Drafted nodes per target call, in strict mode.", may_be_empty=True)
    flags.DEFINE_multi_string("widths", [], "Widths instead of the config's, such as all,96,128; or tuned.")
    flags.DEFINE_list("modes", list(get_args(Mode)), "Modes of the decoder.")
    flags.DEFINE_float("temperature", 1.0, "Temperature of the modes that draw.", lower_bound=1e-3, upper_bound=1e3)


def compare(run) -> None:
    beams, tuned = tuple(FLAGS.beams), {}
    if "tuned" in FLAGS.widths:
        tuned = {k: tuned_of(run, k) for k in beams}
        say(f"tuned: {', '.join(setting.label for setting in tuned.values())}")
    given = [parse_widths(text) for text in FLAGS.widths if text != "tuned"]
    widths = given if FLAGS.widths else (run.serve.decode.widths, *run.serve.evaluate.grid_widths[:1])
    values: dict[str, Any] = {name: getattr(FLAGS, name) for name in ("drafter", "temperature", "seeds")}
    lists = ("norms", "tolerances", "budgets", "constraints", "modes")
    values |= {name: tuple(getattr(FLAGS, name)) for name in lists}
    config = ModesConfig(beams=beams, main_beams=beams[:1], widths=tuple(dict.fromkeys(widths)), tuned=tuned, **values)
    check_grid("--widths", config.widths, run.dataset)
    rows = ModeTable(run.measurements(), config).rows()
    publish(run.workdir / "modes", rows, mode_table(rows))


if __name__ == "__main__":
    main(compare, define_flags, several=False)
