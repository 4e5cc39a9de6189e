"""A tokenizer of a few words, as a pretrained model brings one along."""

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

WORDS = ("<unk>", "</s>", "<s>", "the", "user", "has")


def words_tokenizer(words=WORDS) -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


def words_of(text: str) -> tuple[str, ...]:
    """The special tokens, then the words of a text."""
    return tuple(dict.fromkeys((*WORDS[:3], *(word for word, _ in Whitespace().pre_tokenize_str(text)))))
