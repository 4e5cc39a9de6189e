import pytest

from atspeed_jax.models.conversion import how_to_convert
from atspeed_jax.models.hf_config import HFConfigError, read_hf_config
from atspeed_jax.models.weight_files import WeightsError, tensor_files

FILES = {
    "model-q4_k_m.gguf": "gguf_file='model-q4_k_m.gguf').save_pretrained",
    "pytorch_model-00001-of-00002.bin": "pytorch_model-00001-of-00002.bin are pickles, which are never loaded",
    "consolidated.00.pth": "Meta's layout, which is never loaded: take the directory",
    "model.pth": "converts them",
}


@pytest.mark.parametrize("file", FILES)
def test_foreign_files_are_named_with_what_to_do(tmp_path, file):
    """Where config.json is missing, and where the weights are."""
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(HFConfigError) as error:
        read_hf_config(tmp_path)
    with pytest.raises(WeightsError) as other:
        tensor_files(tmp_path, {}, tied=False)
    for message in (str(error.value), str(other.value)):
        assert FILES[file] in message
        assert str(tmp_path) in message


def test_a_directory_without_weights(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    assert how_to_convert(tmp_path) == ""
