"""The whole pipeline in under six minutes on synthetic data: what ./launch/quickstart.sh runs.

The data and the draft are those of configs/tiny.py. The target has 2.4 M parameters: a call of it costs enough to be
worth saving. Of the tuner's work, compiling takes most, so K = 5 and 1 are tuned with the draft model alone;
--config.evaluate.tune=20,5,1 adds K = 20.
"""

import ml_collections

from configs import tiny


def get_config() -> ml_collections.ConfigDict:
    config = tiny.get_config()
    config.name = "quickstart"
    config.target.update(hidden_size=256, intermediate_size=704, layers=3, heads=4, kv_heads=4, head_dim=64)
    config.train_target.update(epochs=6.0, learning_rate=2e-3, evaluations=2)
    config.decode.unroll = True
    config.evaluate.tune = (5, 1)
    return config
