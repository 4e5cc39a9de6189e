"""Prompts that published models are trained with, by name.

A config takes one as `config.data.prompt = vars(preset("minionerec"))`, and may change
its fields. The number of items is `config.data.history`.
"""

from __future__ import annotations

from atspeed_jax.data.instructions import SEPARATOR, TEMPLATE, PromptConfig, PromptError

# LC-Rec's text is that of AtSpeed, which was made from LC-Rec.
_MINIONEREC = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request. \n\n"
    "### Instruction:\nCan you predict the next possible item that the user may expect?\n\n"
    "### User Input: \n{input}\n\n### Response:\n"
)
PRESETS = {
    "atspeed": PromptConfig("instruction", TEMPLATE, SEPARATOR),
    "lcrec": PromptConfig("instruction", TEMPLATE, SEPARATOR),
    "minionerec": PromptConfig(
        "instruction",
        _MINIONEREC.replace(
            "{input}",
            "Can you predict the next possible item the user may expect, given the following chronological interaction "
            "history: {items}",
        ),
        ", ",
    ),
    "minionerec_sft": PromptConfig(
        "instruction",
        _MINIONEREC.replace(
            "{input}",
            "The user has interacted with items {items} in chronological order. Can you predict the next possible item "
            "that the user may expect?",
        ),
        ", ",
    ),
    "onerec": PromptConfig(
        "chat",
        "根据以下用户浏览记录，请预测用户接下来可能观看的内容：\n{items}",
        "",
        before="<|sid_begin|>",
        after="<|sid_end|>",
        system="你是一个智能推荐助手，能够根据用户的浏览历史预测用户可能感兴趣的下一个内容。",
        chat_options='{"enable_thinking": false}',
    ),
}


def preset(name: str) -> PromptConfig:
    """Returns the prompt of a published model.

    * "atspeed": the text of AtSpeed's public code.
    * "lcrec": prompt 0 of 17 for sequential recommendation, with which LC-Rec is
      evaluated by default (zhengbw0324/LC-Rec, prompt.py and data.py); history 20.
      Training draws one of the 17 for each row.
    * "minionerec": the prompt at evaluation, "minionerec_sft": the prompt of supervised
      fine-tuning, which differs in one sentence (AkaliKong/MiniOneRec, data.py,
      EvalSidDataset and SidSFTDataset); history 10. Their scores also count the newline
      and EOS behind an id.
    * "onerec": the first of five system texts and the first of five user texts of the
      next video, which training draws at random (OpenOneRec, as stored in
      zzzzzap111/OpenOneRec, data/onerec_data/sft/video_rec.py); history 512. The chat
      template is that of the model's directory. OneRec's benchmark takes another one,
      which ends the user's text with /no_think: to read the same, store that file,
      qwen3_soft_switch.jinja2, as chat_template.jinja in the directory.

    Args:
      name: one of the above.

    Raises:
      PromptError: an unknown name.
    """
    if name not in PRESETS:
        raise PromptError(f"no prompt is named {name!r}; expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
