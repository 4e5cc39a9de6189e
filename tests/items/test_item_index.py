import json

import pytest

from atspeed_jax.items.index_file import read_index
from atspeed_jax.items.item_index import IndexSettings, SourceError
from atspeed_jax.items.tokenizer import code_texts


def written(directory, entries):
    file = directory / "shop.index.json"
    file.write_text(json.dumps(entries))
    return file


@pytest.mark.parametrize(
    ("tokens", "spelling"),
    [
        (("<a_2>", "<b_0>"), None),
        (("<s_a_2>", "<s_b_0>"), ("<s_a_{}>", "<s_b_{}>")),
        (("<C0_2>", "<C1_0>"), ("<C0_{}>", "<C1_{}>")),
        (("<b_2>", "<a_0>"), ("<b_{}>", "<a_{}>")),
        ((2, 0), None),
    ],
)
def test_codes_keep_the_spelling_of_the_index(tmp_path, tokens, spelling):
    index = read_index(written(tmp_path, {"0": list(tokens)}))
    assert (index.codes.tolist(), index.spelling, index.catalog.spelling) == ([[2, 0]], spelling, spelling)
    if isinstance(tokens[0], str):
        texts = code_texts(index.catalog)
        assert (texts[2], texts[3]) == tokens


def test_ids_of_several_lengths_are_refused_or_cut(tmp_path):
    file = written(tmp_path, {"0": ["<a_1>", "<b_2>"], "1": ["<a_1>", "<b_2>", "<c_1>"]})
    with pytest.raises(
        SourceError, match=r"item 1 has 3 codes, item 0 has 2.*config\.data\.levels=2: ids are cut to 2"
    ):
        read_index(file)
    assert read_index(file, IndexSettings(levels=2)).codes.tolist() == [[1, 2], [1, 2]]
    with pytest.raises(SourceError, match=r"item 0 has 2 codes, but config\.data\.levels=3; lower it"):
        read_index(file, IndexSettings(levels=3))


@pytest.mark.parametrize(
    ("entries", "spelling", "message"),
    [
        ({"0": ["<a_1>", "<a_2>"]}, None, "spelling: levels 1 and 2 are both written '<a_{}>'"),
        ({"0": ["<a_1>"], "1": ["<s_a_2>"]}, None, "item 1, token '<s_a_2>' at position 1 begins with 's_a'"),
        ({"0": ["<a_1>"]}, ("<s_a_{}>",), "are written ('<a_{}>',), but config.data.spelling=('<s_a_{}>',); leave"),
        ({"0": [1, 2]}, ("<s_a_{}>",), "config.data.spelling=('<s_a_{}>',) has 1 patterns, but ids have 2"),
        ({"0": [1, 2], "1": [1, "<b_2>"]}, None, "item 1, position 2: malformed code '<b_2>'; expected an integer"),
        ({"0": [1, 65536]}, None, "malformed code 65536"),
        ({"0": [True, 1]}, None, "malformed token True"),
        ({"0": []}, None, "item 0 has []"),
    ],
)
def test_bad_indices(tmp_path, entries, spelling, message):
    with pytest.raises(SourceError) as error:
        read_index(written(tmp_path, entries), IndexSettings(spelling=spelling))
    assert "shop.index.json: " in str(error.value)
    assert message in str(error.value)
