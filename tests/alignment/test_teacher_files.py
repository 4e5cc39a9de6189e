import pytest

from atspeed_jax.alignment.teacher_files import TeacherError, check_claim


@pytest.mark.parametrize(
    ("name", "content", "fingerprint", "message"),
    [
        ("fingerprint.txt", b"\xff", "a", "another target"),
        ("made_from.json", b"[]", "b", "made_from.json is damaged .*; delete .* and run launch.make_teacher again"),
    ],
)
def test_a_damaged_claim_is_refused(tmp_path, name, content, fingerprint, message):
    check_claim(tmp_path, "a", {"target": "t1"})
    check_claim(tmp_path, "a", {"target": "t1"})
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TeacherError, match=f"{tmp_path}.*{message}"):
        check_claim(tmp_path, fingerprint, {"target": "t1"})
