"""What an answer is to become before it is measured: the profile's target and the offsets of instructions, in one space."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from visa_proxy.policy.schema import Shield as Settings
from visa_proxy.shield.pipeline import Aim, Brief
from visa_proxy.shield.trace import Trace
from visa_proxy.translator.base import Translation
from visa_proxy.values import Space, Target, ValueVector, join, load_space

SCHWARTZ, TONE, SOCIETY = load_space("schwartz"), load_space("tone"), load_space("inglehart-welzel")
ALL = join([SCHWARTZ, TONE, SOCIETY])
BOLD = ValueVector.of(SCHWARTZ, {"stimulation": 1.0})
HOUSE = ValueVector.of(join([SCHWARTZ, TONE]), {"stimulation": 0.5, "warmth": 1.0})


class Always:
    """A translator that understands everything as one offset."""

    def __init__(self, offset: ValueVector, confidence: float = 1.0) -> None:
        self.space = offset.space
        self._translation = Translation(offset, confidence)

    async def translate(self, query: str, answer: str, instruction: str) -> Translation:
        return self._translation


async def aimed(values: ValueVector | None, offset: ValueVector, space: Space = ALL, confidence: float = 1.0) -> ValueVector:
    target = None if values is None else Target("offset", values)
    brief = Brief(query="", target=target, settings=Settings(), instructions=["Make it so."])
    return (await Aim(Always(offset, confidence), space, brief).settle("An answer.", Trace())).values


async def test_what_needs_schwartz_s_values_alone_stays_among_them() -> None:
    offset = ValueVector.of(SCHWARTZ, {"stimulation": 0.5, "power": -0.5})
    assert await aimed(BOLD, offset) == await aimed(BOLD, offset, SCHWARTZ) == BOLD.offset(offset)
    assert await aimed(None, offset) == await aimed(None, offset, SCHWARTZ) == offset


async def test_an_offset_is_added_to_a_target_of_a_wider_space() -> None:
    found = await aimed(HOUSE, ValueVector.of(SCHWARTZ, {"stimulation": 1.0, "power": -0.5}))
    assert found == ValueVector.of(HOUSE.space, {"stimulation": 1.0, "power": -0.5, "warmth": 1.0})


async def test_a_translator_of_several_spaces_widens_the_target_only_where_it_has_to() -> None:
    assert await aimed(BOLD, ValueVector.of(ALL, {"power": 0.5})) == ValueVector.of(SCHWARTZ, {"stimulation": 1, "power": 0.5})
    found = await aimed(HOUSE, ValueVector.of(ALL, {"individualism": 0.5}))
    assert found == ValueVector.of(ALL, {"stimulation": 0.5, "warmth": 1.0, "individualism": 0.5})
    aside = await aimed(HOUSE, ValueVector.of(join([SCHWARTZ, SOCIETY]), {"individualism": 0.5}))
    assert aside == found


async def test_what_was_not_understood_changes_nothing() -> None:
    assert await aimed(HOUSE, ValueVector.of(ALL, {"individualism": 1}), confidence=0.4) is HOUSE
    assert await aimed(None, ValueVector.of(ALL, {"individualism": 1}), confidence=0.4) == ValueVector.zero(SCHWARTZ)


BOUNDS = {"power": (-0.5, 0.0), "stimulation": (0.0, 0.25), "individualism": (0.0, 0.0)}


async def bounded(
    values: ValueVector | None, offset: ValueVector, bounds: Mapping[str, tuple[float, float]] = BOUNDS, times: int = 1
) -> ValueVector:
    """What `times` instructions that all ask for `offset` lead to."""
    target = None if values is None else Target("offset", values)
    brief = Brief(query="", target=target, settings=Settings(), instructions=["Make it so."] * times, bounds=bounds)
    return (await Aim(Always(offset), ALL, brief).settle("An answer.", Trace())).values


async def test_what_an_instruction_asks_for_is_bounded() -> None:
    found = await bounded(None, ValueVector.of(SCHWARTZ, {"power": -1, "stimulation": 1, "security": -1}))
    assert found == ValueVector.of(SCHWARTZ, {"power": -0.5, "stimulation": 0.25, "security": -1})
    found = await bounded(None, ValueVector.of(SCHWARTZ, {"power": 1, "stimulation": -1}))
    assert found == ValueVector.zero(SCHWARTZ)
    within = ValueVector.of(SCHWARTZ, {"power": -0.25, "stimulation": 0.25})
    assert await bounded(None, within) == within


async def test_the_levels_of_a_target_are_not_bounded() -> None:
    found = await bounded(BOLD, ValueVector.of(SCHWARTZ, {"power": -1}))
    assert found == ValueVector.of(SCHWARTZ, {"stimulation": 1, "power": -0.5})
    assert await bounded(BOLD, ValueVector.zero(SCHWARTZ), times=0) is BOLD


async def test_each_of_several_instructions_is_bounded_by_itself() -> None:
    found = await bounded(
        ValueVector.of(SCHWARTZ, {"power": 1}), ValueVector.of(SCHWARTZ, {"power": -1, "stimulation": 1}), times=2
    )
    assert found == ValueVector.of(SCHWARTZ, {"power": 0, "stimulation": 0.5})


async def test_a_dimension_of_which_nothing_is_left_widens_no_target() -> None:
    assert await bounded(BOLD, ValueVector.of(ALL, {"individualism": 1})) == BOLD
    found = await bounded(BOLD, ValueVector.of(ALL, {"warmth": 1}), {"warmth": (-1.0, 0.5)})
    assert found == ValueVector.of(join([SCHWARTZ, TONE]), {"stimulation": 1, "warmth": 0.5})


async def test_a_dimension_that_nobody_measures() -> None:
    with pytest.raises(KeyError):
        await aimed(BOLD, ValueVector.of(ALL, {"individualism": 1}), join([SCHWARTZ, TONE]))
