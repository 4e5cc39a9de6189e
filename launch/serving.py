"""What mains that decode with a trained run share."""

from pathlib import Path

from atspeed_jax.reporting.tables import Table, as_markdown, as_text
from atspeed_jax.serving.recommend import Lists
from atspeed_jax.training.preemption import stop_after_sigterm
from atspeed_jax.utils import files
from launch.stage import say

DRAFTER_HELP = (
    "Who drafts; none: plain beam search; tuned: the choice of launch.tune_decoder. Not given: that choice where it "
    "holds, else draft."
)


def by_chunk(lists: Lists) -> Lists:
    """Returns `lists` with what happens before each chunk of users.

    Before the first chunk it says that the decoder is compiled, since the progress bar
    stands still meanwhile. Before every chunk several processes ask whether SIGTERM has
    come (`stop_after_sigterm`): all chunks before are written.
    """
    waiting = True

    def chunk(users):
        nonlocal waiting
        stop_after_sigterm("recommend")
        if waiting:
            say("compiling the decoder; the bar moves when the first users are written")
        waiting = False
        return lists(users)

    return chunk


def publish(path: Path, found: dict | list, table: Table) -> None:
    """Writes PATH.json, and PATH.md with the table, and prints the table."""
    files.write_json(path.with_suffix(".json"), found)
    files.write_text(path.with_suffix(".md"), as_markdown(table))
    print(as_text(table))
