"""Trains the target.

python -m launch.train_target --config=configs/tiny.py --workdir=DIR [--data_dir=DIR] [--config.x.y=...]
python -m launch.train_target --workdir=DIR   # continues a run
"""

from launch.stage import main

if __name__ == "__main__":
    main(lambda run: run.target(), trains=True)
