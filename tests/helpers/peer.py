"""What others have: data in LC-Rec's layout, and a small Qwen3 that torch and transformers trained on them.

    python tests/helpers/peer.py OUT [--epochs=20]   # writes OUT/data and OUT/model

The data are those of configs/tiny.py. A user's items but the last two are trained on, as LC-Rec does. Prompts are the
codes of the items alone, without BOS. The loop is the usual one: AdamW on the model's own loss.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from atspeed_jax.data.simulate import SyntheticConfig
from atspeed_jax.data.sources import synthesize
from configs.tiny import SYNTHETIC
from text_tokenizers import write_qwen

NAME, HISTORY, PADDING = "Shop", 16, 40
SIZES = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
SIZES |= {"num_key_value_heads": 2, "head_dim": 24, "tie_word_embeddings": True, "max_position_embeddings": 512}


def write_data(directory: Path, **changes) -> tuple[list[list[str]], list[list[int]]]:
    """Writes index and interactions; changes: of SYNTHETIC. -> codes of every item, items of every user."""
    source = synthesize(SyntheticConfig(**SYNTHETIC | changes))
    sequences = [np.concatenate(parts).tolist() for parts in zip(source.train, source.valid, source.test, strict=True)]
    sequences = [items for items in sequences if len(items) >= 3]
    index = [
        [f"<{level}_{code}>" for level, code in zip("abcd", codes, strict=False)] for codes in source.codes.tolist()
    ]
    directory.mkdir(parents=True)
    for name, rows in (("index", index), ("inter", sequences)):
        (directory / f"{NAME}.{name}.json").write_text(json.dumps({str(n): row for n, row in enumerate(rows)}))
    return index, sequences


def rows_of(tokens_of: np.ndarray, sequences: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded windows of at most HISTORY + 1 train items, and their labels, -100 for padding."""
    windows = [items[:-2] for items in sequences if len(items) > 3]
    windows = [items[max(0, end - HISTORY - 1) : end] for items in windows for end in {len(items), HISTORY + 1}]
    width = max(map(len, windows)) * tokens_of.shape[1]
    tokens, labels = np.zeros((len(windows), width), np.int64), np.full((len(windows), width), -100)
    for row, items in enumerate(windows):
        flat = tokens_of[items].reshape(-1)
        tokens[row, : len(flat)] = labels[row, : len(flat)] = flat
    return torch.from_numpy(tokens), torch.from_numpy(labels)


def write_model(directory: Path, index: list[list[str]], sequences: list[list[int]], epochs: int) -> float:
    """Trains a Qwen3 and saves it. -> its last loss."""
    directory.mkdir()
    torch.set_num_threads(1)  # the matrices are small
    codes = sorted({code for row in index for code in row})
    tokenizer = write_qwen(directory, codes)
    numbers = tokenizer.get_vocab(with_added_tokens=True)
    eos = numbers["<|im_end|>"]
    fields = SIZES | {"vocab_size": len(numbers) + PADDING, "bos_token_id": None, "eos_token_id": eos}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **fields))
    tokens, labels = rows_of(np.array([[numbers[code] for code in row] for row in index]), sequences)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    loss = torch.tensor(0.0)
    for _ in range(epochs):
        for rows in torch.randperm(len(tokens)).split(64):
            batch = labels[rows]
            loss = model(input_ids=tokens[rows], attention_mask=(batch >= 0).long(), labels=batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.save_pretrained(directory)
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    index, sequences = write_data(given.out / "data")
    print(f"loss {write_model(given.out / 'model', index, sequences, given.epochs):.3f}: {given.out}")


if __name__ == "__main__":
    main()
