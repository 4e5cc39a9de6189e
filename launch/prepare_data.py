"""Reads or makes the interactions, stores them, and prints what looks wrong in them.

python -m launch.prepare_data --config=configs/tiny.py --workdir=DIR [--data_dir=DIR] [--config.x.y=...]
python -m launch.prepare_data --workdir=DIR   # continues a run
"""

from launch.stage import main

if __name__ == "__main__":
    main(lambda run: run.data(always_print=True), trains=True)
