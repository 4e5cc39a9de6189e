"""Drafts of several sizes and trees on one target: what parameters and a node budget in the loss are worth.

    python -m launch.sweep --config=configs/sweeps/drafts.py --workdir=runs/drafts --data_dir=PATH/TO/beauty

with --borrow=runs/beauty after a run of configs/lcrec_small.py, whose target and teacher data are then used. A run
called widths aligns the draft for the widths of configs/lcrec_small.py, where a run called nodes_M aligns it for the M
most promising nodes of a wider tree. The others aim at 128 nodes with the parameters that the name says, or begin as so
many layers of the target. Every draft is measured with 64 to 416 nodes per target call. With
--config=configs/sweeps/drafts.py:short each alignment is one epoch.
"""

import ml_collections

NODES = (64, 96, 128, 192, 416)
TREE = ("all", 128, 200)  # wide enough for 416 nodes
SIZES = {  # of Beauty's drafts; configs/lcrec_small.py has 0.18 M parameters
    "params_500k": dict(hidden_size=96, intermediate_size=336, layers=3, head_dim=24),
    "params_1m": dict(hidden_size=128, intermediate_size=512, layers=3, head_dim=32),
    "params_2m": dict(hidden_size=160, intermediate_size=704, layers=4, head_dim=40),
}
LAYERS = {"layers_2": (0, 3), "layers_3": (0, 1, 3)}  # of the four of Beauty's target


def get_config(size: str = "full") -> ml_collections.ConfigDict:
    if size not in ("full", "short"):
        raise ValueError(f"size {size!r}: expected 'full' or 'short'")
    runs = {"widths": {}} | {f"nodes_{nodes}": dict(decode=dict(widths=TREE, budget=nodes)) for nodes in (128, 192)}
    aim = dict(widths=TREE, budget=128)
    runs |= {name: dict(draft=draft, decode=aim) for name, draft in SIZES.items()}
    layers = {name: {"draft=": dict(target_layers=chosen)} for name, chosen in LAYERS.items()}
    runs |= {name: draft | dict(train_draft=None, decode=aim) for name, draft in layers.items()}
    measure = dict(
        beams=(20, 5, 1),
        main_beams=(),
        drafter="draft",
        norms=("vocab",),
        modes=("strict",),
        tolerances=(),
        budgets=NODES,
        temperature=1.0,
        seeds=1,
        constraints=("trie",),
        widths=(TREE,),
    )
    return ml_collections.ConfigDict(
        dict(
            base="configs/lcrec_small.py",
            common=dict(train_align=dict(epochs=1.0 if size == "short" else 10.0, evaluations=1)),
            runs=runs,
            seeds=(0,),
            seeded=("train_draft", "train_align"),
            reference="widths",
            measure=(measure,),
        )
    )
