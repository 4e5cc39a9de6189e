"""Will it fit? Compiles the steps of a run for a mesh of devices that need not exist.

python -m launch.plan --config=configs/beauty_llama7b.py --devices=256 [--chip=v5e] [--hbm_gib=16] [--json=F]
    [--compiler=tpu] [--batch_per_device=N] [--steps=train,align,decode] [--data_dir=DIR] [--items=12000]

Prints memory, FLOPs and received bytes per device, as compiled and as estimated. The
exit code is 1 if the largest peak is over --hbm_gib. Of pretrained models only
config.json is read. Without --data_dir the items have random ids. --compiler=tpu
compiles with libtpu for a slice of the chip, which needs no TPU.
"""

from pathlib import Path

from absl import flags

from atspeed_jax.items.catalog import Catalog
from atspeed_jax.planning.plan import NOTES, STEPS, plan, table
from atspeed_jax.planning.tpu import tpu_devices
from atspeed_jax.reporting.tables import as_text
from atspeed_jax.runs.experiment import ExperimentConfig
from atspeed_jax.training.chips import CHIPS, chip_of
from atspeed_jax.utils import files
from launch.config import load
from launch.host_devices import use_host_devices
from launch.stage import FLAGS, start


def define_flags() -> None:
    """Defines the flags of this main."""
    flags.DEFINE_integer("devices", None, "Devices to plan for.", lower_bound=1, upper_bound=100_000)
    flags.DEFINE_string("chip", "v5e", f"Chip of the roofline: {', '.join(CHIPS)}.")
    flags.DEFINE_enum("compiler", "cpu", ["cpu", "tpu"], "Whose compiler compiles.")
    flags.DEFINE_float("hbm_gib", None, "Memory of a device; without it, that of the chip.", 1e-3, 1e6)
    flags.DEFINE_string("json", None, "File to write the figures to.")
    flags.DEFINE_integer("batch_per_device", None, "Rows per device, instead of the config's batch sizes.", 1, 65_536)
    flags.DEFINE_list("steps", list(STEPS), "Steps that are compiled.")
    flags.DEFINE_integer("items", 12_000, "Items with random ids of 4 codes of 256, for no --data_dir.", 1, 100_000_000)


def main() -> None:
    path = Path(FLAGS.json) if FLAGS.json else None
    if path:
        files.check_writable("--json", path)
    config, chip, data = load(FLAGS.config, ExperimentConfig), chip_of(FLAGS.chip), FLAGS.data_dir
    catalog = config.data.read(data).catalog if data else Catalog.random(FLAGS.items, (256,) * 4)
    print(f"{catalog.items:,} items" + ("" if data else " with random ids (no --data_dir)"))
    tpus = tpu_devices(FLAGS.chip, FLAGS.devices) if FLAGS.compiler == "tpu" else None
    rows = plan(config, catalog, chip, steps=tuple(FLAGS.steps), per_device=FLAGS.batch_per_device, tpus=tpus)
    peak, limit = max(row["peak_gib_per_device"] for row in rows), FLAGS.hbm_gib or chip.hbm_gib
    print(as_text(table(rows)), NOTES[FLAGS.compiler], sep="\n")
    if path:
        files.write_json(path, {"peak_gib_per_device": peak, "hbm_gib": limit, "steps": rows})
    print(f"Largest peak of a device: {peak:.2f} GiB of {limit:g} GiB, {'too much' if peak > limit else 'which fits'}")
    if peak > limit:
        raise SystemExit(1)


if __name__ == "__main__":
    start(main, define_flags, required=("config", "devices"), first=lambda: use_host_devices(FLAGS.devices))
