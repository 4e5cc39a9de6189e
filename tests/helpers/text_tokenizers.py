"""Tokenizers of the kinds that Llamas come with, trained on a few words; all begin with SPECIAL."""

import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram
from tokenizers.trainers import BpeTrainer, UnigramTrainer

from atspeed_jax.data.instructions import TEMPLATE

BOS = 1
SPECIAL = ["<unk>", "<s>", "</s>"]


def trained(model, trainer, *, pre=None, normalizer=None, bos=True) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    corpus = [TEMPLATE, "in order_ < > items <a_ _1> , _ < the the  user  in  in "] * 3
    tokenizer.train_from_iterator(corpus, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return tokenizer


def byte_level(**more) -> Tokenizer:
    """As GPT-2 and Llama 3."""
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    return trained(BPE(), trainer, pre=pre, **more)


def metaspace(scheme: str) -> Tokenizer:
    """As SentencePiece's Unigram."""
    trainer = UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    pre = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return trained(Unigram(), trainer, pre=pre, normalizer=normalizers.Replace("\n", "\u2028"))


def first_llamas() -> Tokenizer:
    """As of Llama 1 and 2: a normalizer puts a space before each text, nothing cuts it into words."""
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = BpeTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    return trained(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), trainer, normalizer=normalizer)


TOKENIZERS = {
    "byte level": byte_level,
    "byte level without BOS": lambda: byte_level(bos=False),
    "metaspace always": lambda: metaspace("always"),
    "metaspace first": lambda: metaspace("first"),
    "metaspace never": lambda: metaspace("never"),
    "first llamas": first_llamas,
}

# Where the byte-level tokenizers of Qwen cut a text into words.
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
QWEN_ADDED = ["<think>", "</think>", "<|sid_begin|>", "<|sid_end|>"]
QWEN_SETTINGS = {
    "tokenizer_class": "Qwen2Tokenizer",
    "add_bos_token": False,
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "unk_token": None,
}
CHAT = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages if message.role != 'system' %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def qwen_like(codes=()) -> Tokenizer:
    """As Qwen: no BOS, token 0 is "!", and codes are added in the order of their texts."""
    cut = pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated")
    pre = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer = trained(BPE(), trainer, pre=pre, normalizer=normalizers.NFC(), bos=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(QWEN_SPECIAL)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (*QWEN_ADDED, *sorted(set(codes)))])
    return tokenizer


def write_qwen(directory, codes=(), **settings) -> Tokenizer:
    """Writes tokenizer.json and tokenizer_config.json; settings are added to QWEN_SETTINGS."""
    tokenizer = qwen_like(codes)
    tokenizer.save(str(directory / "tokenizer.json"))
    given = {"chat_template": CHAT} | settings
    (directory / "tokenizer_config.json").write_text(json.dumps(QWEN_SETTINGS | given))
    return tokenizer
