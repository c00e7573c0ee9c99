"""The rewriter's prompt: both styles, the control line, what is shared between tenants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visa_proxy.rewriter.prompt import SCALE, control_line, render, system_prompt
from visa_proxy.values import Dimension, Space, ValueVector, join, load_space

SCHWARTZ = load_space("schwartz")
WIDE = join([SCHWARTZ, load_space("tone")])
VECTORS = st.lists(st.floats(-1, 1), min_size=10, max_size=10).map(lambda components: ValueVector(SCHWARTZ, components))
SYSTEM = system_prompt(SCHWARTZ)
QUERY, TEXT = "Is ⟦1⟧ far?", "It is ⟦1⟧ km.\n\n- Take water."


def of(**components: float) -> ValueVector:
    return ValueVector.of(SCHWARTZ, components)


def test_control_line_has_half_steps_in_circumplex_order() -> None:
    assert control_line(of(stimulation=1, security=-0.5)) == "security -1 stimulation +2"
    assert control_line(of(self_direction=-1, universalism=0.5, power=1)) == "universalism +1 power +2 self_direction -2"


@pytest.mark.parametrize(
    ("level", "step"), [(0.25, "+1"), (0.3, "+1"), (0.74, "+1"), (0.75, "+2"), (-0.25, "-1"), (-0.74, "-1"), (-0.75, "-2")]
)
def test_control_line_is_quantized(level: float, step: str) -> None:
    assert control_line(of(security=level)) == f"security {step}"


@pytest.mark.parametrize("vector", [of(), of(power=0.24, security=-0.24)], ids=["zero", "rounds to zero"])
def test_control_line_of_nothing_is_neutral(vector: ValueVector) -> None:
    assert control_line(vector) == "neutral"


@given(VECTORS)
def test_control_line_says_exactly_the_quantized_target(vector: ValueVector) -> None:
    line = control_line(vector)
    words = [] if line == "neutral" else line.split(" ")
    said = {name: int(step) / 2 for name, step in zip(words[::2], words[1::2], strict=True)}
    assert ValueVector.of(SCHWARTZ, said) == vector.quantize()
    assert list(said) == [name for name in SCHWARTZ.names if name in said]


def test_compact_is_the_control_line_and_the_text() -> None:
    messages = render("compact", query=QUERY, text=TEXT, target=of(security=-1))
    assert messages == [{"role": "user", "content": f"security -2\n{TEXT}"}]


def test_compact_neutral() -> None:
    assert render("compact", query="", text="Yes.", target=of())[0]["content"] == "neutral\nYes."


def test_full_is_the_shared_part_then_the_request() -> None:
    system, user = render("full", query=QUERY, text=TEXT, target=of(stimulation=0.9, security=-0.3))
    assert system == {"role": "system", "content": SYSTEM}
    assert user["role"] == "user"
    assert user["content"] == (
        f"Target values: security -0.5, stimulation +1\n\nQuestion:\n{QUERY}\n\nAnswer to rewrite:\n{TEXT}"
    )


def test_full_neutral() -> None:
    user = render("full", query="", text="Yes.", target=of(power=0.1))[1]["content"]
    assert user.splitlines()[0] == "Target values: none (stay neutral)"


def test_full_states_both_objectives() -> None:
    assert "Two objectives, both binding" in SYSTEM
    assert SYSTEM.index("1. Value alignment:") < SYSTEM.index("2. Semantic integrity:")


def test_full_states_the_scale() -> None:
    assert SCALE in SYSTEM
    assert [part.split()[0] for part in SCALE.split(", ")] == ["-1", "-0.5", "0", "0.5", "1"]


@pytest.mark.parametrize("dimension", SCHWARTZ.dimensions, ids=lambda dimension: dimension.name)
def test_full_defines_every_value(dimension: Dimension) -> None:
    line = f"- {dimension.title} ({dimension.name}): {dimension.goal}. {dimension.signals}"
    assert SYSTEM.splitlines().count(line) == 1


def test_full_says_what_to_do_and_what_not() -> None:
    lines = SYSTEM.splitlines()
    do, do_not = lines.index("DO"), lines.index("DO NOT")
    assert do < do_not
    for start in (do, do_not):
        assert sum(line.startswith("- ") for line in lines[start + 1 : start + 5]) >= 3
    assert any("⟦1⟧" in line for line in lines[do:do_not]), "placeholders are to be copied"
    assert any("add facts" in line for line in lines[do_not:])


@given(VECTORS, VECTORS, st.text(max_size=20), st.text(max_size=20))
def test_what_is_shared_comes_first_and_is_the_same_for_every_tenant(
    one: ValueVector, other: ValueVector, query: str, text: str
) -> None:
    first = render("full", query=query, text=text, target=one)
    second = render("full", query=text, text=query, target=other)
    assert first[0] == second[0] == {"role": "system", "content": SYSTEM}
    both = ["".join(message["content"] for message in messages) for messages in (first, second)]
    assert all(prompt.startswith(SYSTEM) for prompt in both)


@given(VECTORS, st.text(max_size=40), st.text(max_size=40))
def test_text_and_query_arrive_unchanged(target: ValueVector, query: str, text: str) -> None:
    assert render("compact", query=query, text=text, target=target)[0]["content"].endswith(f"\n{text}")
    assert render("full", query=query, text=text, target=target)[1]["content"].endswith(f"{query}\n\nAnswer to rewrite:\n{text}")


def test_full_defines_and_asks_for_the_dimensions_of_another_space() -> None:
    target = ValueVector.of(WIDE, {"stimulation": 1, "formality": -0.5, "warmth": 0.1})
    system, user = render("full", query=QUERY, text=TEXT, target=target)
    for dimension in WIDE.dimensions:
        assert f"- {dimension.title} ({dimension.name}): {dimension.goal}. {dimension.signals}" in system["content"].splitlines()
    assert user["content"].startswith("Target values: stimulation +1, formality -0.5\n")


def test_a_dimension_without_signals_is_defined_by_its_goal() -> None:
    brand = Space("brand", (Dimension("thrift", "Thrift", "spending little", "", (), ""),))
    assert "- Thrift (thrift): spending little." in system_prompt(join([SCHWARTZ, brand])).splitlines()


def test_compact_asks_only_for_what_the_small_model_knows() -> None:
    target = ValueVector.of(WIDE, {"stimulation": 1, "formality": -0.5})
    assert control_line(target) == "stimulation +2"
    assert control_line(ValueVector.of(WIDE, {"warmth": 1})) == "neutral"


@given(VECTORS)
def test_compact_is_the_same_in_a_wider_space(vector: ValueVector) -> None:
    assert control_line(vector.widened(WIDE)) == control_line(vector)
