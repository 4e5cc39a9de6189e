"""What is exported of a pretrained model as transformers and PEFT load it; skipped where they are not installed."""

import dataclasses
import json

import pytest

transformers = pytest.importorskip("transformers")

import jax  # noqa: E402
import numpy as np  # noqa: E402

from atspeed_jax.data.instructions import TEMPLATE, PromptConfig, read_instruction  # noqa: E402
from atspeed_jax.data.prompts import prompt_rows, prompt_tokens  # noqa: E402
from atspeed_jax.export.hugging_face import export_adapter, export_hf  # noqa: E402
from atspeed_jax.items.catalog import Catalog  # noqa: E402
from atspeed_jax.items.placement import place_codes  # noqa: E402
from atspeed_jax.models.llama import forward  # noqa: E402
from atspeed_jax.models.lora import LoraConfig, merged_config  # noqa: E402
from atspeed_jax.models.pretrained import PretrainedConfig, describe_pretrained  # noqa: E402
from bases import BASE, write_base  # noqa: E402
from numpy_llama import wide_params  # noqa: E402
from text_tokenizers import BOS, SPECIAL, TOKENIZERS  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of transformers and torch
]
CODES = np.random.default_rng(0).integers(0, 12, (40, 3))
ITEMS = [3, 17, 17, 0]
# As of Llama 1 and 2, TinyLlama and llama-68m, older and newer.
LLAMA = {"tokenizer_class": "LlamaTokenizer", "legacy": False, "sp_model_kwargs": {}, "add_bos_token": True}
LLAMA |= {"add_eos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
ADDED = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
SETTINGS = {
    "none": None,
    "older": LLAMA,
    "newer": LLAMA
    | {"add_prefix_space": True, "added_tokens_decoder": {n: {"content": t} | ADDED for n, t in enumerate(SPECIAL)}},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", ["first llamas", "byte level", "metaspace first"])
def test_auto_tokenizer_reads_a_prompt_as_the_run_does(tmp_path, kind, settings):
    place, tokenizer = tmp_path / "base", TOKENIZERS[kind]()
    sizes = dataclasses.replace(BASE, vocab_size=tokenizer.get_vocab_size())
    write_base(place, sizes, words=(), bos_token_id=BOS)
    tokenizer.save(str(place / "tokenizer.json"))
    if SETTINGS[settings] is not None:
        (place / "tokenizer_config.json").write_text(json.dumps(SETTINGS[settings]))
    prompt, catalog = PromptConfig("instruction"), Catalog(CODES, (12,) * 3).behind(tokenizer.get_vocab_size(), BOS)
    catalog = dataclasses.replace(catalog, instruction=read_instruction(place, catalog, prompt))
    base, config = (
        describe_pretrained(PretrainedConfig(str(place), None)),
        dataclasses.replace(BASE, vocab_size=catalog.vocab_size),
    )
    export_hf(tmp_path / "out", config, wide_params(config, 0), catalog, history=5, dtype="float32", base=base)
    codes = ["".join(f"<{level}_{code}>" for level, code in zip("abc", CODES[i], strict=True)) for i in ITEMS]
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = TEMPLATE.replace("{items}", ", ".join(codes))
    assert theirs(text).input_ids == prompt_tokens(catalog, ITEMS, 5).tolist()
    assert len(theirs) == catalog.vocab_size
    assert theirs.convert_ids_to_tokens(catalog.vocab_size - 1) == "<c_11>"


@pytest.mark.parametrize("padding", [0, pytest.param(7, marks=pytest.mark.slow), 50])
@pytest.mark.parametrize("tied", [False, True])
def test_auto_peft_gives_our_logits(tmp_path, tied, padding):
    """padding: rows of the base behind the tokens of its tokenizer; the 36 codes take the first of them."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    tokenizer = TOKENIZERS["first llamas"]()
    sizes = dataclasses.replace(BASE, vocab_size=tokenizer.get_vocab_size() + padding, tied_embeddings=tied)
    write_base(tmp_path / "base", sizes, words=(), bos_token_id=BOS)
    tokenizer.save(str(tmp_path / "base" / "tokenizer.json"))
    lora = LoraConfig(rank=2, alpha=4.0, dropout=0.0, targets=("q_proj", "up_proj"))
    base = describe_pretrained(PretrainedConfig(str(tmp_path / "base"), lora))
    catalog = place_codes(Catalog(CODES, (12,) * 3), tmp_path / "base", sizes.vocab_size, BOS)
    placed = base.numbered(catalog.vocabulary)
    params = placed.load()
    adapter = placed.init_trainable(jax.random.key(0), params, catalog.code_count)
    adapter = jax.tree.map(lambda leaf: 0.3 * jax.random.normal(jax.random.key(leaf.size), leaf.shape), adapter)
    export_adapter(tmp_path / "adapter", base, adapter, catalog)
    model = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    tokens = prompt_rows(catalog, [ITEMS], 4)
    with torch.no_grad():
        rows = np.arange(catalog.vocab_size) if catalog.vocabulary is None else catalog.vocabulary.rows
        theirs = model(torch.from_numpy(rows[tokens]).long()).logits.numpy()[..., rows]
    ours = forward(merged_config(placed.model, adapter), placed.full_params(adapter, params), tokens, tokens > 0)
    assert theirs.shape[-1] == catalog.vocab_size
    assert theirs.std() > 0.05
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
