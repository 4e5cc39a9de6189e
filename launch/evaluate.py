"""Measures a trained run and writes its report.

python -m launch.evaluate --workdir=DIR [--full] [--config.decode.widths=...] [--config.evaluate.batch_size=...]
"""

from absl import flags

from launch.stage import FLAGS, main


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_bool("full", False, "Measure the whole grid on all test users, not on grid_users of them.")


if __name__ == "__main__":
    main(lambda run: run.evaluation(full=FLAGS.full), define_flags)
