"""Reads or makes the interactions and stores them.

python -m launch.prepare_data --config=configs/tiny.py --workdir=DIR [--data_dir=DIR] [--config.x.y=...]
"""

from launch.stage import main

if __name__ == "__main__":
    main(lambda run: run.data())
