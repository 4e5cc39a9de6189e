"""The prompt of one user in training, evaluation, recommendation, the exported decoder and transformers."""

import dataclasses
import itertools
import json
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from atspeed_jax.data.batches import BatchShape, train_batches, valid_batches
from atspeed_jax.data.dataset import Dataset
from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.data.prompt_presets import preset
from atspeed_jax.data.users import held_out_users
from atspeed_jax.export.decoder import export_decoder
from atspeed_jax.items.catalog import PAD, Catalog
from atspeed_jax.items.tokenizer import extended_settings, extended_tokenizer
from atspeed_jax.models.pretrained import PretrainedConfig, describe_pretrained
from atspeed_jax.serving.catalogs import catalog_for
from atspeed_jax.serving.recommend import lists_of
from atspeed_jax.serving.settings import Setting
from atspeed_jax.serving.user_file import User
from bases import BASE, write_base
from text_tokenizers import write_qwen

HISTORY, K = 4, 3
CATALOG = Catalog(np.random.default_rng(0).integers(0, 12, (40, 3)), (12,) * 3)
USED = [f"<{level}_{code}>" for row in CATALOG.codes.tolist() for level, code in zip("abc", row, strict=True)]
ITEMS = [3, 17, 17, 0, 21, 5]  # the last is held out
PROMPTS = {
    "codes": PromptConfig(),
    "text": PromptConfig("instruction", "!Then <|im_start|> {items}!", " ! ", before="<|sid_begin|>", after="\n"),
    "minionerec": preset("minionerec"),
    "chat": PromptConfig("chat", "Bought: {items}!", system="Be brief!", chat_options='{"enable_thinking": false}'),
    "onerec": preset("onerec"),
}


@dataclasses.dataclass(frozen=True)
class Listening:
    """Decoders that keep the prompts which they are given."""

    heard: list
    target_params: Any = ()
    trie: Any = ()
    mesh: Any = None
    head: Any = None

    def build(self, setting):
        def decode(prompt):
            self.heard.append((prompt.tokens, prompt.valid))
            rows = prompt.tokens.shape[0]
            flat = {name: jnp.zeros(rows, jnp.int32) for name in ("faulty", "target_calls")}
            ids = jnp.zeros((rows, K), jnp.int32)
            return SimpleNamespace(ids=ids, score=ids * 0.0, valid=ids == 0, **flat)

        return decode


@pytest.fixture(scope="module", params=[False, True], ids=["new codes", "known codes"])
def directory(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("base") / "qwen"
    write_base(place, dataclasses.replace(BASE, vocab_size=500), words=(), bos_token_id=None, eos_token_id=2)
    write_qwen(place, USED if request.param else ())
    return place


def masked(tokens, valid) -> list[list[int]]:
    """The prompts of a batch, without those of no items."""
    return [row[mask].tolist() for row, mask in zip(np.asarray(tokens), np.asarray(valid), strict=True)]


def prompts_everywhere(dataset: Dataset, place) -> dict[str, list[int]]:
    """The prompt of the user, from each of those who make one."""
    catalog, shape = dataset.catalog, BatchShape(HISTORY, (HISTORY + 1,), 1)
    answer, found = catalog.tokens(ITEMS[-1]).tolist(), {}
    batches = train_batches(dataclasses.replace(dataset, train=(np.array(ITEMS, np.int32),)), shape, seed=0)
    rows = [row for n in range(len(ITEMS)) for row in masked(batches[n]["tokens"], batches[n]["valid"])]
    (held,) = masked(*[valid_batches(dataset, shape, users=None, seed=0)[0][name] for name in ("tokens", "valid")])
    for name, row in {"training": max(rows, key=lambda row: row[-3:] == answer), "validation": held}.items():
        assert row[-3:] == answer
        found[name] = row[:-3]
    (batch,) = held_out_users(dataset, "valid").batches(dataset, shape)
    (found["evaluation"],) = masked(batch["tokens"], batch["valid"])
    decoders, setting = Listening([]), Setting.beam_search(K, "vocab")
    lists_of(decoders, setting, dataset, shape, exclude_seen=False)([User(0, np.array(ITEMS[:-1]))])
    (found["recommendation"],) = masked(*decoders.heard[0])
    export_decoder(place, decoders, setting, catalog, batch=1, history=HISTORY, platforms=["cpu"])
    numbers = described(place)
    found["export"] = numbers if catalog.vocabulary is None else catalog.vocabulary.tokens(numbers).tolist()
    return found


def described(place) -> list[int]:
    """The prompt as decoder.json says that it is made, in the numbers of the tokenizer."""
    about = json.loads((place / "decoder.json").read_text())
    tokens = pq.read_table(place / "items.parquet")["tokens"].to_pylist()
    codes = [tokens[item] for item in ITEMS[:-1][-HISTORY:]]
    if "head" not in about:
        assert about["prompt"].startswith("padding on the left, then the tokens of the user's items, oldest first")
        return list(itertools.chain(*codes))
    between = [[*about["separator"], *code] for code in codes[1:]]
    return [*about["head"], *codes[0], *itertools.chain(*between), *about["tail"]]


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.filterwarnings("ignore")  # of transformers and torch
def test_everyone_reads_the_same_tokens(directory, tmp_path, name):
    """The newest items, whole; token 0 of the tokenizer, "!", is a character of prompts."""
    prompt = PROMPTS[name]
    base = describe_pretrained(PretrainedConfig(str(directory), None))
    catalog = catalog_for([base], CATALOG, prompt)
    items = np.array(ITEMS, np.int32)
    dataset = Dataset("toy", catalog, (items[:-1],), (items[-1:],), (items[:0],))
    found = prompts_everywhere(dataset, tmp_path / "out")
    ours = found["evaluation"]
    assert found == dict.fromkeys(found, ours)
    assert PAD not in ours
    rows = ours if catalog.vocabulary is None else catalog.vocabulary.rows[ours].tolist()
    assert (0 in rows) == (name in ("text", "chat"))
    transformers = pytest.importorskip("transformers")
    exported = tmp_path / "exported"  # as `export_hf` writes it
    exported.mkdir()
    extended_tokenizer(directory, catalog).save(str(exported / "tokenizer.json"))
    (exported / "tokenizer_config.json").write_text(json.dumps(extended_settings(directory)))
    for place in (exported, directory) if catalog.new_codes == 0 else (exported,):
        assert rows == of_transformers(transformers.AutoTokenizer.from_pretrained(place), prompt)


def of_transformers(tokenizer, prompt: PromptConfig) -> list[int]:
    """The tokens as transformers makes them of the text."""
    texts = ["".join(USED[3 * item : 3 * item + 3]) for item in ITEMS[:-1][-HISTORY:]]
    if prompt.kind == "item":
        return tokenizer("".join(texts)).input_ids
    around = prompt.separator.join(f"{prompt.before}{text}{prompt.after}" for text in texts)
    text = prompt.template.replace("{items}", around)
    if prompt.kind == "instruction":
        return tokenizer(text + prompt.before).input_ids
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": text}]
    given = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "enable_thinking": False}
    before = tokenizer(prompt.before, add_special_tokens=False).input_ids
    return [*tokenizer.apply_chat_template(messages, **given)["input_ids"], *before]
