"""The command line of every main: its help, and what it refuses. All run as children of one process."""

import ast
import importlib
import re
from types import SimpleNamespace

import pytest
from absl import flags

from atspeed_jax.utils.ranges import Beams, Nodes, PartialShare
from launch import command_line
from main_flags import flags_of
from mains import ALL, ROOT, run_mains

DEFINED = re.compile(r'(?:DEFINE_(?!config)\w+|DEFINE_config_file|define_numbers|define_choice)\(\s*"(\w+)"')
BESIDE = {
    "benchmark": ("suites",),
    "recommend": ("hugging_face", "catalogs"),
    "ingest": ("ingest_flags",),
}  # modules that define flags of a main
PATHS = ("borrow", "output", "json", "workdir")


def defined(main: str) -> set[str]:
    """The flags of a main, as its source and those of the modules it shares them with define them."""
    files = [ROOT / "launch" / f"{name}.py" for name in (main, "stage", *BESIDE.get(main, ()))]
    return {name for file in files for name in DEFINED.findall(file.read_text())}


@pytest.fixture(scope="module")
def ended():
    """What every main says of --help, of a flag with a slip in its name, and of a URL."""
    cases = {}
    for main in ALL:
        path = "config" if main == "plan" else next(name for name in PATHS if name in defined(main))
        cases[main, "help"] = (main, None, None, ["--help"], "")
        cases[main, "slip"] = (main, None, None, ["--confg=x"], "")
        cases[main, "URL"] = (main, None, None, [f"--{path}=gs://bucket/run", *required(main, but=path)], "")
    return dict(zip(cases, run_mains(cases.values()), strict=True))


def required(main: str, but: str) -> list[str]:
    """The flags that a main must have, another one apart."""
    found = re.search(r"required=\((.*?)\)", (ROOT / "launch" / f"{main}.py").read_text())
    names = re.findall(r'"(\w+)"', found[1]) if found else ["config", "workdir"]
    given = {"suite": "trie", "devices": 2, "config": "configs/tiny.py"}
    return [f"--{name}={given.get(name, 'x')}" for name in names if name != but]


@pytest.mark.parametrize("main", ALL)
def test_help_shows_every_flag_and_ends_with_0(ended, main):
    result = ended[main, "help"]
    assert (result.code, result.err) == (0, "")
    shown = re.findall(r"^  --(?:\[no\])?(\w+)", result.out, re.MULTILINE)
    assert len(shown) == len(set(shown))
    assert set(shown) == defined(main) | {"verbosity"}
    assert "config" in shown
    assert f"python -m launch.{main}" in result.out
    assert max(map(len, result.out.splitlines())) <= 120, "as wide as the docstrings"


def test_all_mains_are_imported_in_one_process_and_each_has_its_own_flags_alone():
    mains = {name: importlib.import_module(f"launch.{name}") for name in ALL}
    for name, module in mains.items():
        with flags_of(module):
            shown = re.findall(r"^  --(?:\[no\])?(\w+)", command_line.help_text(()), re.MULTILINE)
        assert set(shown) == defined(name) | {"verbosity"}


@pytest.mark.parametrize("main", ALL)
def test_a_slip_in_a_flag_names_the_nearest(ended, main):
    result = ended[main, "slip"]
    assert result.code == 1
    assert result.err == "error: there is no flag --confg; did you mean --config? --help shows all flags\n"


@pytest.mark.parametrize("main", ALL)
def test_a_url_is_refused(ended, main):
    result = ended[main, "URL"]
    assert result.code == 1
    assert "=gs://bucket/run: expected a path in this machine's file system" in result.err
    assert result.err.startswith("error: --")
    assert result.err.count("\n") == 1
    assert not (ROOT / "gs:").exists()


@pytest.fixture
def main(monkeypatch):
    """parse(*arguments): what a main with some flags of each kind, all its own, makes of the arguments."""
    values = flags.FlagValues()
    how = {"flag_values": values, "module_name": "launch.some"}
    flags.DEFINE_string("workdir", None, "Where.", **how)
    flags.DEFINE_enum("drafter", "draft", ["draft", "none"], "Who.", **how)
    flags.DEFINE_multi_string("borrow", [], "From whom.", **how)
    flags.DEFINE_list("names", ["a", "b"], "Which.", **how)
    flags.DEFINE_list("only", [], "No others.", **how)
    flags.DEFINE_float("share", 1.0, "Of all.", upper_bound=2.0, **how)
    flags.DEFINE_bool("full", False, "All of it.", **how)
    flags.DEFINE_integer("verbosity", -1, "absl's", flag_values=values, module_name="absl.logging")
    flags.DEFINE_string("workdirs_of_grain", None, "Another library's.", flag_values=values, module_name="grain")
    monkeypatch.setattr(command_line.flags, "FLAGS", values)
    parse = command_line.parser(("workdir",))
    return SimpleNamespace(parse=lambda *arguments: parse(["some", *arguments]), values=values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --workdir=...; --help"),
        (["--workdir=x", "y", "z"], "'y' is no flag"),
        (["--full", "false", "--workdir=x"], "'false' is no flag"),
        (["--workdir=x", "--drafter=dragt"], "--drafter=dragt: .*draft.*none"),
        (["--workdir=x", "--drafer=none"], "there is no flag --drafer; did you mean --drafter\\?"),
        (["--workdir=x", "--nofulll"], "there is no flag --nofulll; did you mean --nofull\\?"),
        (["--workdirs=x"], "there is no flag --workdirs; did you mean --workdir\\?"),  # not grain's
        (["--zzz"], "there is no flag --zzz; --help shows all"),
        (["--workdir=x", "--config=configs/tiny.py", "--config.foo=1"], "config.foo is unknown; .*"),
        (["--config=gs://b/c.py", "--workdir=x"], "--config=gs://b/c.py: expected a path"),
        (["--workdir=s3://b"], "--workdir=s3://b: expected a path"),
        (["--workdir", "S3+x://b"], "--workdir=S3\\+x://b: expected a path"),
        (["--workdir=x", "--borrow=a", "--borrow=file:///b"], "--borrow=file:///b: expected a path"),
        (["--workdir=x", "--names=a,gs://b"], "--names=gs://b: expected a path"),
        (["--workdir=gs:/b/run"], "--workdir=gs:/b/run: expected a path"),  # what Path("gs://b/run") turns into
        (["--config=s3:/b/c.py", "--workdir=x"], "--config=s3:/b/c.py: expected a path"),
        (["--workdir=x", "--names=a,b,a"], "--names=a,b,a: a is given twice"),
        (["--workdir=x", "--borrow=r", "--borrow=r"], "--borrow=r,r: r is given twice"),
        (["--workdir=x", "--names="], "--names= is empty: expected one value or more"),
        (["--workdir=x", "--only="], "--only= is empty: expected one value or more"),
        (["--workdir=x", "--names=a,"], "--names=a,: a value is empty"),
        (["--workdir=x", "--borrow="], "--borrow=: a value is empty"),
        (["--workdir=x", "--share=nan"], "--share=nan: expected a number"),
        (["--workdir=x", "--share=inf"], "--share=inf: inf is not number <= 2.0"),
    ],
)
def test_what_is_refused(main, arguments, message):
    with pytest.raises(SystemExit, match=f"^error: .*{message}") as stop:
        main.parse(*arguments)
    assert "\n" not in str(stop.value)


def test_what_is_taken(main):
    assert main.parse("--workdir=runs/a:b", "--full", "--names=a//b,c") == ["some"]
    assert main.values.workdir == "runs/a:b"
    assert main.values.full


@pytest.mark.parametrize("path", ["a:b", "C:/runs", "C:\\runs", "./gs:/b", "runs/gs:/b", "gs:", "12:/b"])
def test_what_is_no_url_is_taken(main, path):
    main.parse(f"--workdir={path}")
    assert main.values.workdir == path


def test_every_number_has_an_upper_bound():
    """Whatever is larger would end in an overflow or an impossible allocation, long after the command line."""
    bounded = 0
    for file in sorted((ROOT / "launch").glob("*.py")):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in ("DEFINE_integer", "DEFINE_float", "DEFINE_multi_integer", "DEFINE_multi_float"):
                given = {keyword.arg for keyword in call.keywords}
                assert len(call.args) + len(given & {"lower_bound", "upper_bound"}) == 5, (
                    f"{file.name}: --{call.args[0].value}"
                )
                bounded += 1
    assert bounded > 15


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1,x", "expected whole numbers, each at least 1 and at most 10000, with commas between"),
        ("20,99999999999999999999", "expected whole numbers, each at least 1 and at most 10000, with"),
        ("20,0", "expected whole numbers, each at least 1"),
        ("none", "expected whole numbers"),
    ],
)
def test_numbers_of_a_list_are_held_to_their_range(value, message):
    values = flags.FlagValues()
    command_line.define_numbers("beams", "20,5", Beams, "K.", flag_values=values)
    with pytest.raises(flags.IllegalFlagValueError, match=f"flag --beams={value}: {message}"):
        values(["some", f"--beams={value}"])
    values(["some", "--beams=7,3"])
    assert values.beams == [7, 3]


def test_numbers_may_be_none_or_left_out_where_the_main_says_so():
    values = flags.FlagValues()
    command_line.define_numbers("budgets", "none", Nodes | None, "Nodes.", flag_values=values)
    values(["some", "--budgets=none,8"])
    assert values.budgets == [None, 8]
    command_line.define_numbers("shares", "0.5", PartialShare, "Of all.", may_be_empty=True, flag_values=values)
    with pytest.raises(flags.IllegalFlagValueError, match="flag --shares=nan: expected numbers, each at least 0 and"):
        values(["some", "--shares=nan"])
    values(["some", "--shares="])
    assert values.shares == []
    command_line.check_list(values["shares"])


def test_a_value_that_was_renamed_is_refused_with_its_name():
    values = flags.FlagValues()
    command_line.define_choice("suite", ["new", "other"], "Which.", renamed={"old": "new"}, flag_values=values)
    with pytest.raises(flags.IllegalFlagValueError, match="flag --suite=old: its name is new now"):
        values(["some", "--suite=old"])
    with pytest.raises(flags.IllegalFlagValueError, match=re.escape("value should be one of <new|other>")):
        values(["some", "--suite=none"])
    values(["some", "--suite=new"])
    assert values.suite == "new"


@pytest.mark.parametrize("asked", ["--help", "-help", "-h", "-?", "--helpshort"])
def test_help_is_given_whatever_else_is_asked(main, asked, capsys):
    with pytest.raises(SystemExit) as stop:
        main.parse("--nothing=such", asked)
    told = capsys.readouterr().out
    assert stop.value.code == 0
    assert "grain" not in told
    for line in (
        r"  --workdir=WORKDIR +Where. \(required\)",
        r"  --drafter=draft\|none +Who. \(default: draft\)",
        r"  --borrow=BORROW +From whom. \(repeatable\)",
        r"  --names=A,B,... +Which. \(default: a,b\)",
        r"  --\[no\]full +All of it. \(default: false\)",
    ):
        assert re.search(f"^{line}$", told, re.MULTILINE), line
