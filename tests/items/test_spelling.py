import pytest

from atspeed_jax.items.spelling import SpellingError, checked_spelling, default_spelling, parse_code, spell

ONEREC = ("<s_a_{}>", "<s_b_{}>", "<s_c_{}>")


@pytest.mark.parametrize(
    ("text", "pattern", "number"),
    [
        ("<a_17>", "<a_{}>", 17),
        ("<s_a_340>", "<s_a_{}>", 340),
        ("<C0_47>", "<C0_{}>", 47),
        ("<|item_b_5|>", "<|item_b_{}|>", 5),
        ("<a_1_2>", "<a_1_{}>", 2),
    ],
)
def test_a_code_is_split_and_put_together_again(text, pattern, number):
    assert parse_code(text) == (pattern, number)
    assert spell(pattern, number) == text


@pytest.mark.parametrize(
    "text", ["a_1", "<a1>", "<a_>", "<_1>", "<a_-1>", "<|a_1>", "<a_1|>", "<a_1> ", "<a _1>", 7, None]
)
def test_texts_that_are_no_codes(text):
    assert parse_code(text) is None


def test_the_default_is_none():
    assert default_spelling(3) == ("<a_{}>", "<b_{}>", "<c_{}>")
    assert checked_spelling(default_spelling(3), 3) is None is checked_spelling(None, 3)
    assert checked_spelling(list(ONEREC), 3) == ONEREC
    assert checked_spelling(("<b_{}>", "<a_{}>"), 2) == ("<b_{}>", "<a_{}>")


@pytest.mark.parametrize(
    ("spelling", "message"),
    [
        (ONEREC[:2], "has 2 patterns, but ids have 3 codes"),
        (("<a_{}>", "<b_{}>", "<a_{}>"), "levels 1 and 3 are both written '<a_{}>'"),
        (("<a_{}>", "<b_{}>", "c_{}"), "has 'c_{}'; expected a text in angle brackets"),
        (("<a_{}>", "<b_{}>", "<c_>"), "has '<c_>'"),
        (("<a_{}>", "<b_{}>", "<c1{}>"), "has '<c1{}>'"),  # 1 and 0 would be 10
        (("<a_{}>", "<b_{}>", "<c {}>"), "has '<c {}>'"),
        (("<a_{}>", "<b_{}>", 3), "has 3; expected"),
    ],
)
def test_patterns_that_cannot_spell(spelling, message):
    with pytest.raises(SpellingError) as error:
        checked_spelling(spelling, 3)
    assert message in str(error.value)
