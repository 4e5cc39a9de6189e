"""All stages in order; skips what is complete.

python -m launch.pipeline --config=configs/tiny.py --workdir=DIR [--data_dir=DIR] [--config.x.y=...]
python -m launch.pipeline --workdir=DIR   # of a run that is begun
"""

from launch.stage import main

if __name__ == "__main__":
    main(lambda run: run.all(), trains=True)
