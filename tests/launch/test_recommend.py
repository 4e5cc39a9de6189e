"""launch.recommend as a user meets it."""

import json
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.runs.open_run import open_run
from atspeed_jax.serving.list_file import claimed_output
from atspeed_jax.serving.recommender import Recommender
from devices import environment
from known_codes import write_index, write_known
from mains import ROOT, SMALL, run_mains

USERS = [{"user": f"u{n}", "items": list(range(n))} for n in range(5)]
NAMES = [f"B{item:02}" for item in range(40)]


@pytest.fixture(scope="module")
def ended(small_run, tmp_path_factory):
    place = tmp_path_factory.mktemp("recommend")
    (place / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in USERS))
    (place / "bad.jsonl").write_text('{"user": 1, "items": [0]}\n' * 9 + '{"user": 1, "items": [99999]}\n')
    (place / "types.jsonl").write_text('{"user": 1, "items": []}\n{"user": "a", "items": []}\n')

    for file in small_run.workdir.iterdir():
        (place / "hf" / "named").mkdir(parents=True, exist_ok=True)
        (place / "hf" / "named" / file.name).symlink_to(file)
    (place / "hf" / "named" / "names.json").write_text(json.dumps(NAMES))
    (place / "hf" / "named" / "titles.json").unlink(missing_ok=True)
    (place / "hf" / "named" / "titles.json").write_text(json.dumps({"3": "Soap"}))
    named = [user | {"items": [NAMES[item] for item in user["items"]]} for user in USERS]
    (place / "hf" / "named.jsonl").write_text("".join(json.dumps(user) + "\n" for user in named))

    write_known(place / "hf" / "model")
    write_index(place / "hf" / "x.index.json")

    def case(checkpoint, *more, config=None, users="users.jsonl", output="recs.jsonl"):
        served = [f"--checkpoint={checkpoint}"] if checkpoint else []
        flags = [*served, f"--input={place / users}", f"--output={place / output}", *more]
        return "recommend", None, config, flags, ""

    model, index = f"--model={place / 'hf' / 'model'}", f"--index={place / 'hf' / 'x.index.json'}"

    cases = {
        "lists": case(small_run.workdir, "--k=6", "--exclude_seen", "--chunk=2"),
        "again": case(small_run.workdir, "--k=6", "--exclude_seen"),
        "its config given": case(small_run.workdir, "--k=6", config=SMALL, output="given.jsonl"),
        "no checkpoint": case(place / "nothing", output="other.jsonl"),
        "served otherwise": case(
            small_run.workdir,
            "--k=11",
            "--config.decode.widths=('all', 9)",
            "--config.evaluate.batch_size=3",
            output="served.jsonl",
        ),
        "exactly": case(small_run.workdir, "--k=11", "--drafter=none", output="exactly.jsonl"),
        "trained otherwise": case(small_run.workdir, "--config.align.alpha=0.5", output="other.jsonl"),
        "unknown item": case(small_run.workdir, "--k=6", users="bad.jsonl", output="other.jsonl"),
        "another is at it": case(small_run.workdir, "--k=6", output="held.jsonl"),
        "names": case(
            place / "hf" / "named", "--k=6", "--exclude_seen", users="hf/named.jsonl", output="hf/named_lists.parquet"
        ),
        "unknown name": case(place / "hf" / "named", "--k=6", output="other.jsonl"),
        "unknown suffix": case(small_run.workdir, "--k=6", output="other.csv"),
        "a model": case(None, model, index, "--k=6", "--template=the user has {items}", output="model.jsonl"),
        "no index": case(None, model, output="other.jsonl"),
        "a model and a run": case(small_run.workdir, model, index, output="other.jsonl"),
        "neither": case(None, output="other.jsonl"),
        "two types": case(small_run.workdir, "--k=6", users="types.jsonl", output="other.parquet"),
    }
    with claimed_output(place / "held.jsonl"):
        return place, dict(zip(cases, run_mains(cases.values()), strict=True))


def test_every_user_gets_a_list_without_what_was_seen(ended):
    place, results = ended
    assert results["lists"].code == 0
    assert "5 users" in results["lists"].out
    lines = [json.loads(line) for line in (place / "recs.jsonl").read_text().splitlines()]
    assert [line["user"] for line in lines] == [user["user"] for user in USERS]
    assert results["its config given"].code == 0
    assert len((place / "given.jsonl").read_text().splitlines()) == 5
    for line, user in zip(lines, USERS, strict=True):
        assert len(set(line["items"])) == len(line["scores"]) == 6
        assert not set(line["items"]) & set(user["items"])


def test_a_run_with_names_reads_and_writes_them(ended):
    place, results = ended
    assert results["names"].code == 0, results["names"].err
    lines = [json.loads(line) for line in (place / "recs.jsonl").read_text().splitlines()]
    for line, named in zip(lines, pq.read_table(place / "hf" / "named_lists.parquet").to_pylist(), strict=True):
        assert named["items"] == [NAMES[item] for item in line["items"]]
        assert named["titles"] == ["Soap" if item == 3 else None for item in line["items"]]
        assert (named["user"], named["scores"]) == (line["user"], line["scores"])


@pytest.mark.parametrize(
    ("output", "how"),
    [("recs.jsonl", {"k": 6, "exclude_seen": True}), ("exactly.jsonl", {"k": 11, "drafter": "none"})],
)
def test_a_recommender_gives_the_same_lists(ended, small_run, output, how):
    lines = [json.loads(line) for line in (ended[0] / output).read_text().splitlines()]
    found = open_run(small_run.workdir).recommender(**how)([user["items"] for user in USERS])
    assert found.items == [line["items"] for line in lines]
    for scores, line in zip(found.scores, lines, strict=True):
        assert scores == pytest.approx(line["scores"], abs=1e-5)


def test_a_model_that_knows_the_codes_is_served_without_a_run(ended):
    place, results = ended
    assert results["a model"].code == 0, results["a model"].err
    lines = [json.loads(line) for line in (place / "model.jsonl").read_text().splitlines()]
    prompt = PromptConfig("instruction", "the user has {items}", "")
    recommend = Recommender.from_hugging_face(place / "hf" / "model", place / "hf" / "x.index.json", k=6, prompt=prompt)
    found = recommend([user["items"] for user in USERS])
    assert found.items == [line["items"] for line in lines]


def test_widths_too_small_for_k_are_raised_and_give_the_same_lists(ended):
    place, results = ended
    assert results["served otherwise"].code == results["exactly"].code == 0, results["served otherwise"].err
    assert "raised to what K=11 needs: widths ('all', 9) -> ('all', 11)" in results["served otherwise"].out
    changes = "config.decode.widths: ['all', 10] -> ['all', 9], config.evaluate.batch_size: 1 -> 3"
    assert f"note: served otherwise than recorded: {changes}\n" in results["served otherwise"].out
    served, exactly = ((place / f"{name}.jsonl").read_text().splitlines() for name in ("served", "exactly"))
    assert len(served) == len(exactly) == 5
    for line, other in zip(map(json.loads, served), map(json.loads, exactly), strict=True):
        assert line["items"] == other["items"]
        assert len(line["items"]) == 11
        assert line["scores"] == pytest.approx(other["scores"], abs=1e-4)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("again", "recs.jsonl exists; choose another --output"),
        ("no checkpoint", "nothing (no experiment.json); give the directory of a run"),
        ("trained otherwise", "was trained with another config (recorded -> given): config.align.alpha: 0.9 -> 0.5"),
        ("another is at it", "held.jsonl is being written by another process; wait for it"),
        ("unknown suffix", "other.csv: the name must end in .jsonl or .ndjson or"),
        ("no index", "give --index=FILE too, which says what codes each item has"),
        ("a model and a run", "--model serves a Hugging Face directory: leave --workdir and --config out"),
        ("neither", "give --workdir=DIR of a trained run, or --model=HF_DIR and --index=FILE"),
        ("two types", "types.jsonl, line 2: user 'a' is no int64 as the users before"),
        ("unknown name", "users.jsonl, line 2: item 0 of user 'u1' is not in the catalog, whose 40 items are called"),
        ("unknown item", "bad.jsonl, line 10: item 99999 of user 1 is not in the catalog"),
    ],
)
def test_a_mistake_ends_in_one_clear_line(ended, case, message):
    place, results = ended
    assert results[case].code == 1
    assert "Traceback" not in results[case].err
    assert message in results[case].err.splitlines()[-1]
    written = {f"{name}.jsonl" for name in ("recs", "given", "served", "exactly", "model")}
    kept = {"users.jsonl", "bad.jsonl", "types.jsonl", "hf"} | written
    assert {path.name for path in place.iterdir()} == kept  # a refused input leaves nothing half made


@pytest.mark.slow  # it waits for a real process to be at work
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75)])
def test_a_killed_job_goes_on_to_the_same_file(small_run, tmp_path, sign, code):
    users = [{"user": n, "items": [n % 7, n % 11]} for n in range(60)]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in users))

    def started(name, chunk):
        flags = [f"--checkpoint={small_run.workdir}", f"--input={tmp_path / 'users.jsonl'}", f"--chunk={chunk}"]
        command = [sys.executable, "-m", "launch.recommend", *flags, f"--output={tmp_path / name}", "--k=6"]
        return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    partial = tmp_path / "killed.jsonl.partial"
    killed, deadline = started("killed.jsonl", 1), time.monotonic() + 300
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= 3):
        assert killed.poll() is None
        assert time.monotonic() < deadline
    killed.send_signal(sign)
    said = killed.communicate()[1].splitlines()[-1]
    assert killed.returncode == code
    assert (f" users in {partial} are kept; run the same command to go on" in said) == (code == 75)
    assert not (tmp_path / "killed.jsonl").exists()
    assert 3 <= partial.read_bytes().count(b"\n") < 60
    assert started("killed.jsonl", 20).wait() == 0
    assert started("whole.jsonl", 20).wait() == 0
    assert (tmp_path / "killed.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.jsonl", "users.jsonl", "whole.jsonl"]


MESHED = """
import small

def get_config():
    config = small.get_config()
    for model in (config.target, config.draft):
        model.kv_heads = 2
    config.mesh = dict(data=None, fsdp=2, tensor=2)
    return config
"""


@pytest.mark.slow  # a whole small pipeline on four devices, then processes with one, two and eight
def test_a_run_trained_on_a_mesh_is_served_on_any_number_of_devices(tmp_path):
    (tmp_path / "meshed.py").write_text(MESHED)
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(user) + "\n" for user in USERS))
    run, users = tmp_path / "run", tmp_path / "users.jsonl"

    def main(name, devices, *flags):
        command = [sys.executable, "-m", f"launch.{name}", f"--workdir={run}", *flags]
        done = subprocess.run(command, cwd=ROOT, env=environment(devices), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    main("pipeline", 4, f"--config={tmp_path / 'meshed.py'}")
    said, lists = {}, {}
    for devices in (1, 2, 8):
        output = tmp_path / f"{devices}.jsonl"
        said[devices] = main("recommend", devices, f"--input={users}", f"--output={output}", "--k=6")
        lists[devices] = [json.loads(line) for line in output.read_text().splitlines()]
    note = "note: the run's mesh does not fit the {} devices here: MeshConfig(data=None, fsdp=2, tensor=2) -> {}"
    assert note.format(1, "MeshConfig(data=None, fsdp=1, tensor=1)") in said[1]
    assert note.format(2, "MeshConfig(data=None, fsdp=1, tensor=2)") in said[2]
    assert "does not fit" not in said[8]
    for other in (lists[2], lists[8]):
        assert [line["items"] for line in other] == [line["items"] for line in lists[1]]
        for line, alone in zip(other, lists[1], strict=True):
            assert line["scores"] == pytest.approx(alone["scores"], abs=1e-4)
    told = main("evaluate", 2, "--config.mesh.tensor=1", "--config.mesh.fsdp=1")  # and a mesh of one's own
    assert "config.mesh.fsdp: 2 -> 1, config.mesh.tensor: 2 -> 1" in told
    assert "does not fit" not in told
    assert len(list((run / "evaluation").iterdir())) == 2  # times on other devices are others
