"""Makes all stages in order. A stage that is complete is skipped.

python -m launch.pipeline --config=configs/tiny.py --workdir=DIR [--data_dir=DIR] [--config.x.y=...]
python -m launch.pipeline --workdir=DIR   # continues a run
"""

from absl import flags

from launch.stage import FLAGS, main


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_bool("tune", True, "Search for the fastest way to decode each K of config.evaluate.tune.")


if __name__ == "__main__":
    main(lambda run: run.all(tune=FLAGS.tune), define_flags, trains=True)
