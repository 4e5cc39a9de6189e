"""Every objective of alignment on one target: the paper's, its baselines, ours.

    python -m launch.sweep --config=configs/sweeps/objectives.py --workdir=runs/objectives --data_dir=PATH/TO/beauty

with --borrow=runs/beauty after a run of configs/lcrec_small.py, whose target, teacher data and SFT draft are then used.
Every run begins with the same SFT draft (one per seed) and takes the same number of steps: objectives on the users' own
histories see half as many rows per epoch as those on the teacher's two prompts per user. With
--config=configs/sweeps/objectives.py:short it is half as long, of one seed, and measures K = 20 under the trie alone,
strict and relaxed.
"""

import ml_collections

ON_BEAMS = ("coverage", "coverage_coupled", "tree_kd", "atspeed_s", "atspeed_r", "seq_kd")
ON_GROUND_TRUTH = ("sft", "word_kd", "tvd_kd")
THREE_SEEDS = ("coverage", "tree_kd", "atspeed_s", "atspeed_r", "sft")  # the others two


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    if size not in ("full", "short"):
        raise ValueError(f"size {size!r}: expected 'full' or 'short'")
    short = size == "short"
    epochs = 1.0 if short else 2.0
    runs = {name: dict(align=dict(objective=name)) for name in ON_BEAMS}
    runs |= {name: dict(align=dict(objective=name), train_align=dict(epochs=2 * epochs)) for name in ON_GROUND_TRUTH}
    for name in () if short else THREE_SEEDS:
        runs[name]["seeds"] = (0, 1, 2)
    measure = dict(
        beams=(20,) if short else (20, 5, 1),
        main_beams=(),
        drafter="draft",
        norms=("vocab",),
        modes=("strict", "relaxed"),
        tolerances=(),
        budgets=(),
        temperature=1.0,
        seeds=1,
    )
    ways = [measure | dict(constraints=("trie",), widths=((40, 40, 40), ("all", 96, 128)))]
    if not short:
        ways.append(measure | dict(constraints=("levels",), widths=((40, 40, 40),)))
        ways.append(ways[0] | dict(modes=("coupled",), beams=(20,)))
    return ml_collections.ConfigDict(
        dict(
            base="configs/lcrec_small.py",
            common=dict(train_align=dict(epochs=epochs, evaluations=1)),
            runs=runs,
            seeds=(0,) if short else (0, 1),
            seeded=("train_draft", "train_align"),
            reference="sft",
            measure=tuple(ways),
        )
    )
