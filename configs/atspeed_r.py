"""AtSpeed-R, for relaxed verification, with everything else as in configs/atspeed_s.py; the same commands.

The target's draws are what `python -m launch.compare_modes` measures such a draft by (mode relaxed), and the kept step
is still chosen by strict target calls.
"""

import ml_collections

from configs import atspeed_s


def get_config() -> ml_collections.ConfigDict:
    config = atspeed_s.get_config()
    config.name = "atspeed_r"
    config.align.objective = "atspeed_r"
    return config
