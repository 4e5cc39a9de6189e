"""A draft for a model that you have: any Hugging Face directory whose tokenizer knows the codes, with its data.

    python -m launch.pipeline --config=configs/foreign.py:3,minionerec --workdir=runs/mine --data_dir=DATA \
        --config.target.directory=HF_DIR

Behind the colon stand the number of codes of an id, and words, with commas between: a name of
`data.prompt_presets`, or none for items alone; "lora" trains an adapter of the target first, where the target is taken
as it is otherwise; "draft" begins with a smaller Hugging Face model of the same tokenizer
(--config.draft.directory=HF_DIR) instead of a new draft; "layers" begins with the target's own first and last layer, or
others (--config.draft.target_layers='(0,9,18,-1)', numbered from 0). Fields of the prompt are flags, such as
--config.data.prompt.separator=', '. DATA has any layout of `data.layouts`. With codes that the tokenizer does not know,
take "lora": their rows are trained, too.

The new draft reads the vocabulary of the target: with 152,000 tokens, 64 numbers for each are 9.7 M parameters, all
but 0.2 M of them rows of words that are only read in the text of the prompt.
"""

import ml_collections
from ml_collections import config_dict

from atspeed_jax.data.instructions import PromptConfig
from atspeed_jax.data.prompt_presets import PRESETS, preset
from configs import lcrec_small

WORDS = ("lora", "draft", "layers")


def get_config(options: str = "3") -> ml_collections.ConfigDict:
    levels, *words = options.split(",")
    unknown = [word for word in words if word not in (*WORDS, *PRESETS)]
    if not levels.isdigit() or not 1 <= int(levels) <= 8 or unknown:
        raise ValueError(
            f"{options!r}: expected the number of codes of an id, 1 to 8, and some of {', '.join((*WORDS, *PRESETS))}, "
            "such as 3,minionerec"
        )
    config = lcrec_small.get_config()
    config.name, config.data.source = "foreign", "auto"
    named = [word for word in words if word in PRESETS]
    config.data.prompt = ml_collections.ConfigDict(vars(preset(named[0]) if named else PromptConfig()))
    base = dict(dtype="float32", remat=False, remat_policy="nothing", precision="highest", dropout=0.0)
    base |= dict(directory="HF_DIR", bos=config_dict.placeholder(int), lora=None)
    config.target = ml_collections.ConfigDict(base)
    if "draft" in words:
        config.draft = ml_collections.ConfigDict(base)
    elif "layers" in words:
        config.draft = ml_collections.ConfigDict(dict(target_layers=(0, -1), dropout=0.0))
        config.train_align.update(learning_rate=2e-4)
    train = dict(epochs=3.0, learning_rate=1e-4, average=0.0, shuffle=0.0, evaluations=3)
    config.train_draft.shuffle = 0.0  # the order of the items counts in a text
    if "layers" in words:
        config.train_draft = None  # the layers know the target's next items already
    if "lora" in words:
        config.target.lora = ml_collections.ConfigDict(
            dict(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "k_proj", "v_proj", "o_proj"))
        )
        config.train_target.update(**train)
    else:
        config.train_target = None
    drafted = int(levels) - 1
    config.decode.update(widths=(64, 96, *(96,) * 6)[:drafted], gamma=max(1, drafted))
    config.evaluate.update(grid_beams=(), grid_widths=(), drafters=("draft",), latency_users=20)
    return config
