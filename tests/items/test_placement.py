"""Codes among the tokens of a pretrained model: known or new, in whatever order, with padding behind them."""

import dataclasses
import json

import numpy as np
import pytest
from tokenizers import AddedToken, processors

from atspeed_jax.items.catalog import PAD, Catalog, Instruction
from atspeed_jax.items.placement import check_known, padding_apart, place_codes
from atspeed_jax.items.tokenizer import TokenizerError, code_texts, extended_tokenizer
from words import WORDS, words_tokenizer

CATALOG = Catalog.from_codes(np.array([[0, 12, 1], [10, 2, 0], [10, 7, 2]]))
# As models are made: the codes that items have, in the order of their texts.
KNOWN = sorted({"<a_0>", "<a_10>", "<b_12>", "<b_2>", "<b_7>", "<c_0>", "<c_1>", "<c_2>"})
BOS = 2


def saved(directory, known=(), bos=True, **settings):
    tokenizer = words_tokenizer()
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in known])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def rows_of(catalog, directory):
    """The tokens that the tokenizer of a directory gives the codes of every item."""
    tokenizer = extended_tokenizer(directory, catalog)
    texts = code_texts(catalog)
    words = [
        "".join(texts[token - catalog.first_code] for token in tokens)
        for tokens in catalog.tokens(np.arange(catalog.items)).tolist()
    ]
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in words]


@pytest.mark.parametrize("padding", [0, 3])
def test_codes_that_the_tokenizer_knows_keep_their_rows(tmp_path, padding):
    size = len(WORDS) + len(KNOWN)
    placed = place_codes(CATALOG, saved(tmp_path, KNOWN), size + padding, BOS)
    assert placed.vocab_size == size + padding
    assert (placed.first_code, placed.level_sizes, placed.new_codes) == (len(WORDS) + padding, (2, 3, 3), 0)
    assert code_texts(placed)[:4] == ["<a_0>", "<a_10>", "<b_2>", "<b_7>"]
    assert placed.vocabulary.rows[: placed.first_code].tolist() == [*range(len(WORDS)), *range(size, size + padding)]
    assert placed.vocabulary.rows[placed.bos] == BOS
    rows = placed.vocabulary.rows[placed.tokens(np.arange(3))]
    expected = [["<a_0>", "<b_12>", "<c_1>"], ["<a_10>", "<b_2>", "<c_0>"], ["<a_10>", "<b_7>", "<c_2>"]]
    assert rows.tolist() == [[len(WORDS) + KNOWN.index(text) for text in item] for item in expected]
    assert rows.tolist() == rows_of(placed, tmp_path)
    assert placed.vocabulary.tokens(rows).tolist() == placed.tokens(np.arange(3)).tolist()
    assert (np.diff(placed.id_tokens[:, 0]) >= 0).all()
    assert placed.items == CATALOG.items
    check_known(placed, tmp_path)


@pytest.mark.parametrize("padding", [0, 3, 30])
def test_new_codes_come_behind_the_tokens_and_take_the_first_rows_of_padding(tmp_path, padding):
    placed = place_codes(CATALOG, saved(tmp_path), len(WORDS) + padding, BOS)
    codes = CATALOG.code_count
    assert placed.new_codes == codes == placed.code_count
    assert placed.vocab_size == len(WORDS) + max(codes, padding)
    assert placed.first_code == placed.vocab_size - codes
    rows = np.arange(placed.vocab_size) if placed.vocabulary is None else placed.vocabulary.rows
    assert rows[placed.first_code :].tolist() == [*range(len(WORDS), len(WORDS) + codes)]
    assert sorted(rows.tolist()) == [*range(placed.vocab_size)]
    assert rows[placed.tokens(np.arange(3))].tolist() == rows_of(placed, tmp_path)
    assert (placed.vocabulary is None) == (padding == 0)
    if placed.vocabulary is not None:
        assert len(placed.vocabulary.loaded_rows) == placed.first_code


@pytest.mark.parametrize(
    ("bos", "settings", "begins"),
    [
        (True, {}, True),
        (False, {}, False),
        (False, {"add_bos_token": True}, True),
        (False, {"add_bos_token": None}, False),
    ],
)
def test_prompts_begin_with_bos_if_the_tokenizer_says_so(tmp_path, bos, settings, begins):
    assert place_codes(CATALOG, saved(tmp_path, KNOWN, bos, **settings), 14, BOS).begins is begins


def test_without_a_tokenizer_the_codes_come_last(tmp_path):
    placed = place_codes(CATALOG, tmp_path, 9, BOS)
    assert (placed.first_code, placed.bos, placed.begins, placed.vocabulary) == (9, BOS, True, None)


def test_padding_is_a_token_that_no_prompt_holds(tmp_path):
    """A vocabulary whose token 0 is a character of the prompt."""
    catalog = place_codes(CATALOG, saved(tmp_path, KNOWN), 14, 0)
    text = Instruction((0, 3), (0,), (4, 0), (3, 0))
    read = padding_apart(dataclasses.replace(catalog, instruction=text))
    spare = len(WORDS) - 1
    assert vars(read.instruction) == {
        "head": (spare, 3),
        "separator": (spare,),
        "tail": (4, spare),
        "empty": (3, spare),
    }
    assert read.bos == spare
    assert read.vocabulary.rows[spare] == 0
    assert read.vocabulary.rows[PAD] == spare
    assert rows_of(read, tmp_path) == rows_of(catalog, tmp_path)
    alone = padding_apart(catalog)  # items behind a BOS of number 0
    assert (alone.bos, alone.vocabulary.rows[alone.bos]) == (spare, 0)
    unused = dataclasses.replace(catalog, bos=1)
    assert padding_apart(unused) is unused
    new = padding_apart(CATALOG.behind(9, 0))  # without a tokenizer
    assert (new.bos, new.vocabulary.rows[new.bos], new.new_codes) == (8, 0, CATALOG.code_count)
    assert code_texts(new) == code_texts(CATALOG)


@pytest.mark.parametrize(
    ("known", "rows", "message"),
    [
        (KNOWN, 13, r"has tokens 0\.\.13, but the model's embedding has 13 rows"),
        (KNOWN[:-1], 14, r"has 7 of the 8 codes of the items as tokens, but not <c_2>: give the index"),
    ],
)
def test_vocabularies_that_do_not_fit(tmp_path, known, rows, message):
    with pytest.raises(TokenizerError, match=message):
        place_codes(CATALOG, saved(tmp_path, known), rows, BOS)


def test_a_code_that_the_tokenizer_cuts_into_pieces(tmp_path):
    """Words of the vocabulary that are no added tokens: the text is cut before they are looked up."""
    words_tokenizer((*WORDS, *KNOWN)).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"has the code <a_0> as token 6, but cuts the text <a_0> into \['<unk>'"):
        place_codes(CATALOG, tmp_path, 14, BOS)


def test_bos_that_is_a_code(tmp_path):
    with pytest.raises(TokenizerError, match="BOS, token 7, is a code of the items"):
        place_codes(CATALOG, saved(tmp_path, KNOWN), 14, 7)


def test_codes_that_a_model_should_know(tmp_path):
    placed = place_codes(CATALOG, saved(tmp_path), len(WORDS), BOS)
    with pytest.raises(TokenizerError, match=r"none of the index's codes.*cuts <a_0> into \['<unk>'.*Give"):
        check_known(placed, tmp_path)
    with pytest.raises(TokenizerError, match=r"there is no .*nothing.tokenizer\.json"):
        check_known(CATALOG.behind(6, BOS), tmp_path / "nothing")


def test_a_tokenizer_of_another_model(tmp_path):
    placed = place_codes(CATALOG, saved(tmp_path, KNOWN), 14, BOS)
    (tmp_path / "other").mkdir()
    with pytest.raises(TokenizerError, match="gives <a_0> the token None, but the code has row 6"):
        extended_tokenizer(saved(tmp_path / "other"), placed)
