"""The documents: short enough, and true of the files, names, flags and figures that they name."""

import functools
import importlib
import re
from pathlib import Path

import pytest
from absl import flags

import main_flags
from atspeed_jax.runs.experiment import ExperimentConfig
from configs import beauty_llama7b
from launch.config import load
from launch.overrides import check_overrides

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("atspeed_jax", "configs", "launch", "tests")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
README_LINES = 150

BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# A path ends as code does, or begins with a folder of the repository; <...> is a placeholder.
ENDS_AS_CODE = r"(?:[\w.-]+/)*[\w-]+\.(?:py|sh)\b"
PATH = re.compile(rf"(?<![\w./<>-])(?:\./)?(?:{ENDS_AS_CODE}|(?:{'|'.join(FOLDERS)})/(?:[\w.-]+/?)*)(?![\w<])")
MODULE = re.compile(r"\batspeed_jax(?:\.\w+)+")
COMMAND = re.compile(r"(?:^|-m |\.sh (?:--dry_run )?)launch\.([a-z_]+)(.*)", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--([A-Za-z]\w*(?:\.\w+)*)(?!\w|\.)(?:=([^\s\]]*))?")
CONFIG_FILE = re.compile(r"--config=(configs/\S+\.py\S*)")
CONFIGS = ("configs/lcrec_small.py", "configs/sweeps/objectives.py")
TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
FIGURE = re.compile(r"\d\.\d|\d,\d{3}")
SOURCE = {  # of figures
    "command": re.compile(r"\blaunch\.[a-z]"),
    "machine": re.compile(r"\b(EPYC|Intel|H100|H200|TPU|a CPU)\b"),
    "date": re.compile(r"\b20\d\d-\d\d-\d\d\b"),
}

LAUNCH = ROOT / "launch" / "README.md"
PUBLISHED = ROOT / "atspeed_jax" / "decoding" / "ALGORITHM.md"  # its figures are the paper's

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def text_of(document: Path) -> str:
    """The text of a document; of the changelog's tables without the first column, which holds names that are gone."""
    text = document.read_text(encoding="utf-8")
    return re.sub(r"^\|[^|\n]*", "", text, flags=re.MULTILINE) if document.name == "CHANGELOG.md" else text


def code_in(text: str) -> str:
    """What stands in code blocks and between backticks, a command a line."""
    blocks = [block.replace("\\\n", " ") for block in BLOCK.findall(text)]
    inline = re.findall(r"`([^`]+)`", BLOCK.sub("", text))
    return "\n".join([*blocks, *(" ".join(part.split()) for part in inline)])


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", text_of(document)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path, text: str) -> list[str]:
    broken = []
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if ":" not in path and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(link)
    return broken


def missing_paths(document: Path, code: str) -> list[str]:
    """Paths that exist neither from the root, nor from the document, nor from the package."""
    places = (ROOT, document.parent, ROOT / "atspeed_jax")
    return [path for path in PATH.findall(code) if not any((place / path).exists() for place in places)]


def missing_modules(code: str) -> list[str]:
    return [name for name in MODULE.findall(code) if not is_there(name.split("."))]


def is_there(parts: list[str]) -> bool:
    """Whether dotted names are those of a module, or of something that a module names."""
    for count in range(len(parts), 0, -1):
        place = ROOT.joinpath(*parts[:count])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.exists():
            return count == len(parts) or bool(re.search(rf"\b{parts[count]}\b", file.read_text(encoding="utf-8")))
    return False


@functools.cache
def flags_of(main: str) -> dict[str, flags.ArgumentParser] | None:
    """The flags of a main, and what reads a value of each; None where launch/ has no main of that name."""
    file, others = ROOT / "launch" / f"{main}.py", set(flags.FLAGS) - {"verbosity", "help"}
    if not file.exists() or '\nif __name__ == "__main__":' not in file.read_text(encoding="utf-8"):
        return None
    with main_flags.flags_of(importlib.import_module(f"launch.{main}")):
        return {name: flags.FLAGS[name].parser for name in set(flags.FLAGS) - others}


def takes(known: dict[str, flags.ArgumentParser], flag: str, value: str) -> bool:
    """Whether a main with these flags takes this one with this value, or without a value if it is empty."""
    try:
        # A file of --config is one of the paths; to parse it would run it.
        return flag in known and (not value or flag == "config" or known[flag].parse(value) is not None)
    except ValueError:
        return False


def wrong_commands(code: str) -> list[str]:
    """Mains that do not exist, flags that a main does not have, and fields that its config does not have."""
    wrong = []
    for main, arguments in COMMAND.findall(code):
        known, config = flags_of(main), CONFIG_FILE.search(arguments)
        if known is None:
            wrong.append(f"launch.{main}")
            continue
        for flag, value in FLAG.findall(arguments):
            right = has_field(flag, config and config[1]) if "." in flag else takes(known, flag, value)
            wrong += [] if right else [f"launch.{main} --{flag}"]
    return wrong


def has_field(flag: str, config: str | None) -> bool:
    """Whether the config, or one of the usual ones, has a field of that name."""
    return any(_has_field(flag, file) for file in ((config,) if config else CONFIGS))


def _has_field(flag: str, config: str) -> bool:
    try:
        check_overrides(["main", f"--config={ROOT / config}", f"--{flag}=x"])
    except ValueError:
        return False
    return True


def wrong_flags(code: str) -> list[str]:
    """Flags that stand alone, and that no main takes."""
    mains = [known for path in (ROOT / "launch").glob("*.py") if (known := flags_of(path.stem))]
    return [
        flag
        for flag, value in (given for line in code.splitlines() if line[:2] == "--" for given in FLAG.findall(line))
        if not (has_field(flag, None) if "." in flag else any(takes(known, flag, value) for known in mains))
    ]


def bare_figures(text: str) -> list[str]:
    """Sections with a table of figures that lack its command, its machine or its date."""
    sections = re.split(r"^(?=#)", BLOCK.sub(lambda block: block[0].replace("#", ""), text), flags=re.MULTILINE)
    measured = [one for one in sections if any(len(FIGURE.findall(table)) > 1 for table in TABLE.findall(one))]
    return [
        f"{section.splitlines()[0]}: no {what}"
        for section in measured
        for what, pattern in SOURCE.items()
        if not pattern.search(section)
    ]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


@pytest.mark.parametrize("name", ["README.md", "atspeed_jax/README.md"])
def test_the_map_names_every_room(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    rooms = [path.parent.name for path in (ROOT / "atspeed_jax").glob("*/__init__.py")]
    assert rooms
    assert not [room for room in rooms if not re.search(rf"\b{room}\b", text)]


def test_every_main_is_described():
    text = LAUNCH.read_text(encoding="utf-8")
    mains = [path.stem for path in LAUNCH.parent.glob("*.py") if flags_of(path.stem)]
    assert mains
    assert not [main for main in mains if not re.search(rf"\blaunch\.{main}\b", text)]


@every_document
def test_links_lead_somewhere(document):
    assert not broken_links(document, text_of(document))


@every_document
def test_paths_exist(document):
    assert not missing_paths(document, code_in(text_of(document)))


@every_document
def test_modules_exist(document):
    assert not missing_modules(code_in(text_of(document)))


@every_document
def test_commands_have_the_flags_of_their_main(document):
    assert not wrong_commands(code_in(text_of(document)))


@every_document
def test_flags_that_stand_alone_are_those_of_a_main(document):
    assert not wrong_flags(code_in(text_of(document)))


@every_document
def test_figures_name_command_machine_and_date(document):
    assert document == PUBLISHED or not bare_figures(text_of(document))


def test_settings_of_pretrained_models_are_those_of_a_config():
    settings = re.findall(
        r"^```python\n((?:from .*?\n\n)?config\..*?)^```$", LAUNCH.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(settings) == 3
    config = beauty_llama7b.get_config()
    for block in settings:
        exec(block, {"config": config})
    loaded = load(config, ExperimentConfig)
    assert loaded.target.directory == "PATH"
    assert loaded.data.prompt.separator == ", "


FIGURES = "## A\n| a | b |\n| - | - |\n| 1.5 | 2.5 |\n"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (broken_links(LAUNCH, "[a](../gone.md) [b](stage.py) [c](#runs) [d](#gone) [e](https://x.org)"), 2),
        (
            missing_paths(LAUNCH, "launch/stage.py stage.py items/trie.py items/tree.py configs/gone/ configs/"),
            2,
        ),
        (missing_paths(LAUNCH, "tests/<room>/test_<file>.py DIR/report.md"), 0),
        (missing_modules("atspeed_jax.items.trie.build_trie atspeed_jax.items.trie atspeed_jax.items.tree"), 1),
        (wrong_commands("python -m launch.pipeline --workdir=DIR --gone=x --config.decode.gamma=2"), 1),
        (wrong_commands("launch/pods/slurm.sh launch.pipeline -- --config.decode.gone=2 --nothing"), 2),
        (wrong_commands("launch.stage --workdir=DIR\nlaunch.gone"), 2),
        (wrong_commands("python -m launch.recommend --drafter=tuned --k=gone --on_bad=gone --full"), 3),
        (wrong_flags("--borrow\n--gone\n--config.decode.gone=1\n--drafter=gone"), 3),
        (bare_figures(FIGURES), 3),
        (bare_figures(f"{FIGURES}`launch.evaluate`, an EPYC, 2026-11-24\n"), 0),
        (bare_figures(f"`launch.evaluate`, an EPYC, 2026-11-24\n{FIGURES}"), 3),
    ],
)
def test_an_offence_is_seen(found, expected):
    assert len(found) == expected
