import pytest

from launch.command_line import CommandLineError
from launch.own_record import FILE, check_k, only_one, remember, told


def test_what_was_told_is_kept_and_added_to(tmp_path):
    assert told(tmp_path) == {}
    remember(tmp_path, ingest=["--core=2"])
    remember(tmp_path, k=5)
    assert told(tmp_path) == {"ingest": ["--core=2"], "k": 5}
    check_k(tmp_path, tmp_path / "lists", 5)
    (tmp_path / FILE).write_text("[")
    with pytest.raises(CommandLineError, match=r"own.json is damaged .*; remove it"):
        told(tmp_path)


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CommandLineError, match=r"file/run cannot be made .*give another --workdir"),
        only_one(tmp_path / "file" / "run"),
    ):
        pass
