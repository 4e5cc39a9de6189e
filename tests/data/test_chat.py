"""Chat templates: found, rendered and refused as transformers does."""

import json

import pytest

from atspeed_jax.data.chat import Chat, PromptError
from text_tokenizers import CHAT

SETTINGS = {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>", "pad_token": None}

WRITTEN = [
    ("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}", "<s>é<b></s>"),
    ("  {% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),  # trim_blocks and lstrip_blocks
    ("{% for one in 'abc' %}{% if one == 'b' %}{% continue %}{% endif %}{{ one }}{% endfor %}", "ac"),
    ("{{ messages | tojson }}", '[{"role": "user", "content": "é<b>"}]'),
    ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
    ("{% generation %}{{ tools }}{% endgeneration %}{{ documents }}", "NoneNone"),
    ("{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ dict(a=1) }}", "2{'a': 1}"),
    ("{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% endif %}", "31 Jan 2026"),
    ("{{ word is defined }}{{ unknown_word }}", "True"),
]


def chat(directory, template=CHAT, *, system="", options=None, date="", **settings) -> Chat:
    given = SETTINGS | ({} if template is None else {"chat_template": template}) | settings
    (directory / "tokenizer_config.json").write_text(json.dumps(given))
    return Chat(directory, system=system, options=options or {}, date=date)


def test_a_chat_ends_where_the_answer_begins(tmp_path):
    user = "<|im_start|>user\nGo!<|im_end|>\n<|im_start|>assistant\n"
    assert chat(tmp_path).text("Go!") == user
    assert chat(tmp_path, system="Be brief.").text("Go!") == "<|im_start|>system\nBe brief.<|im_end|>\n" + user
    assert chat(tmp_path, options={"enable_thinking": False}).text("Go!") == user + "<think>\n\n</think>\n\n"


@pytest.mark.parametrize(("template", "expected"), WRITTEN)
def test_what_templates_write(tmp_path, template, expected):
    assert chat(tmp_path, template, options={"word": 1}, date="2026-01-31").text("é<b>") == expected


@pytest.mark.parametrize(("template", "expected"), [row for row in WRITTEN if "strftime_now" not in row[0]])
def test_transformers_writes_the_same(template, expected):
    transformers = pytest.importorskip("transformers.utils.chat_template_utils")
    messages = [{"role": "user", "content": "é<b>"}]
    given = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>", "word": 1}
    assert transformers.render_jinja_template([messages], chat_template=template, **given)[0] == [expected]


def test_where_a_template_is_found(tmp_path):
    for name, template in (("default", "of the list"), ("rag", "other")):
        (tmp_path / name).mkdir()
        listed = [{"name": name, "template": template}, {"name": "tool_use", "template": "tools"}]
        if name == "default":
            assert chat(tmp_path / name, listed).text("") == "of the list"
        else:
            with pytest.raises(PromptError, match="chat templates rag, tool_use, but none named default: write"):
                chat(tmp_path / name, listed)
    (tmp_path / "chat_template.jinja").write_text("of the file")
    assert chat(tmp_path).text("") == "of the file"
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("other")
    assert chat(tmp_path).text("") == "of the file"
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(PromptError, match="chat templates rag, but none named default"):
        chat(tmp_path)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, r"has no chat template, neither in tokenizer_config\.json nor as chat_template\.jinja"),
        ("{% if %}", "the chat template of .* cannot be read: Expected an expression"),
        ("{{ raise_exception('No system role!') }}", "fails: No system role!; leave system empty"),
        ("{{ messages[5].content.strip() }}", "fails: .*has no element 5"),
        ("{{ messages[0] + 1 }}", "fails: unsupported operand"),
        ("{{ cls_token }}", r"writes cls_token, which tokenizer_config\.json does not name: add it"),
        ("{{ strftime_now('%d') }}", r"writes today's date.*set prompt\.date .*such as 2026-01-31"),
        ("{{ messages.append(1) }}", "fails: .*unsafe; leave"),
        ("{{ ''.__class__.__mro__ }}", "fails: .*unsafe"),
        ("{% set ns = namespace(_a=1) %}", "cannot have the name _a"),
        ("{% set ns = namespace() %}{% set ns.__a = 1 %}", "cannot have the name __a"),
    ],
)
def test_templates_that_fail(tmp_path, template, message):
    with pytest.raises(PromptError, match=message):
        chat(tmp_path, template, system="Be brief.").text("Go!")
