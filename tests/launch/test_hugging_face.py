"""The prompt that the flags of a served model name."""

import json

import pytest

from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.data.prompt_presets import preset
from atspeed_jax.runs.config import ConfigError
from known_codes import write_index, write_known
from launch import hugging_face, recommend
from launch.command_line import CommandLineError
from main_flags import flags_of


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hf")
    write_known(directory / "model")
    write_index(directory / "x.index.json")
    (directory / "prompt.json").write_text(
        json.dumps({"kind": "instruction", "template": "the {items}", "after": "user"})
    )
    (directory / "slip.json").write_text(json.dumps({"templat": "the {items}"}))
    return directory


def prompt_of(directory, *more):
    flags = [f"--model={directory / 'model'}", f"--index={directory / 'x.index.json'}", "--history=4", *more]
    with flags_of(recommend, flags):
        return hugging_face.served_model().directory.prompt


def test_prompts(place):
    assert prompt_of(place) == PromptConfig()
    text = PromptConfig("instruction", "the user has {items}", "the")
    assert prompt_of(place, "--template=the user has {items}", "--separator=the") == text
    assert prompt_of(place, f"--prompt={place / 'prompt.json'}") == PromptConfig(
        "instruction", "the {items}", after="user"
    )
    with flags_of(recommend, ["--prompt=minionerec"]):
        assert hugging_face._prompt() == preset("minionerec")


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (
            ["--prompt=lcrec", "--separator=x"],
            CommandLineError,
            "is a whole prompt: leave --template and --separator out",
        ),
        (
            ["--prompt=nothing"],
            CommandLineError,
            r"--prompt=nothing: expected one of atspeed, .*or a JSON file such as",
        ),
        (["--prompt=slip.json"], ConfigError, r"config\.templat is unknown; did you mean config\.template\?"),
    ],
)
def test_bad_prompts(place, monkeypatch, more, error, message):
    monkeypatch.chdir(place)
    with pytest.raises(error, match=message):
        prompt_of(place, *more)
