"""Finds the fastest way to decode on this machine, per K and batch size.

python -m launch.tune_decoder --workdir=DIR [--beams=20,5,1] [--batch_sizes=1,64]

Measures on validation users of a trained run; nothing else should run. The choice is a
setting of the grid or plain beam search. Writes DIR/tuned.json, which launch.recommend
--drafter=tuned reads, and DIR/tuned.md. The grid has the widths of the run
(decode.widths, evaluate.grid_widths) and --widths.
"""

from absl import flags

from atspeed_jax.reporting.report import environment
from atspeed_jax.reporting.tables import tune_table
from atspeed_jax.runs.checks import check_grid
from atspeed_jax.serving.tune import TuneConfig, parse_widths, tune
from atspeed_jax.utils.ranges import BatchSize, Beams, Nodes
from launch.command_line import define_numbers
from launch.serving import publish
from launch.sigterm import nothing_kept
from launch.stage import FLAGS, main, say


def define_flags() -> None:
    """Defines the flags of this main."""
    define_numbers("beams", "20,5,1", Beams, "K.")
    define_numbers("batch_sizes", "1,64", BatchSize, "Users decoded at once.")
    flags.DEFINE_multi_string("widths", [], "More widths of the grid, such as 20,20,20.")
    flags.DEFINE_list("drafters", ["draft", "popularity"], "Which models draft.")
    define_numbers("budgets", "none", Nodes | None, "Drafted nodes that a target call reads; none: all.")
    define_numbers("row_shares", "4", BatchSize, "SearchConfig.row_share; 1: later rounds read the whole batch.")
    flags.DEFINE_integer("batches", 10, "Least number of batches timed.", lower_bound=1, upper_bound=1_000_000)
    flags.DEFINE_float("hopeless", 1.5, "A setting this many times slower than the best is timed once.", 1.0, 1e9)
    flags.DEFINE_integer("repeats", 3, "Timings of each batch; their median counts.", 1, 10_000)


def tune_decoder(run) -> None:
    of_run = (run.serve.decode.widths, *run.serve.evaluate.grid_widths)
    config = TuneConfig(
        beams=tuple(FLAGS.beams),
        batch_sizes=tuple(FLAGS.batch_sizes),
        widths=tuple(dict.fromkeys([*of_run, *map(parse_widths, FLAGS.widths)])),
        drafters=tuple(FLAGS.drafters),
        budgets=tuple(FLAGS.budgets),
        row_shares=tuple(FLAGS.row_shares),
        batches=FLAGS.batches,
        hopeless=FLAGS.hopeless,
        repeats=FLAGS.repeats,
    )
    check_grid("--widths", config.widths, run.dataset)
    decode, evaluate = run.serve.decode, run.serve.evaluate
    draft_params = run.draft_params if "draft" in config.drafters else None
    shape, decoders = evaluate.batch_shape(run.config.data.history), run.decoders(draft_params)
    rows = tune(decoders, run.dataset, decode, config, shape, lambda text: say(f"[tune] {text}"))
    found = {"score_norm": decode.score_norm, "environment": environment(), "rows": rows}
    publish(run.workdir / "tuned", found, tune_table(rows))


if __name__ == "__main__":
    main(tune_decoder, define_flags, several=False, kept=nothing_kept)
