import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

import layouts
from atspeed_jax.items.index_file import read_index, read_index_with_gaps
from atspeed_jax.items.index_formats import in_words_of
from atspeed_jax.items.item_index import IndexSettings, SourceError

TOKENS = [[151700, 160001, 168500], [151690, 160001, 168501]]


def write_lines(file, entries):
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return file


def test_json_lines_name_items_and_tokens_of_a_model(tmp_path):
    entries = [
        {"item_id": name, "token_ids": tokens, "metadata": metadata}
        for name, tokens, metadata in zip(("B01", "B02"), TOKENS, ({"title": "Soap"}, {}), strict=True)
    ]
    index = read_index(write_lines(tmp_path / "items.jsonl", entries))
    assert (index.codes.tolist(), index.names, index.titles) == ([[1, 0, 0], [0, 0, 1]], ("B01", "B02"), {0: "Soap"})
    assert [tokens.tolist() for tokens in index.model_tokens] == [[151690, 151700], [160001], [168500, 168501]]
    assert read_index(tmp_path / "items.jsonl", IndexSettings(levels=2)).codes.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"item_id": "a"}], 'line 1: .*expected {"item_id": "B01", "token_ids"'),
        ([{"item_id": "a", "token_ids": [1, "2"]}], "line 1: .*expected"),
        ([{"item_id": "a", "token_ids": []}], "line 1: 0 tokens; expected 1 to 8"),
        (
            [{"item_id": "a", "token_ids": [1, 2]}, {"item_id": "a", "token_ids": [1, 3]}],
            "items 0 and 1 are both called 'a'",
        ),
        ([{"item_id": "a", "token_ids": [1, 1]}], "token 1 is a code of levels 1 and 2"),
        ([{"token_ids": [1, 2]}, {"token_ids": [1]}], r"item 1 has 1 codes, item 0 has 2.*levels=1"),
        ([], "no items"),
    ],
)
def test_bad_json_lines(tmp_path, entries, message):
    with pytest.raises(SourceError, match=rf"items\.jsonl.*{message}"):
        read_index(write_lines(tmp_path / "items.jsonl", entries))


def test_tokens_of_a_model_are_written_as_its_tokenizer_does(tmp_path):
    words = {"the": 0, "<s_a_7>": 1, "<s_b_0>": 2, "<s_a_3>": 3, "<s_b_12>": 4}
    Tokenizer(WordLevel(words)).save(str(tmp_path / "tokenizer.json"))
    file = write_lines(tmp_path / "items.jsonl", [{"token_ids": [3, 2]}, {"token_ids": [1, 4]}])
    index = in_words_of(read_index(file), file, tmp_path)
    assert (index.codes.tolist(), index.spelling) == ([[3, 0], [7, 12]], ("<s_a_{}>", "<s_b_{}>"))
    plain = read_index(layouts.write_index(tmp_path / "shop") / "Beauty.index.json")
    assert in_words_of(plain, file, tmp_path) is plain
    write_lines(file, [{"token_ids": [3, 9]}])
    with pytest.raises(SourceError, match=r"has no token 9; give the model"):
        in_words_of(read_index(file), file, tmp_path)
    write_lines(file, [{"token_ids": [0, 2]}])
    with pytest.raises(SourceError, match="malformed token 'the'"):
        in_words_of(read_index(file), file, tmp_path)


def test_parquet_of_pid_and_sid(tmp_path):
    file = tmp_path / "pid2sid.parquet"
    pq.write_table(pa.table({"pid": [700, 12], "sid": [[340, 6566, 5603], [3, 0, 2]]}), file)
    spelling = ("<s_a_{}>", "<s_b_{}>", "<s_c_{}>")
    index = read_index(file, IndexSettings(spelling=spelling))
    assert (index.codes.tolist(), index.spelling) == ([[340, 6566, 5603], [3, 0, 2]], spelling)
    assert index.names == (700, 12)
    pq.write_table(pa.table({"pid": [700]}), file)
    with pytest.raises(SourceError, match=r"has columns \['pid'\]; expected name and codes .*or pid and sid"):
        read_index(file)
    file.write_text("x")
    with pytest.raises(SourceError, match="cannot be read as parquet"):
        read_index(file)


def write_catalog(file, **changed):
    table = {"item": [2, 0, 1], "name": ["B02", "B00", "B01"], "title": [None, "Soap", " "], "codes": IDS}
    pq.write_table(pa.table({name: values for name, values in (table | changed).items() if values is not None}), file)
    return file


IDS = [[1, 0], [0, 1], [1, 1]]


def test_parquet_of_names_titles_and_codes(tmp_path):
    index = read_index(write_catalog(tmp_path / "index.parquet"))
    assert (index.codes.tolist(), index.names) == ([[0, 1], [1, 1], [1, 0]], ("B00", "B01", "B02"))
    assert (index.titles, index.numbers) == ({0: "Soap"}, None)
    unnumbered = read_index(write_catalog(tmp_path / "index.parquet", item=None, title=None, name=[7, 5, 6]))
    assert (unnumbered.codes.tolist(), unnumbered.names, unnumbered.titles) == (IDS, (7, 5, 6), {})


def test_parquet_whose_items_have_gaps(tmp_path):
    file = write_catalog(tmp_path / "index.parquet", item=[9, 0, 4], title=["Comb", None, None])
    index = read_index_with_gaps(file)
    assert (index.numbers.tolist(), index.names) == ([0, 4, 9], ("B00", "B01", "B02"))
    assert (index.codes.tolist(), index.titles) == ([[0, 1], [1, 1], [1, 0]], {2: "Comb"})
    with pytest.raises(SourceError, match=r"item 1 is missing; 3 rows must be the items 0\.\.2"):
        read_index(file)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"item": [0, 1, 1]}, "item 1 has two rows; keep one"),
        ({"item": [0, 1, -2]}, "column item has -2; expected the number"),
        ({"item": [0, None, 1]}, "column item has None; expected the number"),
        ({"name": ["a", None, "b"]}, "the name of item 0 is None; expected a text or a whole number"),
        ({"name": ["a", "b", "a"]}, "items 1 and 2 are both called 'a'"),
        ({"codes": [[1], [2], None]}, "item 1 has None; expected a list"),
        ({"codes": [[1], [2], [0, 1]], "item": [3, 0, 8]}, "item 8 has 2 codes, item 0 has 1"),
        ({"codes": None}, r"has columns \['item', 'name', 'title'\]; expected name and codes"),
    ],
)
def test_bad_parquet_of_codes(tmp_path, changed, message):
    with pytest.raises(SourceError, match=rf"index\.parquet: .*{message}"):
        read_index_with_gaps(write_catalog(tmp_path / "index.parquet", **changed))


def test_info_in_any_order(tmp_path):
    file = layouts.write_info(tmp_path / "info" / "shop.txt")
    file.write_text("".join(reversed(file.read_text().splitlines(keepends=True))))
    index = read_index(file)
    assert (index.codes.tolist(), index.titles) == (layouts.IDS, layouts.TITLES)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("<a_1><b_2>\t3", r"line 5: '<a_1><b_2>\\t3'; expected codes, a title and an item"),
        ("a_1\ttitle\t4", "line 5: .*expected codes"),
        ("<a_1><b_2>\ttitle\t3", "line 5: item 3 again"),
        ("<a_1><b_2>\ttitle\t5", r"item 4 is missing; 5 lines must be the items 0\.\.4"),
        ("<a_1>\ttitle\t4", r"item 4 has 1 codes, item 0 has 2"),
    ],
)
def test_bad_info(tmp_path, line, message):
    file = layouts.write_info(tmp_path / "shop.txt")
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(SourceError, match=rf"shop\.txt.*{message}"):
        read_index(file)
