"""A file of lists that one run at a time writes line by line, across interruptions.

Lines are appended to OUTPUT.partial. OUTPUT.partial.json says how many users they
belong to, and what they were made from. A run that is started again appends behind
them. When all lines are written, the file gets its name; a parquet or compressed file
is made from the lines first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from atspeed_jax.utils import files
from atspeed_jax.utils.distributed import agreed, check_shared, is_writer

SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz", ".parquet")
OUTPUT_HELP = (
    f"File to write, named {' or '.join(SUFFIXES)}; items are called as in the input. An interrupted run goes on."
)


class RecommendError(ValueError):
    """An output that cannot be written or continued."""


@dataclasses.dataclass(frozen=True)
class Output:
    """A file of lists to be written; see `claimed_output`."""

    path: Path

    @property
    def partial(self) -> Path:
        """The file of the lines written so far."""
        return self.path.with_name(self.path.name + ".partial")

    @property
    def claim(self) -> Path:
        """The file that says how many users the lines belong to, and what they were
        made from.
        """
        return self.path.with_name(self.path.name + ".partial.json")

    @property
    def one_type(self) -> bool:
        """Whether all users must be of one type, as those of a parquet column."""
        return self.path.suffix.lower() == ".parquet"


@contextlib.contextmanager
def claimed_output(path: Path) -> Iterator[Output]:
    """Holds an output for this run while the block runs; another run that asks for it
    is refused.

    If the block writes no list, no file is left.

    Args:
      path: of the output; its name says which format is written.

    Raises:
      RecommendError: an unknown format, no such directory, a file of that name, or
        another run that is writing it. All processes raise the same.
    """
    output = Output(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise RecommendError(
            f"--output={path}: the name must end in {' or '.join(SUFFIXES)}, which says what is written"
        )
    if not agreed(path.parent.is_dir):
        raise RecommendError(f"--output={path}: there is no directory {path.parent}; make it first")
    check_shared(path.parent)
    with contextlib.ExitStack() as stack:
        try:
            locked = agreed(lambda: stack.enter_context(files.locked(path.with_name(f".{path.name}.lock"))))
        except OSError as error:
            raise RecommendError(f"{path} cannot be written ({error}); choose another --output") from error
        if not locked:
            raise RecommendError(f"{path} is being written by another process; wait for it, or choose another --output")
        if agreed(path.exists):
            raise RecommendError(f"{path} exists; choose another --output, or delete it")
        try:
            yield output
        finally:
            if is_writer() and output.partial.exists() and not output.partial.stat().st_size:
                output.partial.unlink()
                output.claim.unlink(missing_ok=True)


def resume(output: Output, fingerprint: str) -> None:
    """Prepares the partial file: keeps whole lines, cuts off what a kill left behind
    them; a new file is claimed.

    Args:
      output: of this run.
      fingerprint: of what the lists are made from.

    Raises:
      RecommendError: lines of another fingerprint, lines that were changed, or a file
        that cannot be written.
    """
    partial, claim = output.partial, output.claim
    try:
        if not partial.exists() or not partial.stat().st_size:
            nobody = {"users": 0, "histories": hashlib.sha256().hexdigest()}
            files.write_json(claim, {"fingerprint": fingerprint} | nobody)
            partial.write_bytes(b"")
            return
        made_from = _read(claim)
        if made_from.get("fingerprint") != fingerprint:
            raise RecommendError(
                f"{partial} was begun with another model, list size or decoder; delete it, or choose another --output"
            )
        with partial.open("rb+") as file:
            whole = sum(line.endswith(b"\n") for line in itertools.islice(file, made_from["users"]))
            if whole < made_from["users"]:
                raise RecommendError(
                    f"{partial} has {whole} lines, where {claim.name} counts {made_from['users']}: it was changed; "
                    "delete it, or choose another --output"
                )
            file.truncate(file.tell())
    except OSError as error:
        raise RecommendError(f"{partial} cannot be written ({error}); choose another --output") from error


def _read(claim: Path) -> dict:
    """What a partial file was made from; an empty dict if that is not known."""
    try:
        made_from = json.loads(claim.read_text("utf-8")) if claim.exists() else {}
    except ValueError as error:
        raise RecommendError(
            f"{claim} cannot be read ({error}); delete it and {claim.stem}, or choose another --output"
        ) from error
    return made_from if isinstance(made_from, dict) else {}


def finish(output: Output, chunk: int, texts: bool = False) -> None:
    """Gives the lines their final name, converted to the format that the name says.

    Args:
      output: whose partial file is complete.
      chunk: lines that are converted at a time.
      texts: whether items are called by texts; else by whole numbers.
    """
    name = output.path.name.lower()
    if name.endswith(".parquet"):
        _as_parquet(output.partial, output.path, chunk, texts=texts)
        output.partial.unlink()
    elif name.endswith(".gz"):
        unfinished = output.path.with_name(f".{output.path.name}.partial")
        with output.partial.open("rb") as lines, gzip.open(unfinished, "wb") as packed:
            shutil.copyfileobj(lines, packed)
        unfinished.replace(output.path)
        output.partial.unlink()
    else:
        output.partial.replace(output.path)
    output.claim.unlink()


def _as_parquet(lines: Path, output: Path, chunk: int, *, texts: bool) -> None:
    """Writes a parquet file of JSON lines {"user", "items", "scores"} that may have
    "titles", `chunk` lines at a time; it appears whole or not at all.
    """
    types = {"items": pa.list_(pa.string() if texts else pa.int64()), "scores": pa.list_(pa.float64())}
    unfinished, schema = output.with_name(f".{output.name}.partial"), None
    try:
        with lines.open(encoding="utf-8") as file, contextlib.ExitStack() as stack:
            while schema is None or group:
                group = [json.loads(line) for line in itertools.islice(file, chunk)]
                if group and "titles" in group[0]:
                    types["titles"] = pa.list_(pa.string())
                columns = {name: [line[name] for line in group] for name in ("user", *types)}
                if texts:
                    columns["items"] = [[str(name) for name in items] for items in columns["items"]]
                if schema is None:
                    schema = pa.schema({"user": pa.array(columns["user"]).type} | types)
                    writer = stack.enter_context(pq.ParquetWriter(unfinished, schema))
                writer.write_table(pa.table(columns, schema=schema))
        unfinished.replace(output)
    except (pa.ArrowException, OverflowError, UnicodeError) as error:
        raise RecommendError(
            f"{output}: these users cannot share a parquet column ({error}); run again with an --output "
            f"ending in .jsonl, or take the lines from {lines}"
        ) from error


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Says what to do if the block cannot write `path`, for want of space or rights."""
    try:
        yield
    except OSError as error:
        raise RecommendError(
            f"{path} cannot be written ({error}): free space there and run again, it goes on"
        ) from error
