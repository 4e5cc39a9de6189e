"""How codes are written: one pattern per level, such as "<a_{}>" or "<s_a_{}>".

The number of a code stands at {}. By default the levels are the letters a, b, c, ... in
order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = "{}"
LEVELS = "abcdefgh"
# No digit stands beside the number, so a text has one reading. No blank or angle
# bracket stands inside, so a tokenizer can cut at the brackets.
_PATTERN = re.compile(r"<(?:[^<>{}\s]*[^<>{}\s\d])?\{\}[^<>{}\s\d]*>")
_CODE = re.compile(r"<(\|?)([A-Za-z][A-Za-z0-9_]*_)([0-9]{1,9})\1>")


class SpellingError(ValueError):
    """Patterns that cannot spell the codes of a catalog."""


def default_spelling(levels: int) -> tuple[str, ...]:
    """Returns ("<a_{}>", "<b_{}>", ...), one pattern per level."""
    return tuple(f"<{letter}_{NUMBER}>" for letter in LEVELS[:levels])


def checked_spelling(spelling: Sequence[str] | None, levels: int) -> tuple[str, ...] | None:
    """Checks patterns.

    Args:
      spelling: one pattern per level; None for the default.
      levels: L, the number of codes of an id.

    Returns:
      The patterns; None if they are those of `default_spelling`.

    Raises:
      SpellingError: another number of patterns, a malformed pattern, or two levels with
        one pattern.
    """
    if spelling is None or tuple(spelling) == default_spelling(levels):
        return None
    spelling = tuple(spelling)
    if len(spelling) != levels:
        raise SpellingError(
            f"spelling={spelling} has {len(spelling)} patterns, but ids have {levels} codes; give one pattern per level"
        )
    for pattern in spelling:
        if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
            raise SpellingError(
                f"spelling has {pattern!r}; expected a text in angle brackets with {NUMBER} where the number stands, "
                'such as "<s_a_{}>", without blanks, and without digits beside or behind the number'
            )
    for level, pattern in enumerate(spelling):
        if pattern in spelling[:level]:
            raise SpellingError(
                f"spelling: levels {spelling.index(pattern) + 1} and {level + 1} are both written {pattern!r}, so one "
                "text would be two codes; give each level its pattern"
            )
    return spelling


def parse_code(text: object) -> tuple[str, int] | None:
    """Splits the text of a code.

    Args:
      text: such as "<a_17>", "<s_a_340>", "<C0_47>" or "<|a_5|>".

    Returns:
      (pattern, number); ("<s_a_{}>", 340) for "<s_a_340>". None for another text.
    """
    match = _CODE.fullmatch(text) if isinstance(text, str) else None
    return None if match is None else (f"<{match[1]}{match[2]}{NUMBER}{match[1]}>", int(match[3]))


def spell(pattern: str, code: int) -> str:
    """Writes a code in the pattern of its level."""
    return pattern.replace(NUMBER, str(code))
