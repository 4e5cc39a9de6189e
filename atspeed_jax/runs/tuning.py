"""Stage "tune": the fastest way to decode on this machine, in WORKDIR/tuned.json.

The choice holds for the pair, the norm and the device that it was made with. It is used
wherever the run decodes, unless other settings are asked for (`runs.serve`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator

import jax

from atspeed_jax.data.users import held_out_users
from atspeed_jax.reporting.environment import environment, machine
from atspeed_jax.reporting.tables import as_markdown, tune_table
from atspeed_jax.runs.fingerprints import recorded_fingerprint
from atspeed_jax.runs.trained import RunView
from atspeed_jax.training.preemption import stop_after_sigterm
from atspeed_jax.tuning.candidates import measured, widest
from atspeed_jax.tuning.tune import TuneConfig, choose
from atspeed_jax.tuning.tuned_file import TUNED_FILE, TunedFor, Tuning
from atspeed_jax.utils.files import write_json, write_text


def tuned_for(run: RunView) -> TunedFor:
    """What a choice that is made now, or used now, must hold for."""
    return TunedFor(
        **machine(),
        score_norm=run.serve.decode.score_norm,
        id_length=run.dataset.catalog.length,
        target=recorded_fingerprint(run.workdir / "target"),
        draft=recorded_fingerprint(run.workdir / "draft"),
    )


def tune_run(run: RunView, config: TuneConfig, say: Callable[[str], None], *, again: bool) -> Tuning:
    """Tunes a trained run, and writes tuned.json and tuned.md after every choice.

    Args:
      run: a trained run.
      config: what is tuned.
      say: gets lines about what is done.
      again: whether a choice that the file has already is made anew. Choices of other
        K and batch sizes are kept if they hold for the same pair, norm and device.

    Returns:
      What the file holds then.
    """
    wanted, place, path = tuned_for(run), environment(), run.workdir / TUNED_FILE
    old = Tuning.read(run.workdir)
    if old is not None and (why := old.unfit(wanted)):
        say(f"{why}: it is made anew")
        old = None
    rows = {(row["K"], row["batch"]): row for row in (old.rows if old else ())}
    for row in _rows(run, config, {} if again else rows, say):
        rows[row["K"], row["batch"]] = row
        table = dataclasses.asdict(wanted) | {"environment": place, "rows": list(rows.values())}
        write_json(path, table)
        write_text(path.with_suffix(".md"), as_markdown(tune_table(table["rows"])))
        say(f"K={row['K']}, batch {row['batch']}: {row['reason']}")  # last: it may stop the stage
    return Tuning(path, dataclasses.asdict(wanted), list(rows.values()))


def _rows(
    run: RunView, config: TuneConfig, known: Collection[tuple[int, int]], say: Callable[[str], None]
) -> Iterator[dict]:
    """Yields `Tuned.row` of each K and batch size but those that are known."""
    asked = {size: [k for k in config.beams if (k, size) not in known] for size in config.batch_sizes}
    if not any(asked.values()):
        return
    everyone, norm = held_out_users(run.dataset, "valid"), run.serve.decode.score_norm
    decoders = run.decoders(run.draft_params if "draft" in config.drafters else None)
    shape = run.serve.evaluate.batch_shape(run.config.data.history)
    for size, beams in asked.items():
        users = everyone.sample(max(config.counted, config.users, config.batches * size), config.seed)
        batches = users.batches(run.dataset, dataclasses.replace(shape, batch_size=size))
        if beams:
            timed = config.timed(batches)
            say(f"batch {size}: {len(users.users)} users, {len(timed)} batches are timed; timing the parts of a search")
            wide = [widest(k, norm, decoders.prefixes[norm]) for k in beams]
            times = measured(decoders, timed, wide, config.drafters)
            for k in beams:
                yield choose(decoders, batches, k, norm, config, times=times, say=say).row


def tune_stage(run: RunView) -> None:
    """Tunes each K of `evaluate.tune` for one user at a time, unless that is done.

    Few users, few finalists and the draft model alone: launch.tune_decoder takes the
    time for more. SIGTERM ends the stage; choices that were made before are kept.
    """

    def say(text: str) -> None:
        stop_after_sigterm("tune")
        print(f"[tune] {text}", flush=True)

    if jax.process_count() > 1:
        say("left out: it times one process, and this run has several")
    else:
        config = TuneConfig(run.serve.evaluate.tune, (1,), ("draft",), finalists=3, users=60)
        tune_run(run, config, say, again=False)
