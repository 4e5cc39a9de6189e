import os
import subprocess

import jax

from atspeed_jax.reporting.environment import environment, git_revision, what_was_run
from atspeed_jax.reporting.report import validate_report


def test_environment_names_this_machine(report):
    found = environment()
    validate_report({**report, "environment": found})
    assert found["jax"] == jax.__version__
    assert found["cpu_count"] == os.cpu_count()
    assert found["device"] == jax.devices()[0].device_kind


def test_what_was_run_names_the_command(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/anna/atspeed/launch/pipeline.py", "--workdir=my runs/a"])
    found = what_was_run()
    assert found["command"] == "python -m launch.pipeline '--workdir=my runs/a'"
    assert f"jax {jax.__version__}" in found["versions"]
    monkeypatch.setattr("sys.argv", ["/usr/bin/jupyter", "notebook"])
    assert what_was_run()["command"] == "jupyter notebook"


def test_git_revision(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text("1\n")
    assert git_revision(package) is None

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", tmp_path, *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    git("commit", "-m", "empty", "--allow-empty", "--no-verify")
    assert git_revision(package) is None  # inside a repository that does not track it
    git("add", ".")
    git("commit", "-m", "a", "--no-verify")
    revision = git("rev-parse", "HEAD")[:12]
    assert git_revision(package) == revision
    (package / "a.py").write_text("2\n")
    assert git_revision(package) == f"{revision}-dirty"


def test_no_git_program_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_revision(tmp_path) is None
