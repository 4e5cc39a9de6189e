"""AtSpeed-S as the paper trains its draft, on the target of lcrec_small: the reference's hyper-parameters.

    mkdir WORKDIR; cp -r DIR/data DIR/target DIR/experiment.json WORKDIR   # of a run of configs/lcrec_small.py
    python -m launch.pipeline --config=configs/atspeed_s.py --workdir=WORKDIR --data_dir=PATH/TO/beauty

Without the first line the target is trained anew. AdamW, learning rate 1e-3 with 100 warm-up steps and cosine, batch
256, 20 epochs, weight decay 0.1, patience 5, alpha 0.7 and K = 20 are the public code's (ALGORITHM.md section 7). Its
one teacher prompt per user is here the whole train history, which has no next item: the 1 - alpha part is then nothing.
"""

import ml_collections

from configs import lcrec_small


def get_config() -> ml_collections.ConfigDict:
    config = lcrec_small.get_config()
    config.name = "atspeed_s"
    config.align.update(objective="atspeed_s", alpha=0.7, top_k=20)
    reference = dict(learning_rate=1e-3, warmup_steps=100, batch_size=256, weight_decay=0.1, average=0.0)
    config.train_align.update(epochs=20.0, evaluations=20, patience=5, **reference)
    config.teacher.prompts = 1
    return config
