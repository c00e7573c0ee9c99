"""The phrase files load, and split the same way every time."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.training.phrases import FORMS, PHRASE_LEVELS, instructions, phrases
from visa_proxy.values import load_space


def test_every_value_level_and_form_has_phrases_on_both_sides_of_the_split() -> None:
    for split in ("train", "heldout"):
        found = {(phrase.value, phrase.level, phrase.form) for phrase in phrases(split)}
        values = load_space("schwartz").names
        wanted = set(itertools.product(values, PHRASE_LEVELS.values(), FORMS))
        assert found == wanted
        assert {(i.value, i.level) for i in instructions(split)} == {(v, level) for v, level, _ in wanted}


def test_train_and_heldout_are_disjoint_and_complete() -> None:
    train, heldout = set(phrases("train")), set(phrases("heldout"))
    assert not train & heldout
    assert train | heldout == set(phrases())
    assert 0.1 < len(heldout) / len(phrases()) < 0.25


FITS = {
    "opening": r"[A-Z].*[.!?]",
    "closing": r"[A-Z].*[.!?]",
    "lead": r"[A-Z].*,",
    "tail": r",? .*[^.!?]",
    "reframe": r"[A-Z].*[\w,]",
}


def test_forms_fit_where_they_are_put() -> None:
    for phrase in phrases():
        assert re.fullmatch(FITS[phrase.form], phrase.text), phrase
        assert "⟦" not in phrase.text
        assert (phrase.form == "reframe") == bool(phrase.neutral)


def test_a_folder_without_files_or_with_a_wrong_one_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="no phrase files"):
        phrases(directory=tmp_path / "none")
    (tmp_path / "power.yaml").write_text("value: power\nlevels: {'+1.0': {}}\n")
    with pytest.raises(ConfigError, match=r"power\.yaml: levels"):
        phrases(directory=tmp_path)
