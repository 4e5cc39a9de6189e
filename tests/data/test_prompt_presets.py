"""Prompts of published models by name."""

import json

import pytest

from atspeed_jax.data.instructions import PromptConfig, PromptError
from atspeed_jax.data.prompt_presets import PRESETS, preset

ITEMS = ["<a_1><b_2><c_3>", "<a_4><b_5><c_6>"]


def test_the_text_of_minionerec_at_evaluation():
    assert preset("minionerec").text(ITEMS) == (
        "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
        "response that appropriately completes the request. \n\n### Instruction:\nCan you predict the next possible "
        "item that the user may expect?\n\n### User Input: \nCan you predict the next possible item the user may "
        "expect, given the following chronological interaction history: <a_1><b_2><c_3>, <a_4><b_5><c_6>\n\n"
        "### Response:\n"
    )
    assert "\n\n### User Input: \nThe user has interacted with items <a_1><b_2><c_3>, <a_4>" in preset(
        "minionerec_sft"
    ).text(ITEMS)


def test_an_item_of_onerec():
    prompt = preset("onerec")
    assert prompt.text(["<s_a_3><s_b_6><s_c_5>"] * 2).endswith(
        "：\n<|sid_begin|><s_a_3><s_b_6><s_c_5><|sid_end|><|sid_begin|><s_a_3><s_b_6><s_c_5><|sid_end|>"
    )
    assert (prompt.kind, prompt.options) == ("chat", {"enable_thinking": False})


def test_lc_rec_reads_what_atspeed_reads():
    assert preset("lcrec") == preset("atspeed") == PromptConfig("instruction")


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_takes_the_fields_of_a_preset(name):
    assert PromptConfig(**json.loads(json.dumps(vars(preset(name))))) == preset(name)


def test_an_unknown_name():
    with pytest.raises(PromptError, match="no prompt is named 'rec'; expected one of atspeed, lcrec, minionerec"):
        preset("rec")
