"""Preference data: JSON Lines of pairs, or of Community Alignment's conversations (arXiv:2507.09650), as pairs of answers.

A pair is `{"prompt", "chosen", "rejected", "explanation"}`, with an `id` where it has one; the explanation may be empty.

A conversation has, for `turn` in first, second, third, fourth: `{turn}_turn_prompt`, `{turn}_turn_response_a` … `_d`,
`{turn}_turn_preferred_response` ("response_a" …) and maybe an explanation, beside `conversation_id` and `assigned_lang`. Every turn gives the
pairs (preferred, each other); earlier turns do not go with them. The name of the column with the explanation is not verified: no published
row was at hand when this was written, so it is a parameter.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from visa_proxy.errors import ConfigError

TURNS: Final = ("first", "second", "third", "fourth")
LETTERS: Final = ("a", "b", "c", "d")
EXPLANATION_COLUMN: Final = "{turn}_turn_explanation"
MAX_LINE_BYTES: Final = 8 * 1024 * 1024
SHOWN: Final = 20
"""Problems that an error lists."""
_KEYS: Final = frozenset({"prompt", "chosen", "rejected", "explanation", "id"})
_NAME: Final = re.compile(r"\w{1,20}")
Row = dict[str, Any]
Problems = list[tuple[str, str, str]]
"""(key, found, allowed)"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, of which a person preferred `chosen`."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    explanation: str
    """The person's own words; "" where there are none."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything but the id, in hex: equal for equal pairs, wherever they stand."""
        return _digest(self.prompt, self.chosen, self.rejected, self.explanation)


@dataclass(frozen=True)
class Preferences:
    """What a file holds."""

    pairs: list[Pair]
    """In the order of the file, each once."""
    skipped: Mapping[str, int]
    """Why something gave no pair, to how often: another language (rows), no preference (turns), equal answers, repeated (pairs)."""


def read_preferences(file: Path, *, lang: str = "en", explanation_column: str = EXPLANATION_COLUMN) -> Preferences:
    """The pairs of `file` (.jsonl, or .jsonl.gz), in memory as a whole.

    `lang`: which `assigned_lang` is kept of conversations. Raises ConfigError naming file, line, key, what was found and what is allowed for
    every row that is wrong (the first twenty), and for a file that cannot be read or gives no pair.
    """
    if "{turn}" not in explanation_column:
        raise ConfigError([f"--explanation-column: found {explanation_column!r}; allowed: a name with {{turn}} in it"])
    problems: list[str] = []
    skipped: Counter[str] = Counter()
    pairs: dict[str, Pair] = {}
    for number, line in _lines(file):
        wrong: Problems = []
        for pair in _pairs(line, lang, explanation_column, wrong, skipped):
            digest = pair.digest
            if pair.chosen.strip() == pair.rejected.strip():
                skipped["equal answers"] += 1
            elif digest in pairs:
                skipped["repeated"] += 1
            else:
                pairs[digest] = pair if pair.id else replace(pair, id=digest[:16])
        problems += [f"{file}, line {number}: {key}: found {found}; allowed: {allowed}" for key, found, allowed in wrong]
    if problems:
        more = [f"… and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ConfigError(problems[:SHOWN] + more)
    if not pairs:
        why = ", ".join(f"{reason}: {count}" for reason, count in sorted(skipped.items()))
        raise ConfigError([f"{file}: no pair in it" + (f" ({why})" if why else "")])
    return Preferences(list(pairs.values()), dict(sorted(skipped.items())))


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and bytes of the lines that are not blank."""
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            number = 0
            while line := stream.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    raise ConfigError([f"{file}, line {number}: longer than {MAX_LINE_BYTES} bytes"])
                if line.strip():
                    yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError([f"{file}: cannot read it: {error}"]) from error


def _pairs(line: bytes, lang: str, column: str, wrong: Problems, skipped: Counter[str]) -> Iterator[Pair]:
    """The pairs of one row, none when it is wrong."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        wrong.append(("the line", f"no JSON ({error.msg})", "an object"))
        return
    if not isinstance(row, dict):
        wrong.append(("the line", _found(row), "an object"))
    elif "first_turn_prompt" in row:
        yield from _conversation(row, lang, column, wrong, skipped)
    else:
        yield from _pair(row, wrong)


def _pair(row: Row, wrong: Problems) -> Iterator[Pair]:
    unknown = sorted(set(row) - _KEYS)
    wrong += [(_name(key), "a key that is not known", ", ".join(sorted(_KEYS))) for key in unknown]
    prompt, chosen, rejected = (_text(row, key, wrong) for key in ("prompt", "chosen", "rejected"))
    explanation = row.get("explanation")
    if not isinstance(explanation, str):
        wrong.append(("explanation", _found(explanation), "a text, which may be empty"))
    identity = row.get("id", "")
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        wrong.append(("id", _found(identity), "a text or a whole number"))
    if not wrong:
        yield Pair(str(identity), prompt, chosen, rejected, str(explanation).strip())


def _conversation(row: Row, lang: str, column: str, wrong: Problems, skipped: Counter[str]) -> Iterator[Pair]:
    language, identity = row.get("assigned_lang"), row.get("conversation_id")
    if not isinstance(language, str) or not language:
        wrong.append(("assigned_lang", _found(language), "a language, such as en"))
        return
    if language != lang:
        skipped["another language"] += 1
        return
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        wrong.append(("conversation_id", _found(identity), "a text or a whole number"))
    pairs = [pair for turn in TURNS for pair in _turn(row, turn, f"{identity}/{turn}", column, wrong, skipped)]
    if not wrong:
        yield from pairs


def _turn(row: Row, turn: str, name: str, column: str, wrong: Problems, skipped: Counter[str]) -> Iterator[Pair]:
    """(preferred, each other) of one turn; none for a turn that did not take place, or in which nothing was preferred."""
    head = f"{turn}_turn_"
    if _empty(row.get(head + "prompt")):
        return
    preferred = row.get(head + "preferred_response")
    if _empty(preferred):
        skipped["no preference"] += 1
        return
    allowed = [f"response_{letter}" for letter in LETTERS]
    if preferred not in allowed:
        wrong.append((head + "preferred_response", _found(preferred), ", ".join(allowed)))
        return
    prompt, chosen = _text(row, head + "prompt", wrong), _text(row, head + preferred, wrong)
    key = column.replace("{turn}", turn)
    explanation = row.get(key) or ""
    if not isinstance(explanation, str):
        wrong.append((key, _found(explanation), "a text, which may be empty"))
        return
    for other in allowed:
        if other != preferred and not _empty(row.get(head + other)):
            yield Pair(
                f"{name}/{other.removeprefix('response_')}",
                prompt,
                chosen,
                _text(row, head + other, wrong),
                explanation.strip(),
            )


def _text(row: Row, key: str, wrong: Problems) -> str:
    """The text under `key`, or "" and a problem."""
    found = row.get(key)
    if isinstance(found, str) and found.strip():
        return found
    wrong.append((key, _found(found), "a text that is not blank"))
    return ""


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _found(value: Any) -> str:
    """What stands there, in words that hold nothing of a prompt or an answer."""
    if isinstance(value, str):
        if not value.strip():
            return "a blank text"
        return repr(value) if _NAME.fullmatch(value) else f"a text of {len(value)} characters"
    kinds = {type(None): "nothing", bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds[type(value)]


def _name(key: str) -> str:
    return key if _NAME.fullmatch(key) else "a key"


def _digest(*texts: str) -> str:
    return hashlib.sha256(orjson.dumps(texts)).hexdigest()
