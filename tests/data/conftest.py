import json

import pytest


@pytest.fixture
def write_layout():
    """Writes codes [items][L] and {user: (train, valid, test)} (items from 0 on) in AtSpeed's layout."""

    def write(directory, codes, users):
        directory.mkdir(parents=True)
        index = {
            str(item): [f"<{letter}_{code}>" for letter, code in zip("abcdefgh", row, strict=False)]
            for item, row in enumerate(codes)
        }
        (directory / "index.json").write_text(json.dumps(index))
        for place, split in enumerate(("train", "valid", "test")):
            lines = [" ".join(map(str, [user, *(item + 1 for item in rows[place])])) for user, rows in users.items()]
            (directory / f"sequential_{split}.txt").write_text("\n".join(lines) + "\n")
        return directory

    return write
