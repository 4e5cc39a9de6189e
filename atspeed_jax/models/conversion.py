"""How to convert weights that are never read: pickles, GGUF and Meta's layout."""

from __future__ import annotations

from pathlib import Path

_SAVE = "save_pretrained('NEW_DIRECTORY')"


def how_to_convert(directory: Path) -> str:
    """Says how the weights of a directory become safetensors.

    Args:
      directory: of a model without safetensors.

    Returns:
      A clause for an error message, or "" if the directory holds no known weights.
    """
    if found := _first(directory, "*.gguf"):
        return (
            f"{found} is a GGUF file, which is not read: with transformers and gguf installed, "
            f"AutoModelForCausalLM.from_pretrained({str(directory)!r}, gguf_file={found!r}).{_SAVE} converts it, and "
            "AutoTokenizer does so for the tokenizer"
        )
    if found := _first(directory, "consolidated*.pth"):
        return (
            f"{found} is a pickle in Meta's layout, which is never loaded: take the directory of the same model that "
            "has config.json and model.safetensors"
        )
    if found := _first(directory, "*.bin", "*.pt", "*.pth", "*.ckpt"):
        return (
            f"files such as {found} are pickles, which are never loaded: with transformers and torch installed, "
            f"AutoModelForCausalLM.from_pretrained({str(directory)!r}).{_SAVE} converts them"
        )
    return ""


def _first(directory: Path, *patterns: str) -> str:
    """Returns the name of the first file of a pattern; "" if no file is one."""
    return next((path.name for pattern in patterns for path in sorted(directory.glob(pattern))), "")
