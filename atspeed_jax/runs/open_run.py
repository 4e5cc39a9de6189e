"""Opens a trained run from a program, and recommends with its models."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path

import jax

from atspeed_jax.runs.assets import Assets
from atspeed_jax.runs.experiment import ServeConfig
from atspeed_jax.runs.record import WorkdirError, recorded
from atspeed_jax.runs.serve import DrafterChoice, decoders_of, index_for, items_of, lists_by
from atspeed_jax.runs.trained import RunView
from atspeed_jax.serving.assortment import Assortment
from atspeed_jax.serving.recommend import Lists
from atspeed_jax.serving.recommender import ForAll, ListsForAll, Recommender
from atspeed_jax.training.checkpoint import is_finished
from atspeed_jax.training.sharding import fitting_mesh

_LOG = logging.getLogger(__name__)


class TrainedRun(RunView):
    """A run where nothing more is trained, read from its directory and never written."""

    def recommender(
        self,
        k: int = 20,
        *,
        drafter: DrafterChoice | None = None,
        exclude_seen: bool = False,
        batch_size: int | None = None,
        catalog: str | Path | None = None,
        allow: ForAll = None,
        exclude: ForAll = None,
    ) -> Recommender:
        """Makes a recommender of the k best next items, by strict decoding.

        Args:
          k: items per list, and beams of the search. The list of k=5 need not begin the
            list of k=60.
          drafter: who proposes beams. "draft": the aligned draft model. "popularity": how
            often items occur in training, without a model. "none": nobody, which is plain
            beam search. "tuned": what launch.tune_decoder, a command of the checkout,
            found fastest. None: "tuned" where that holds for this device and k, else
            "draft"; the logger of this module says which. The lists are the same with
            each of them.
          exclude_seen: whether the items of a history are left out of its list.
          batch_size: users decoded at once; None for `serve.evaluate.batch_size`. Fewer
            users take as long as a full batch.
          catalog: index file of the items that are listed, known and new ones; None for
            those of the run. See `Recommender.with_catalog`.
          allow, exclude: items that lists may, or may not, hold, or the file of such a
            list (`serving.filter_file`); None for no list.

        Returns:
          A `Recommender`: called with histories, it gives lists, both of them of names
          where the items of the run have names.

        Raises:
          ValueError: k is not within the catalog, or another argument cannot work.
          CheckpointError: a model is not trained or is damaged.
          TuneError: nothing was tuned for k.
        """
        items = self.catalog.items
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= items:
            raise ValueError(f"k={k!r}: expected a whole number from 1 to {items}, the number of items of the catalog")
        decoders, setting = decoders_of(self, drafter, k, _LOG.warning, batch_size=batch_size)

        def lists(items: Assortment) -> Lists:
            how = {"exclude_seen": exclude_seen, "batch_size": batch_size}
            return lists_by(self, decoders, setting, **how, items=items, say=_LOG.warning)

        read = functools.partial(index_for, self)
        return Recommender.of(lists, items_of(self), read, ListsForAll(allow, exclude), catalog)


def open_run(workdir: str | Path, *, serve: ServeConfig | None = None) -> TrainedRun:
    """Opens a trained run as its record, experiment.json, describes it.

    Writes nothing, and loads no parameters yet. A mesh that does not fit the devices is
    replaced by the nearest mesh that does; the logger of this module says so.

    Args:
      workdir: the directory of the run.
      serve: how the models decode, such as dataclasses.replace(run.serve, decode=...);
        None for what is recorded.

    Returns:
      The run. `run.recommender(k=5)` makes a function from histories to lists.

    Raises:
      WorkdirError: the directory holds no run, its record cannot be read, or data or
        target are not finished.
    """
    workdir = Path(workdir).absolute()
    config = recorded(workdir)
    missing = [name for name, made in _stages(workdir).items() if not made]
    if missing:
        raise WorkdirError(
            f"{workdir} is not trained yet ({' and '.join(missing)} missing or unfinished); finish it in the checkout "
            f"with python -m launch.pipeline --workdir={workdir}"
        )
    serve = serve or ServeConfig.of(config)
    mesh = fitting_mesh(serve.mesh)
    if mesh != serve.mesh:
        _LOG.warning("the run's mesh does not fit the %d devices: %s -> %s", jax.device_count(), serve.mesh, mesh)
    return TrainedRun(Assets(config, workdir, None, dataclasses.replace(serve, mesh=mesh)))


def _stages(workdir: Path) -> dict[str, bool]:
    """The stages without which no model decodes, and whether each is there."""
    return {"data": (workdir / "data").exists(), "target": is_finished(workdir / "target")}
