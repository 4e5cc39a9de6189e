"""Decodes the target's beams for every training user.

python -m launch.make_teacher --config=configs/tiny.py --workdir=DIR [--data_dir=DIR] [--config.x.y=...]
python -m launch.make_teacher --workdir=DIR   # continues a run
"""

from launch.stage import main

if __name__ == "__main__":
    main(lambda run: run.teacher(), trains=True)
