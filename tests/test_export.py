import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

import atspeed_jax.evaluation.decoders as decoders_module
from atspeed_jax.data.batches import prompt_batches
from atspeed_jax.evaluation.decode_users import prompt_of
from atspeed_jax.evaluation.decoders import plain, speculative
from atspeed_jax.evaluation.recommend import lists_of
from atspeed_jax.export import ExportError, export_decoder, export_figures, export_hf, export_lists
from atspeed_jax.items.catalog import Catalog
from atspeed_jax.items.tokenizer import TokenizerError
from atspeed_jax.models.hf_config import read_hf_config
from atspeed_jax.models.pretrained import PretrainedConfig, described
from atspeed_jax.models.weights import load_weights
from bases import BASE, write_base
from compilation import compile_quickly
from devices import whole_mesh
from numpy_llama import wide_params

CATALOG = Catalog.from_codes(np.array([[0, 2, 1], [1, 0, 0], [1, 3, 2]]))
CONFIG = dataclasses.replace(
    BASE,
    vocab_size=CATALOG.vocab_size,
    hidden_size=8,
    intermediate_size=12,
    layers=2,
    head_dim=4,
    rope_theta=100.0,
    norm_eps=1e-5,
    dropout=0.1,
)


def exported(directory, **changes):
    params = wide_params(CONFIG, seed=0)
    export_hf(directory, CONFIG, params, CATALOG, **{"history": 5, "dtype": "float32"} | changes)
    return params


def test_the_directory_holds_the_model(tmp_path):
    directory = tmp_path / "new" / "target"
    params = exported(directory)
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = read_hf_config(directory)
    assert vars(config) | {"dropout": 0.1} == vars(CONFIG)
    jax.tree.map(np.testing.assert_array_equal, load_weights(directory, config), params)
    fields = json.loads((directory / "config.json").read_text())
    assert (fields["bos_token_id"], fields["pad_token_id"], fields["eos_token_id"]) == (1, 0, None)
    assert fields["max_position_embeddings"] == 1 + 3 * 6
    assert Tokenizer.from_file(str(directory / "tokenizer.json")).encode("<a_1>").ids == [1, 3]
    assert [path.name for path in directory.parent.iterdir()] == ["target"]


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="exists and is not empty"):
        exported(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ExportError, match="cannot be written"):
        exported(tmp_path / "notes.txt" / "target")


def test_an_export_that_was_cut_off_is_made_again(tmp_path):
    (tmp_path / ".target.partial").mkdir()
    (tmp_path / ".target.partial" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "target").mkdir()
    params = exported(tmp_path / "target", dtype="bfloat16")
    loaded = load_weights(tmp_path / "target", CONFIG)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-2), loaded, params)


def of_base(directory, **fields):
    """(base, catalogue behind it) of a Hugging Face directory with these fields in its config.json."""
    write_base(directory, **fields)
    base = described(PretrainedConfig(str(directory), None))
    return base, CATALOG.behind(base.model.vocab_size, base.bos)


def exported_of(base, catalog, directory):
    config = dataclasses.replace(CONFIG, vocab_size=catalog.vocab_size)
    export_hf(directory, config, wide_params(config, 0), catalog, history=5, dtype="float32", base=base)
    return {path.name: json.loads(path.read_text()) for path in directory.glob("*.json")}


def test_a_base_lends_its_tokenizer(tmp_path):
    base, catalog = of_base(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>"}'
    )
    (tmp_path / "base" / "special_tokens_map.json").write_text('{"eos_token": "</s>", "bos_token": "other"}')
    found = exported_of(base, catalog, tmp_path / "out")
    assert found["config.json"]["bos_token_id"] == 2
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("the <a_1><b_0>").ids == [3, 7, 8]
    expected = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    assert found["tokenizer_config.json"] == expected


def test_settings_of_a_tokenizer_that_is_not_there_are_left_out(tmp_path):
    base, catalog = of_base(tmp_path / "base", words=())
    (tmp_path / "base" / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    (tmp_path / "base" / "tokenizer.model").write_bytes(b"")
    config, how = dataclasses.replace(CONFIG, vocab_size=catalog.vocab_size), {"history": 5, "dtype": "float32"}
    note = export_hf(tmp_path / "out", config, wide_params(config, 0), catalog, **how, base=base)
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["config.json", "model.safetensors"]
    assert "without tokenizer.json, which the base lacks" in note and "save_pretrained" in note


@pytest.mark.parametrize("text", ["{", "[]"])
def test_settings_of_a_tokenizer_that_cannot_be_read(tmp_path, text):
    base, catalog = of_base(tmp_path / "base")
    (tmp_path / "base" / "tokenizer_config.json").write_text(text)
    with pytest.raises(TokenizerError, match="tokenizer_config.json (cannot be read|holds a list)"):
        exported_of(base, catalog, tmp_path / "out")


@pytest.mark.parametrize(("given", "eos"), [(4, 4), ([4, 5], [4, 5]), (None, None)])
def test_what_a_base_says_of_its_texts_is_said_on(tmp_path, given, eos):
    base, catalog = of_base(tmp_path / "base", eos_token_id=given, max_position_embeddings=2048)
    fields = exported_of(base, catalog, tmp_path / "out")["config.json"]
    assert (fields["eos_token_id"], fields["max_position_embeddings"]) == (eos, 2048)
    unknown = dataclasses.replace(base, positions=None)
    assert exported_of(unknown, catalog, tmp_path / "other")["config.json"]["max_position_embeddings"] == 1 + 3 * 6


RUN_DECODER = """
import json, sys
import jax, numpy as np
from safetensors.numpy import load_file
directory, prompts = sys.argv[1], json.loads(sys.argv[2])
about = json.load(open(directory + "/decoder.json"))
exported = jax.export.deserialize(open(directory + "/decoder.jax", "rb").read())
tokens = np.full(about["tokens"], about["pad"], np.int32)
for row, prompt in zip(tokens, prompts):
    row[len(row) - len(prompt):] = prompt
found = exported.call(load_file(directory + "/arrays.safetensors"), tokens, tokens != about["pad"])
assert not [name for name in sys.modules if name.startswith(("atspeed_jax", "flax"))]
print(json.dumps({name: np.asarray(x).tolist() for name, x in found.items()}))
"""


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
    setting = plain(4, "vocab") if drafter == "none" else speculative(drafter, 4, c.decode)
    decoders = run.decoders(run.draft_params).unrolled() if unrolled else run.decoders(run.draft_params)
    with compile_quickly():
        export_decoder(output, decoders, setting, catalog, batch=3, history=4, platforms=["cpu", "tpu"])
    table = pq.read_table(output / "items.parquet").to_pydict()
    tokens = dict(zip(table["item"], table["tokens"], strict=True))
    histories = [[], [3], [5, 1, 7]]
    prompts = [[catalog.bos, *(token for item in items for token in tokens[item])] for items in histories]
    command = [sys.executable, "-c", RUN_DECODER, str(output), json.dumps(prompts)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (batch,) = prompt_batches(
        catalog, [np.array(items, np.int32) for items in histories], history=4, buckets=(4,), batch_size=3
    )
    with compile_quickly():
        expected = decoders.build(setting)(prompt_of(batch))
    order = batch["row"].tolist()
    for row, place in zip(range(3), map(order.index, range(3)), strict=True):
        assert found["ids"][row] == np.asarray(expected.ids)[place].tolist()
        np.testing.assert_allclose(found["scores"][row], expected.score[place], atol=1e-4)
        assert found["target_calls"][row] == expected.target_calls[place]
    assert table["id"] == catalog.id_of_item.tolist()


def test_the_decoder_is_for_one_device_wherever_it_was_exported(small_run, tmp_path, monkeypatch):
    run = small_run.run
    decoders = dataclasses.replace(run.decoders(None), mesh=whole_mesh())
    monkeypatch.setattr(decoders_module, "decode_on_mesh", lambda *_: pytest.fail("the program of a whole mesh"))
    how = {"batch": 1, "history": 2, "platforms": ["cpu"]}
    with compile_quickly():
        export_decoder(tmp_path / "decoder", decoders, plain(3, "vocab"), run.dataset.catalog, **how)
    assert jax.export.deserialize((tmp_path / "decoder" / "decoder.jax").read_bytes()).nr_devices == 1


def test_a_decoder_that_draws_is_not_exported(small_run, tmp_path):
    run = small_run.run
    setting = dataclasses.replace(plain(4, "vocab"), mode="relaxed")
    how = {"batch": 1, "history": 4, "platforms": ["cpu"]}
    with pytest.raises(ExportError, match="mode='relaxed': it draws"):
        export_decoder(tmp_path / "decoder", run.decoders(None), setting, run.dataset.catalog, **how)
    assert not (tmp_path / "decoder").exists()


def test_lists_as_a_table(small_run, tmp_path):
    """Every test user's, in evaluation's own words: its recall is that of the report."""
    run = small_run.run
    c, dataset = run.config, run.dataset
    shapes = {"history": c.data.history, "buckets": c.evaluate.buckets, "batch_size": 8}
    with compile_quickly():
        lists = lists_of(run.decoders(None), plain(10, "vocab"), dataset, **shapes, exclude_seen=False)
        export_lists(tmp_path / "lists", lists, dataset)
    rows = pq.read_table(tmp_path / "lists" / "lists.parquet").to_pylist()
    assert [row["user"] for row in rows] == [user for user, items in enumerate(dataset.test) if len(items)]
    for row in rows:
        assert row["history"] == dataset.history(row["user"], "test").tolist()
        assert row["next"] == dataset.test[row["user"]].tolist()
        assert len(row["items"]) == len(row["scores"]) == 10 and row["scores"] == sorted(row["scores"], reverse=True)
    hits = [len(set(row["items"]) & set(row["next"])) / len(row["next"]) for row in rows]
    assert np.mean(hits) == pytest.approx(small_run.report["quality"]["target"]["seen_kept"]["recall@10"])


def test_the_decoder_is_lowered_for_all_platforms_at_once(small_run, tmp_path):
    run = small_run.run
    how = {"batch": 2, "history": 4, "platforms": ["cpu", "cuda", "tpu"]}
    setting = speculative("draft", 4, run.config.decode)
    export_decoder(tmp_path / "out", run.decoders(run.draft_params), setting, run.dataset.catalog, **how)
    exported = jax.export.deserialize((tmp_path / "out" / "decoder.jax").read_bytes())
    assert exported.platforms == ("cpu", "cuda", "tpu") and exported.nr_devices == 1


def test_figures_as_tables(small_run, tmp_path):
    export_figures(tmp_path / "figures", small_run.report)
    decoding = pq.read_table(tmp_path / "figures" / "decoding.parquet").to_pylist()
    assert [row["target_calls_mean"] for row in decoding] == [
        r["target_calls_mean"] for r in small_run.report["decoding"]
    ]
    rows = pq.read_table(tmp_path / "figures" / "quality.parquet").to_pylist()
    (one,) = [r for r in rows if (r["method"], r["kind"], r["figure"]) == ("popularity", "seen_removed", "ndcg@5")]
    entry = small_run.report["quality"]["popularity"]["seen_removed"]
    assert one["value"] == entry["ndcg@5"] and [one["low"], one["high"]] == list(entry["intervals"]["ndcg@5"])
    assert {row["method"] for row in rows} == {"target", "popularity", "covisitation"}
