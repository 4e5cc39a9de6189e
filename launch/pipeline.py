"""Makes all stages in order. A stage that is complete is skipped.

python -m launch.pipeline --config=configs/tiny.py --workdir=DIR [--data_dir=DIR] [--config.x.y=...]
python -m launch.pipeline --workdir=DIR   # continues a run
"""

from launch.stage import main

if __name__ == "__main__":
    main(lambda run: run.all(), trains=True)
