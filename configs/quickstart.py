"""The whole pipeline in about six minutes on 2 cores on synthetic data: what ./launch/quickstart.sh runs.

The data and the draft are those of configs/tiny.py. The target has 4 M parameters: a call of it costs enough to be
worth saving. Compiling takes most of the time of tuner and evaluation, so both stop at K = 5 and 1 and at the draft
model; --config.evaluate.tune='(20, 5, 1)' and --config.evaluate.beams='(20, 5, 1)' add K = 20.
"""

import ml_collections

from configs import tiny


def get_config() -> ml_collections.ConfigDict:
    config = tiny.get_config()
    config.name = "quickstart"
    config.target.update(hidden_size=256, intermediate_size=704, layers=5, heads=4, kv_heads=4, head_dim=64)
    config.train_target.update(epochs=4.0, learning_rate=2e-3, evaluations=2)
    config.decode.unroll = True
    config.evaluate.tune = config.evaluate.beams = (5, 1)
    config.evaluate.drafters = ("draft",)
    config.evaluate.beside_tuned = False
    config.evaluate.latency_users = 100
    return config
