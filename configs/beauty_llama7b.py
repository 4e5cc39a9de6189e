"""The paper's pair: LLaMA-7B fine-tuned with LoRA as the target, LLaMA-68M as the draft, its instruction as the prompt.

    python -m launch.pipeline --config=configs/beauty_llama7b.py --workdir=DIR --data_dir=PATH/TO/beauty \
        --config.target.directory=PATH/TO/llama-7b --config.draft.directory=PATH/TO/llama-68m

Both directories are Hugging Face ones of the same vocabulary (32,000 tokens), with safetensors and tokenizer.json.
Those of configs/models, the defaults, hold sizes alone, for `launch.plan`; a run refuses them: they have no weights.
With --config=configs/beauty_llama7b.py:item prompts are item codes alone, and every item of a row is predicted. LoRA r
= 8, alpha 16, dropout 0.05 on q and v, lr 1e-4, batch 256, 20 epochs, weight decay 0.01; draft AdamW lr 1e-3, 100
warm-up steps, weight decay 0.1, alpha 0.7, AtSpeed-S: the public code's (ALGORITHM.md section 7). Base weights in
bfloat16 take 13.5 GB; adapter and item rows are float32. Never run: no weights of this size can be had where it was
written, and its steps have only been compiled. The mesh splits weights over 8 devices, 1.6 GiB each; what else they
need for rows of about 200 tokens (item: 85) says configs/README.md, "Will it fit", and of a changed config
`python -m launch.plan --config=configs/beauty_llama7b.py --devices=8`. Where it does not fit, lower
train_target.batch_size and evaluate.batch_size, or raise train_target.accumulate.
"""

import ml_collections

from atspeed_jax.data.instructions import PromptConfig
from configs import atspeed_s

# bos: <s> of Llama's tokenizer; llama-68m's and old llama-7b's config.json say 0, which is <unk>.
BASE = dict(dtype="bfloat16", remat=True, remat_policy="nothing", precision="highest", dropout=0.0, bos=1)


def get_config(prompt: str = "instruction") -> ml_collections.ConfigDict:
    if prompt not in ("instruction", "item"):
        raise ValueError(f"prompt {prompt!r}: expected 'instruction' or 'item'")
    config = atspeed_s.get_config()
    config.name = "beauty_llama7b"
    config.data.prompt = ml_collections.ConfigDict(vars(PromptConfig(prompt)))
    lora = dict(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj"))
    config.target = ml_collections.ConfigDict(BASE | dict(directory="configs/models/llama_7b", lora=lora))
    config.draft = ml_collections.ConfigDict(BASE | dict(directory="configs/models/llama_68m", lora=None))
    reference = dict(epochs=20.0, batch_size=256, learning_rate=1e-4, weight_decay=0.01, average=0.0, shuffle=0.0)
    config.train_target.update(evaluations=20, patience=5, **reference)
    config.train_draft.update(batch_size=256, learning_rate=1e-3)
    config.teacher.batch_size = 256
    config.mesh.fsdp = 8
    return config
