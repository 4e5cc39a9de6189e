"""How long a raw log takes to become a directory of interactions, and how much memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from atspeed_jax.ingest.ingest import ingest
from atspeed_jax.ingest.settings import Filters, IngestSettings, Limits
from atspeed_jax.ingest.tables import quoted
from atspeed_jax.utils.files import sizes_of
from atspeed_jax.utils.program_memory import peak_memory


@dataclasses.dataclass(frozen=True)
class IngestBenchmark:
    """What is generated and ingested.

    Attributes:
      per_user, per_item: mean events of a user and of an item. Both are skewed: few
        items have most events, and many users have few.
      min_rating, core: filters; a fifth of the events is rated below 2.
      memory_gb: of DuckDB.
      seed: of the log.
    """

    per_user: int = 12
    per_item: int = 120
    min_rating: float = 2.0
    core: int = 5
    memory_gb: float = 4.0
    seed: int = 0


def write_log(config: IngestBenchmark, interactions: int, file: Path) -> None:
    """Writes a log as CSV: user_id, item_id, rating and timestamp in seconds."""
    users, items = (max(1, interactions // per) for per in (config.per_user, config.per_item))

    def uniform(column: int) -> str:
        """A number in 0..1 of row n, the same in every run."""
        return f"(hash(n, {config.seed * 10 + column}) % 1000003 / 1000003)"

    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar=false")
        connection.execute(
            f"COPY (SELECT 'U' || floor({users} * pow({uniform(0)}, 1.5))::BIGINT AS user_id, "
            f"'B' || lpad(floor({items} * pow({uniform(1)}, 3))::BIGINT::VARCHAR, 9, '0') AS item_id, "
            f"1 + floor(5 * {uniform(2)})::INTEGER AS rating, "
            f"1400000000 + floor(100000000 * {uniform(3)})::BIGINT AS timestamp FROM range({interactions}) r(n)) "
            f"TO {quoted(str(file))} (FORMAT csv, HEADER true)"
        )


def measure_ingest(config: IngestBenchmark, file: Path, say: Callable[[str], None]) -> dict:
    """Ingests a log: rating, k-core, split by time.

    Args:
      config: of the filters.
      file: of `write_log`; the directory is made beside it.
      say: prints what each stage leaves, with the seconds up to then.

    Returns:
      A row. seconds: of all stages. peak_gib: memory of this process so far, so each
      size needs a new process.
    """
    output, start = file.with_suffix(".data"), time.perf_counter()

    def timed(line: str) -> None:
        say(f"{time.perf_counter() - start:6.1f} s  {line}")

    filters = Filters(min_rating=config.min_rating, user_core=config.core, item_core=config.core)
    record = ingest(str(file), None, output, IngestSettings(filters=filters, limits=Limits(config.memory_gb)), timed)
    seconds = time.perf_counter() - start
    return {
        "interactions": record["steps"][0]["interactions"],
        "kept": record["interactions"],
        "seconds": seconds,
        "peak_gib": peak_memory() / 2**30,
        "log_gib": file.stat().st_size / 2**30,
        "data_gib": sum(sizes_of(output).values()) / 2**30,
    }
