"""Will it fit? Compiles the steps of a run for a mesh of so many devices, none of which need be there.

python -m launch.plan --config=configs/beauty_llama7b.py --devices=256 [--chip=v5e] [--hbm_gib=16] [--json=F]
    [--batch_per_device=N] [--steps=train,align,decode] [--data_dir=DIR] [--items=12000] [--config.x.y=...]

Prints memory, FLOPs and bytes received per device, as compiled and as estimated; exit code 1 if the largest peak is
over --hbm_gib. Models are read from config.json alone; without --data_dir the items have random ids.
"""

import os
from pathlib import Path

import jax
from absl import flags

from atspeed_jax.data.sources import read_atspeed
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.planning.plan import NOTE, STEPS, plan, random_catalog, table
from atspeed_jax.reporting.tables import plain
from atspeed_jax.training.chips import CHIPS, chip_of
from atspeed_jax.utils import files
from launch.stage import given_config, start

_DEVICES = flags.DEFINE_integer("devices", None, "Devices to plan for.", lower_bound=1, upper_bound=100_000)
_CHIP = flags.DEFINE_string("chip", "v5e", f"Of the roofline: {', '.join(CHIPS)}.")
_HBM = flags.DEFINE_float("hbm_gib", None, "Memory of a device; the chip's, if not given.", 1e-3, 1e6)
_JSON = flags.DEFINE_string("json", None, "File to write the figures to.")
_ROWS = flags.DEFINE_integer("batch_per_device", None, "Rows per device, for the config's batch sizes.", 1, 65_536)
_STEPS = flags.DEFINE_list("steps", list(STEPS), "Which steps are compiled.")
_ITEMS = flags.DEFINE_integer("items", 12_000, "Items with random ids of 4 codes of 256, without data.", 1, 100_000_000)


def on_cpu() -> None:
    """So many devices of the host, whatever else is there; programs are compiled, not run, so need no optimizing."""
    given = os.environ.get("XLA_FLAGS", "")
    own = f"--xla_force_host_platform_device_count={_DEVICES.value} --xla_backend_optimization_level=0"
    os.environ["XLA_FLAGS"] = f"{own} {given}"
    jax.config.update("jax_platforms", "cpu")  # the variable JAX_PLATFORMS was read when jax was imported


def main() -> None:
    path = Path(_JSON.value) if _JSON.value else None
    if path:
        files.check_writable("--json", path)
    config, chip, data = given_config(), chip_of(_CHIP.value), flags.FLAGS.data_dir
    catalog = Catalog.from_codes(read_atspeed(data).codes) if data else random_catalog(_ITEMS.value)
    print(f"{catalog.items:,} items" + ("" if data else " with random ids (no --data_dir)"))
    rows = plan(config, catalog, chip, steps=tuple(_STEPS.value), per_device=_ROWS.value)
    peak, limit = max(row["peak_gib_per_device"] for row in rows), _HBM.value or chip.hbm_gib
    print(plain(table(rows)), NOTE, sep="\n")
    if path:
        files.write_json(path, {"peak_gib_per_device": peak, "hbm_gib": limit, "steps": rows})
    print(f"Largest peak of a device: {peak:.2f} GiB of {limit:g} GiB, {'too much' if peak > limit else 'which fits'}")
    if peak > limit:
        raise SystemExit(1)


if __name__ == "__main__":
    start(main, required=("config", "devices"), first=on_cpu)
