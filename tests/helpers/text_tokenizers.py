"""Tokenizers of the kinds that Llamas come with, trained on a few words; all begin with SPECIAL."""

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
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
