"""What is wrong with a config file or the name of an override ends in one line, before absl reads anything."""

import pytest

from atspeed_jax.runs.config import ConfigError
from launch.overrides import check_overrides, run_config

TINY = "--config=configs/tiny.py"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [TINY, "--config.train_target.epochz=3"],
            "config.train_target.epochz is unknown; configs/tiny.py has no such field: did you mean "
            "config.train_target.epochs?",
        ),
        (["--config", "configs/tiny.py", "--config.traget.layers", "3"], "did you mean config.target?"),
        (
            [TINY, "--config.foo=1"],
            "config.foo is unknown; .*: the nearest field is config.draft, of align, data",
        ),
        ([TINY, "--noconfig.target.rmat"], "did you mean config.target.remat?"),
        ([TINY, "--config.gamma=1"], "config.gamma is unknown; .* did you mean config.decode.gamma?"),
        ([TINY, "--config.name.first=1"], "config.name.first: config.name is 'tiny' in configs/tiny.py, which has no"),
        ([TINY, "--config.evaluate.beams[1]=5"], r"beams\[1\]: entries .* all of them, --config.evaluate.beams='"),
        (["--config.foo=1"], "--config.foo changes a config: give --config=FILE before it, or the"),
        (["--config=no.py", "--config.foo=1"], "there is no config file no.py; give one, such as --config=configs/"),
        (["--config=configs/tiny.py:big"], r"config file configs/tiny.py: TypeError: get_config\(\) takes 0"),
        (["--config=configs/beauty_llama7b.py:big"], r"llama7b.py, line \d+: ValueError: prompt 'big': expected"),
        (["--config=configs/lcrec_small.py", "--config.data.synthetic.users=1"], "synthetic is None in configs/lcrec_"),
    ],
)
def test_a_mistake_is_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        check_overrides(["main", *arguments])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [TINY],
        [TINY, "--config.mesh.data=2", "--config.evaluate.users", "5", "--noconfig.target.remat", "--configs.foo=1"],
        [TINY, "--config.data.synthetic.item_count=120"],
        ["--config=configs/beauty_llama7b.py:item", "--config.data.prompt.template=a=b\nc {items}"],
    ],
)
def test_what_is_right_passes(arguments):
    check_overrides(["main", *arguments])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:\n", r"config.py, line 1: SyntaxError: "),
        ("def get_config():\n    return dict(a=b)\n", r"config.py, line 2: NameError: name 'b' is not defined"),
        ("def get_config():\n    return {}['a']\n", r"config.py, line 2: KeyError: 'a'"),
        ("import no_such_module\n", r"config.py, line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1\n", r"config.py has no function get_config\(\); see configs/tiny.py"),
        ("def get_config():\n    pass\n", r"get_config\(\) of .*config.py returns None, expected a ConfigDict"),
    ],
)
def test_a_file_that_does_not_run_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        run_config(str(tmp_path / "config.py"))
