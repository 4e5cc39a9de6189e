"""A process of its own: a run on an accelerator, of tiny shapes and without the libraries that such a machine lacks.

python accelerator_run.py OUT
"""

import sys
from pathlib import Path

LACKING = (
    "ml_collections",
    "tensorflow_datasets",
    "grain",
    "array_record",
    "tensorflow",
    "tensorboardX",
    "orbax",
    "pyarrow",
    "tokenizers",
)


def main(out: Path) -> None:
    sys.modules |= dict.fromkeys(LACKING)  # whoever imports one fails
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from atspeed_jax.accelerator import run
    from atspeed_jax.benchmarks import decode_floor
    from atspeed_jax.benchmarks.pair import write_pair
    from tiny_pair import tiny_pair

    def here(command, seconds, say):
        """Runs a part in this process, which has imported all and need not compile twice."""
        try:
            run.main(command[3:])
        except SystemExit as ended:
            return ended.code, str(ended.code)

    decode_floor._SIDE, decode_floor._COPIED = {"cpu": 64}, {"cpu": 1 << 16}
    run.limited = here
    write_pair(out / "tiny.pack", tiny_pair())
    sizes = ["--shapes=pair", "--beams=2", "--batches=1", "--prompt=9", "--users=3", "--repeats=1", "--threads=2"]
    steps = ["--step_shape=pair", "--step_rows=4", "--dtype=float32"]
    others = ["--wide_beams=0", "--generate=False"]
    run.main([f"--pair={out / 'tiny.pack'}", f"--out={out}", *sizes, *steps, *others])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
