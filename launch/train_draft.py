"""Trains the draft: next items, then alignment.

python -m launch.train_draft --config=configs/tiny.py --workdir=DIR [--data_dir=DIR] [--config.x.y=...]
python -m launch.train_draft --workdir=DIR   # continues a run
"""

from launch.stage import main

if __name__ == "__main__":
    main(lambda run: run.draft(), trains=True)
