"""Finds the fastest way to decode on this machine, per K and batch size.

python -m launch.tune_decoder --workdir=DIR [--beams=20,5,1] [--batch_sizes=1,64] [--check_grid]

Compares thousands of settings on validation users of a trained run by what they are
expected to cost, and times the few best beside plain beam search; nothing else should
run. The choice is one of these, or plain beam search. Writes DIR/tuned.json, which
launch.recommend reads, and DIR/tuned.md. --check_grid also times a grid of settings,
and says how the choice compares with the fastest of them.
"""

from absl import flags

from atspeed_jax.reporting.tables import as_text, tune_table
from atspeed_jax.runs.checks import check_grid
from atspeed_jax.runs.tuning import tune_run
from atspeed_jax.serving.settings import parse_widths
from atspeed_jax.tuning.tune import TuneConfig
from atspeed_jax.utils.ranges import BatchSize, Beams
from launch.command_line import define_numbers
from launch.sigterm import nothing_kept
from launch.stage import FLAGS, main, say


def define_flags() -> None:
    """Defines the flags of this main."""
    define_numbers("beams", "20,5,1", Beams, "K.")
    define_numbers("batch_sizes", "1,64", BatchSize, "Users decoded at once.")
    flags.DEFINE_list("drafters", ["draft", "popularity"], "Which models draft.")
    flags.DEFINE_integer("finalists", 4, "Settings that are timed beside plain beam search.", 1, 100)
    flags.DEFINE_multi_string("widths", [], "Widths that are timed as well, not chosen, such as 20,20,20.")
    flags.DEFINE_bool("check_grid", False, "Also time a grid of three widths per level, to compare.")
    flags.DEFINE_integer("batches", 5, "Least number of batches timed.", lower_bound=1, upper_bound=1_000_000)
    flags.DEFINE_integer("repeats", 3, "Timings of each batch; their median counts.", 1, 10_000)


def tune_decoder(run) -> None:
    config = TuneConfig(
        beams=tuple(FLAGS.beams),
        batch_sizes=tuple(FLAGS.batch_sizes),
        drafters=tuple(FLAGS.drafters),
        finalists=FLAGS.finalists,
        check=tuple(map(parse_widths, FLAGS.widths)),
        grid=3 * FLAGS.check_grid,
        batches=FLAGS.batches,
        repeats=FLAGS.repeats,
    )
    check_grid("--widths", config.check, run.dataset)
    tuning = tune_run(run, config, lambda text: say(f"[tune] {text}"), again=True)
    print(as_text(tune_table(tuning.rows)))


if __name__ == "__main__":
    main(tune_decoder, define_flags, several=False, kept=nothing_kept)
