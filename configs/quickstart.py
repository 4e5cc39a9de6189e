"""The whole pipeline in under six minutes on synthetic data: what ./launch/quickstart.sh runs.

The data and the draft are those of configs/tiny.py. The target has 2.7 M parameters: a call of it costs enough to be
worth saving.
"""

import ml_collections

from configs import tiny


def get_config() -> ml_collections.ConfigDict:
    config = tiny.get_config()
    config.name = "quickstart"
    config.target.update(hidden_size=192, intermediate_size=512, layers=6, heads=4, kv_heads=4, head_dim=48)
    config.train_target.update(epochs=6.0, learning_rate=2e-3, evaluations=2)
    config.decode.unroll = True
    config.evaluate.tune = (20, 5, 1)
    return config
