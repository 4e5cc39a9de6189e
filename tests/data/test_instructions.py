"""The pieces of a prompt against the tokenizer on the whole text, for the kinds of tokenizer that Llamas come with."""

import dataclasses

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, processors

from atspeed_jax.data.instructions import TEMPLATE, PromptConfig, PromptError, read_instruction, same_instruction
from atspeed_jax.data.prompts import prompt_rows, prompt_tokens, prompt_width, training_rows
from atspeed_jax.items.catalog import Catalog, Instruction
from atspeed_jax.items.tokenizer import extended_tokenizer
from text_tokenizers import BOS, CHAT, TOKENIZERS, byte_level, write_qwen

CODES = np.random.default_rng(0).integers(0, 12, (40, 3))
REFERENCE = PromptConfig("instruction")
# Words that a tokenizer without an idea of codes would join to the codes, or to the spaces around them.
AWKWARD = PromptConfig("instruction", "items<{items}>\n in  order_", "_ <")
AROUND = PromptConfig("instruction", "items {items}\n", ", ", before=" < ", after="> _")


@pytest.fixture(scope="module", params=TOKENIZERS)
def base(request, tmp_path_factory):
    return saved(TOKENIZERS[request.param](), tmp_path_factory.mktemp("base"))


def saved(tokenizer: Tokenizer, directory):
    """(directory, catalog behind its vocabulary)."""
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory, Catalog(CODES, (12,) * 3).behind(tokenizer.get_vocab_size(), BOS)


def text_of(item: int) -> str:
    return "".join(f"<{letter}_{code}>" for letter, code in zip("abc", CODES[item].tolist(), strict=True))


@pytest.mark.parametrize("prompt", [REFERENCE, AWKWARD, AROUND], ids=["reference", "awkward", "around"])
def test_a_prompt_is_what_the_tokenizer_makes_of_the_text(base, prompt):
    directory, catalog = base
    catalog = dataclasses.replace(catalog, instruction=read_instruction(directory, catalog, prompt))
    tokenizer = extended_tokenizer(directory, catalog)
    rng = np.random.default_rng(1)
    for count in (0, 1, 2, 3, 7, 30):
        items = rng.integers(0, len(CODES), count).tolist()
        newest = items[-5:]
        around = [f"{prompt.before}{text_of(item)}{prompt.after}" for item in newest]
        text = prompt.template.replace("{items}", prompt.separator.join(around)) + prompt.before
        tokens = prompt_tokens(catalog, items, 5)
        adds_bos = tokenizer.encode("x").ids[0] == BOS
        assert tokens[adds_bos ^ 1 :].tolist() == tokenizer.encode(text).ids
        assert tokens[0] == BOS
        assert tokens.dtype == np.int32
        assert len(tokens) <= prompt_width(catalog, 5)
        answer = int(rng.integers(0, len(CODES)))
        (row,) = training_rows(catalog, [[*newest, answer]], 6)
        whole = tokenizer.encode(text + text_of(answer)).ids
        assert row[len(row) - len(whole) :].tolist() == whole
        assert set(row[: -len(whole) - 1].tolist()) <= {0}
    assert prompt_width(catalog, 5) == len(prompt_tokens(catalog, items, 5)) == len(tokens)
    assert prompt_rows(catalog, [items, []], 5).shape == (2, len(tokens))


def test_the_text_of_the_public_code():
    assert REFERENCE.text(["<a_1><b_2>", "<a_3><b_4>"]) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nThe user has interacted with items <a_1><b_2>, <a_3><b_4> in chronological order. Can "
        "you predict the next possible item that the user may expect?\n\n### Response:"
    )


@pytest.mark.parametrize("times", [0, 2])
def test_a_template_has_one_place_for_the_items(times):
    with pytest.raises(PromptError, match=rf"template='.*' has \{{items\}} {times} times: put it once"):
        PromptConfig("instruction", "Items: " + times * "{items}")


def test_an_item_prompt_has_no_text():
    assert PromptConfig() == PromptConfig("item", TEMPLATE, ", ")
    with pytest.raises(PromptError, match="read with kind='instruction' or 'chat' alone"):
        PromptConfig(separator=" ")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"before": "<"}, "before is read with kind='instruction' or 'chat' alone: set it, or leave before out"),
        ({"kind": "instruction", "system": "Hi"}, "system is read with kind='chat' alone"),
        ({"kind": "instruction", "date": "2026-01-31"}, "date is read with kind='chat' alone"),
        (
            {"kind": "chat", "system": "{items}"},
            r"system='\{items\}' has \{items\}: the user's items stand in template",
        ),
        ({"kind": "chat", "date": "today"}, "date='today': expected a day such as 2026-01-31"),
        ({"kind": "chat", "chat_options": "{enable"}, r"chat_options='\{enable' is no JSON"),
        (
            {"kind": "chat", "chat_options": "[]"},
            r"chat_options='\[\]': expected a JSON object such as '\{\"enable_thinking",
        ),
        ({"kind": "chat", "chat_options": '{"tools": 1}'}, "without messages, tools, documents"),
    ],
)
def test_fields_that_do_not_fit(fields, message):
    with pytest.raises(PromptError, match=message):
        PromptConfig(**fields)


def test_a_prompt_of_no_tokens_is_bos(tmp_path):
    directory, catalog = saved(byte_level(bos=False), tmp_path)
    catalog = dataclasses.replace(catalog, begins=False)
    bare = read_instruction(directory, catalog, PromptConfig("instruction", "{items}", ""))
    assert bare == Instruction((), (), (), (BOS,))
    before = read_instruction(directory, catalog, PromptConfig("instruction", "{items}", "", before="items"))
    assert before.empty == before.head == before.separator == before.tail != (BOS,)


def test_the_codes_of_all_items_are_not_copied_for_every_code(tmp_path, monkeypatch):
    """Which took minutes for 200,000 items."""
    directory, catalog = saved(byte_level(), tmp_path)
    made, check = [], Catalog.__post_init__
    monkeypatch.setattr(Catalog, "__post_init__", lambda self: (made.append(1), check(self)))
    read_instruction(directory, catalog, REFERENCE)
    assert len(made) <= 2


def in_chat(directory, template="items {items}!", chat=CHAT, **fields):
    """The pieces of a chat, and the tokenizer with the codes."""
    write_qwen(directory, chat_template=chat)
    _, catalog = saved(Tokenizer.from_file(str(directory / "tokenizer.json")), directory)
    found = read_instruction(directory, catalog, PromptConfig("chat", template, **fields))
    return found, extended_tokenizer(directory, catalog)


def test_a_chat_is_cut_at_its_items(tmp_path):
    found, tokenizer = in_chat(
        tmp_path, system="Be brief.", separator="", before="<|sid_begin|>", after="<|sid_end|>",
        chat_options='{"enable_thinking": false}',
    )  # fmt: skip
    texts = {name: tokenizer.decode(list(tokens), skip_special_tokens=False) for name, tokens in vars(found).items()}
    head = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nitems "
    tail = "!<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n<|sid_begin|>"
    assert texts == {
        "head": f"{head}<|sid_begin|>",
        "separator": "<|sid_end|><|sid_begin|>",
        "tail": f"<|sid_end|>{tail}",
        "empty": head + tail,
    }
    assert found.head[0] == tokenizer.token_to_id("<|im_start|>")
    assert len(found.separator) == 2


def test_a_chat_template_that_trims_the_text_of_the_user(tmp_path):
    trims = CHAT.replace("message.content +", "(message.content | trim) +")
    found, tokenizer = in_chat(tmp_path, "{items}\n", trims, separator="", before=" ", after="\n")
    decoded = [tokenizer.decode(list(piece), skip_special_tokens=False) for piece in vars(found).values()]
    ends = "<|im_end|>\n<|im_start|>assistant\n "
    assert decoded == ["<|im_start|>user\n", "\n ", ends, f"<|im_start|>user\n{ends}"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chat": CHAT.replace("message.content", "message.content | upper")}, "with {items} 0 times, or changes it"),
        ({"chat": CHAT.replace("message.content", "message.content * 2")}, "with {items} 2 times, or changes it"),
        (
            {"chat": CHAT.replace("assistant", "assistant <a_1>")},
            "leave texts like <a_0> out of these texts and out of",
        ),
        ({"system": "As <b_2>"}, r"system='As <b_2>' apart at the item codes: leave texts like <a_0> out of these"),
        ({"before": "<a_1>"}, "separator=', ', before='<a_1>' apart at the item codes"),
        ({"chat": "{{ raise_exception('no') }}"}, "the chat template of .* fails: no"),
    ],
)
def test_a_chat_that_cannot_be_cut(tmp_path, fields, message):
    with pytest.raises(PromptError, match=message):
        in_chat(tmp_path, **fields)


def test_a_directory_without_a_tokenizer_has_no_chat(tmp_path):
    with pytest.raises(PromptError, match="a chat is text, put the model's tokenizer there"):
        read_instruction(tmp_path, Catalog(CODES, (12,) * 3).behind(50, BOS), PromptConfig("chat"))


def test_truncation_and_padding_of_a_tokenizer_are_not_its_tokens(tmp_path):
    tokenizer = byte_level()
    plain = read_instruction(*saved(tokenizer, tmp_path), REFERENCE)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=500)
    assert read_instruction(*saved(tokenizer, tmp_path), REFERENCE) == plain


def test_other_braces_in_a_template_are_text():
    assert PromptConfig("instruction", "{} {0} {{items}} {", "{}").text(["a", "b"]) == "{} {0} {a{}b} {"


def test_a_directory_without_a_tokenizer(tmp_path):
    with pytest.raises(
        PromptError,
        match=r"there is no .*tokenizer\.json: an instruction is text.*prompt\.kind='item'.*save_pretrained",
    ):
        read_instruction(tmp_path, Catalog(CODES, (12,) * 3).behind(50, BOS), REFERENCE)


@pytest.mark.parametrize(
    ("template", "separator"), [("After <a_1>: {items}", ", "), ("After {items}", " <c_0> "), ("{items}", "<b_1>")]
)
def test_codes_in_the_text(tmp_path, template, separator):
    with pytest.raises(PromptError, match=r"does not take template=.* apart at the item codes"):
        read_instruction(*saved(byte_level(), tmp_path), PromptConfig("instruction", template, separator))


@pytest.mark.parametrize("before", ["items ", ", "])
def test_a_token_of_the_vocabulary_that_reaches_into_some_code(tmp_path, before):
    """The pieces are right for most items; the one that it spoils is looked for."""
    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken(f"{before}<a_{CODES[7, 0]}>", normalized=False)])
    directory, catalog = saved(tokenizer, tmp_path)
    assert (CODES[0] != CODES[7]).all()
    with pytest.raises(PromptError, match="apart at the item codes"):
        read_instruction(directory, catalog, REFERENCE)


def test_a_tokenizer_that_ends_texts_itself(tmp_path):
    tokenizer, ends = byte_level(), [("<s>", BOS), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    with pytest.raises(PromptError, match=r"adds tokens to a text: .*expected BOS \(1\) before it or nothing"):
        read_instruction(*saved(tokenizer, tmp_path), REFERENCE)


def test_models_that_read_the_text_differently():
    one, other = Instruction((1, 5), (6,), (7,), (1, 5, 7)), Instruction((1, 5), (6, 6), (7,), (1, 5, 7))
    assert same_instruction({"target": one, "draft": one}) == one == same_instruction({"target": one})
    with pytest.raises(
        PromptError, match="at position 1 of the instruction's separator is None in target and 6 in draft"
    ):
        same_instruction({"target": one, "draft": other})
