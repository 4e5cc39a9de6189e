"""A sweep of the small pipeline: two objectives, one seed."""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    measure = dict(
        beams=(3,),
        main_beams=(),
        drafter="draft",
        norms=("vocab",),
        modes=("strict",),
        tolerances=(),
        budgets=(),
        temperature=1.0,
        seeds=1,
        widths=(("all", 10),),
    )
    runs = dict(kd=dict(align=dict(objective="tree_kd")), words=dict(align=dict(objective="word_kd")))
    return ml_collections.ConfigDict(
        dict(
            base="tests/helpers/small.py",
            common=dict(train_align=dict(epochs=0.5)),
            runs=runs,
            seeds=(0,),
            seeded=("train_draft", "train_align"),
            reference="words",
            measure=(measure,),
        )
    )
