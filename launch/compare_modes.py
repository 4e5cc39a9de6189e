"""Every mode of the decoder on the test users of a trained run: calls, quality, overlap with the exact lists.

python -m launch.compare_modes --workdir=DIR [--seeds=5] [--beams=20,5,1]

Writes DIR/modes.json and DIR/modes.md; what is measured is remembered, so a stopped run goes on where it was.
"""

from typing import get_args

from absl import flags

from atspeed_jax.decoding.base import Mode
from atspeed_jax.evaluation.modes import ModesConfig, ModeTable, Tolerance
from atspeed_jax.reporting.tables import markdown, mode_table, plain
from atspeed_jax.runs.checks import check_grid
from atspeed_jax.serving.tune import parse_widths, tuned_setting
from atspeed_jax.utils import files
from atspeed_jax.utils.ranges import Beams, Nodes
from launch.command_line import define_numbers
from launch.stage import main, say

_SEEDS = flags.DEFINE_integer("seeds", 5, "Draws per user in modes that draw.", lower_bound=1, upper_bound=10_000)
_BEAMS = define_numbers("beams", "20,5,1", Beams, "K, the first on all test users, the others on grid_users.")
_DRAFTER = flags.DEFINE_enum("drafter", "draft", ["draft", "popularity"], "Who proposes.")
_NORMS = flags.DEFINE_list("norms", ["vocab", "trie"], "Score norms.")
_CONSTRAINTS = flags.DEFINE_list("constraints", ["trie"], "trie: real ids; levels: any known code of a level.")
_TOLERANCES = define_numbers("tolerances", "0.01,0.05", Tolerance, "Probability strict may give up.", may_be_empty=True)
_BUDGETS = define_numbers("budgets", "128", Nodes, "Nodes that a target call reads, in strict mode.", may_be_empty=True)
_WIDTHS = flags.DEFINE_multi_string("widths", [], "Instead of the config's, such as all,96,128 (or tuned); repeatable.")
_MODES = flags.DEFINE_list("modes", list(get_args(Mode)), "Modes of the decoder.")
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Of the modes that draw.", lower_bound=1e-3, upper_bound=1e3)


def compare(run) -> None:
    beams, decode, evaluate, tuned = tuple(_BEAMS.value), run.serve.decode, run.serve.evaluate, {}
    if "tuned" in _WIDTHS.value:
        tuned = {k: tuned_setting(run.workdir, k, evaluate.batch_size, decode.score_norm) for k in beams}
        say(f"tuned: {', '.join(setting.label for setting in tuned.values())}")
    given = [parse_widths(text) for text in _WIDTHS.value if text != "tuned"]
    lists = (_NORMS, _TOLERANCES, _BUDGETS, _CONSTRAINTS, _MODES)
    config = ModesConfig(
        beams=beams,
        main_beams=beams[:1],
        widths=tuple(dict.fromkeys(given if _WIDTHS.value else (decode.widths, *evaluate.grid_widths[:1]))),
        tuned=tuned,
        drafter=_DRAFTER.value,
        temperature=_TEMPERATURE.value,
        seeds=_SEEDS.value,
        **{flag.name: tuple(flag.value) for flag in lists},
    )
    check_grid("--widths", config.widths, run.dataset)
    rows = ModeTable(run.measurements(), config).rows()
    table = mode_table(rows)
    files.write_json(run.workdir / "modes.json", rows)
    files.write_text(run.workdir / "modes.md", markdown(table))
    print(plain(table))


if __name__ == "__main__":
    main(compare, several=False)
