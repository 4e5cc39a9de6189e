"""Measures a trained run and writes its report.

python -m launch.evaluate --config=configs/tiny.py --workdir=DIR [--full]
"""

from absl import flags

from launch.stage import main

_FULL = flags.DEFINE_bool("full", False, "The whole grid on all test users, not on a fixed few.")

if __name__ == "__main__":
    main(lambda run: run.evaluation(full=_FULL.value))
