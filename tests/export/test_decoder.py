"""The compiled decoder as another program reads it."""

import dataclasses
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

import atspeed_jax.serving.decoders as decoders_module
from atspeed_jax.data.batches import BatchShape, prompt_batches
from atspeed_jax.decoding.config import prefixes_by_norm
from atspeed_jax.export.decoder import export_decoder
from atspeed_jax.export.directory import ExportError
from atspeed_jax.items.catalog import Instruction
from atspeed_jax.items.trie import build_trie, popularity_prior
from atspeed_jax.items.vocabulary import Vocabulary
from atspeed_jax.serving.decode_users import prompt_of
from atspeed_jax.serving.decoders import Decoders
from atspeed_jax.serving.settings import Setting
from bases import CATALOG, CONFIG
from devices import whole_mesh
from numpy_llama import wide_params

DOCUMENT = Path(__file__).parents[2].joinpath("launch", "README.md").read_text(encoding="utf-8")
LOAD_DECODER = next(block for block in re.findall("```python\n(.*?)```", DOCUMENT, re.S) if "decoder.jax" in block)
CALL_DECODER = """
import sys
assert (found["target_calls"] >= 1).all() and found["ids"].shape[0] == len(tokens)
junk = numpy.random.default_rng(0).integers(0, 3, tokens.shape)  # masked, so it must not matter
tokens[:], valid[:] = junk, False
for row, prompt in enumerate(json.loads(sys.argv[1])):
    tokens[row, tokens.shape[1] - len(prompt):], valid[row, tokens.shape[1] - len(prompt):] = prompt, True
found = decoder.call(arrays, tokens, valid)
assert not [name for name in sys.modules if name.startswith("atspeed_jax")]
print(json.dumps({name: numpy.asarray(x).tolist() for name, x in found.items()}))
"""
WITHOUT_FLAX = "import sys; sys.modules['flax'] = None\n"  # safetensors.flax takes it where it is, and needs it not


def in_fresh_process(code, *arguments):
    command = [sys.executable, "-c", WITHOUT_FLAX + code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def called(directory, prompts):
    """What the exported decoder gives in a fresh process that runs the lines of launch/README.md."""
    return in_fresh_process(LOAD_DECODER.replace("OUT/", f"{directory}/") + CALL_DECODER, json.dumps(prompts))


def prompts_of(catalog, histories):
    return [[catalog.bos, *catalog.tokens(np.array(items, int)).ravel().tolist()] for items in histories]


def assert_same_lists(found, decoders, setting, catalog, histories):
    """That the decoder itself gives these lists to users of one bucket of four items."""
    items = [np.array(items, np.int32) for items in histories]
    (batch,) = prompt_batches(catalog, items, BatchShape(4, (4,), len(items)))
    expected = decoders.build(setting)(prompt_of(batch))
    order = batch["row"].tolist()
    for row, place in enumerate(map(order.index, range(len(items)))):
        assert found["ids"][row] == np.where(expected.valid, expected.ids, -1)[place].tolist()
        np.testing.assert_allclose(found["scores"][row], expected.score[place], atol=1e-4)
        assert found["target_calls"][row] == expected.target_calls[place]


def random_decoders(dtype):
    """Of CATALOG, with parameters of this dtype."""
    model = dataclasses.replace(CONFIG, dtype=dtype, dropout=0.0)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), wide_params(model, seed=0))
    trie, prefixes = build_trie(CATALOG.id_tokens), prefixes_by_norm(CATALOG.id_tokens)
    prior = popularity_prior(trie, CATALOG.id_tokens, np.ones(len(CATALOG.ids)))
    return Decoders(model, params, model, params, trie, prior, prefixes)


@pytest.fixture(scope="module")
def bfloat16_decoder(tmp_path_factory):
    """(directory, decoders, setting) of plain beam search."""
    directory = tmp_path_factory.mktemp("bfloat16") / "out"
    decoders, setting = random_decoders("bfloat16"), Setting.beam_search(2, "vocab")
    export_decoder(directory, decoders, setting, CATALOG, batch=3, history=4, platforms=["cpu", "rocm"])
    return directory, decoders, setting


@pytest.mark.slow
def test_a_bfloat16_decoder_runs_as_readme_says(bfloat16_decoder):
    directory, decoders, setting = bfloat16_decoder
    histories = [[], [2], [1, 0, 2]]
    found = called(directory, prompts_of(CATALOG, histories))
    assert_same_lists(found, decoders, setting, CATALOG, histories)


def test_prompts_in_the_numbers_of_a_tokenizer(tmp_path):
    """Codes in another order than ours, token 0 within the prompt, and no BOS."""
    rows = np.random.default_rng(0).permutation(CATALOG.vocab_size).astype(np.int32)
    texts = tuple(tuple(f"<{level}_{n}>" for n in range(size)) for level, size in enumerate(CATALOG.level_sizes))
    zero = int(np.flatnonzero(rows == 0)[0])
    text = Instruction((zero,), (), (1,), (zero, 1))
    catalog = dataclasses.replace(CATALOG, vocabulary=Vocabulary(rows, texts, True), instruction=text, begins=False)
    decoders, setting, histories = random_decoders("float32"), Setting.beam_search(2, "vocab"), [[], [2], [1, 0, 2]]
    export_decoder(tmp_path / "out", decoders, setting, catalog, batch=3, history=4, platforms=["cpu"])
    about = json.loads((tmp_path / "out" / "decoder.json").read_text())
    table = pq.read_table(tmp_path / "out" / "items.parquet").to_pydict()
    assert about["head"] == [0]
    tokens, valid = np.zeros((3, 14), np.int32), np.zeros((3, 14), bool)
    for row, items in enumerate(histories):
        codes = [token for item in items for token in table["tokens"][item]]
        prompt = [*about["head"], *codes, *about["tail"]] if items else about["empty"]
        tokens[row, 14 - len(prompt) :], valid[row, 14 - len(prompt) :] = prompt, True
    call = jax.export.deserialize(bytearray((tmp_path / "out" / "decoder.jax").read_bytes())).call
    found = call(load_file(tmp_path / "out" / "arrays.safetensors"), tokens, valid)
    assert_same_lists(jax.tree.map(lambda x: np.asarray(x).tolist(), found), decoders, setting, catalog, histories)


@pytest.mark.parametrize("first", ["safetensors.flax", "numpy, safetensors.numpy", "jax"])
def test_bfloat16_arrays_load_whatever_is_imported_first(bfloat16_decoder, first):
    lines = [line for line in LOAD_DECODER.splitlines() if line.startswith(("import", "arrays ="))]
    code = f"import {first}\n" + "\n".join(lines).replace("OUT/", f"{bfloat16_decoder[0]}/")
    dtypes = in_fresh_process(code + "\nprint(json.dumps([x.dtype.name for x in arrays.values()]))")
    assert "bfloat16" in dtypes
    assert len(lines) == 3


def test_the_decoder_says_how_it_is_called(bfloat16_decoder):
    directory = bfloat16_decoder[0]
    about = json.loads((directory / "decoder.json").read_text())
    decoder = jax.export.deserialize((directory / "decoder.jax").read_bytes())
    assert about["platforms"] == ["cpu", "rocm"] == list(decoder.platforms)
    assert about["versions"] == {name: version(name) for name in ("jax", "safetensors")}
    assert about["call"] == "call(arrays, tokens, valid)"
    assert list(about["arguments"]) == ["arrays", "tokens", "valid"]

    def as_described(one):
        return jax.ShapeDtypeStruct(tuple(one["shape"]), one["dtype"])

    arrays = {name: as_described(one) for name, one in about["arguments"]["arrays"]["arrays"].items()}
    stored = load_file(directory / "arrays.safetensors")
    assert arrays == {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in stored.items()}
    assert "bfloat16" in {one.dtype.name for one in arrays.values()}
    takes = (arrays, *(as_described(about["arguments"][name]) for name in ("tokens", "valid")))
    leaves, tree = jax.tree.flatten((takes, {}))
    assert tree == decoder.in_tree
    assert [(one.shape, one.dtype) for one in leaves] == [(one.shape, one.dtype) for one in decoder.in_avals]
    returned = {name: about["returns"][name] for name in ("ids", "scores", "target_calls")}
    gives = jax.tree.unflatten(decoder.out_tree, decoder.out_avals)
    assert {name: as_described(one) for name, one in returned.items()} == {
        name: jax.ShapeDtypeStruct(one.shape, one.dtype) for name, one in gives.items()
    }


@pytest.mark.parametrize(
    ("platforms", "message"),
    [
        (["cpu", "rocket"], "platforms=cpu,rocket: 'rocket' is none; expected one or more of cpu, cuda, rocm, tpu"),
        (["gpu"], "'gpu' is none"),
        ([], "none is given"),
        (["cpu", "cpu"], "one is named twice"),
    ],
)
def test_a_platform_that_does_not_exist_is_refused_before_work(tmp_path, platforms, message):
    with pytest.raises(ExportError, match=message):
        export_decoder(tmp_path / "out", None, None, None, batch=1, history=1, platforms=platforms)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("drafter", "unrolled"),
    [
        ("draft", False),
        pytest.param("draft", True, marks=pytest.mark.slow),
        pytest.param("popularity", False, marks=pytest.mark.slow),
        pytest.param("none", False, marks=pytest.mark.slow),
    ],
)
def test_the_decoder_runs_without_this_code(small_run, tmp_path, drafter, unrolled):
    run, output = small_run.run, tmp_path / "decoder"
    c, catalog = run.config, run.dataset.catalog
    setting = Setting.beam_search(4, "vocab") if drafter == "none" else Setting.strict(drafter, 4, c.decode)
    decoders = run.decoders(run.draft_params).unrolled() if unrolled else run.decoders(run.draft_params)
    export_decoder(output, decoders, setting, catalog, batch=3, history=4, platforms=["cpu", "tpu"])
    table = pq.read_table(output / "items.parquet").to_pydict()
    tokens = dict(zip(table["item"], table["tokens"], strict=True))
    histories = [[], [3], [5, 1, 7]]
    prompts = [[catalog.bos, *(token for item in items for token in tokens[item])] for items in histories]
    assert_same_lists(called(output, prompts), decoders, setting, catalog, histories)
    assert table["id"] == catalog.id_of_item.tolist()


def test_the_decoder_is_for_one_device_wherever_it_was_exported(small_run, tmp_path, monkeypatch):
    run = small_run.run
    decoders = dataclasses.replace(run.decoders(None), mesh=whole_mesh())
    monkeypatch.setattr(decoders_module, "decode_on_mesh", lambda *_: pytest.fail("the program of a whole mesh"))
    how = {"batch": 1, "history": 2, "platforms": ["cpu"]}
    export_decoder(tmp_path / "decoder", decoders, Setting.beam_search(3, "vocab"), run.dataset.catalog, **how)
    assert jax.export.deserialize((tmp_path / "decoder" / "decoder.jax").read_bytes()).nr_devices == 1


def test_a_decoder_that_draws_is_not_exported(small_run, tmp_path):
    run = small_run.run
    setting = Setting.beam_search(4, "vocab").searching(mode="relaxed")
    how = {"batch": 1, "history": 4, "platforms": ["cpu"]}
    with pytest.raises(ExportError, match="mode='relaxed': it draws"):
        export_decoder(tmp_path / "decoder", run.decoders(None), setting, run.dataset.catalog, **how)
    assert not (tmp_path / "decoder").exists()


def test_the_decoder_is_lowered_for_all_platforms_at_once(small_run, tmp_path):
    run = small_run.run
    how = {"batch": 2, "history": 4, "platforms": ["cpu", "cuda", "tpu"]}
    setting = Setting.strict("draft", 4, run.config.decode)
    export_decoder(tmp_path / "out", run.decoders(run.draft_params), setting, run.dataset.catalog, **how)
    exported = jax.export.deserialize((tmp_path / "out" / "decoder.jax").read_bytes())
    assert exported.platforms == ("cpu", "cuda", "tpu")
    assert exported.nr_devices == 1
