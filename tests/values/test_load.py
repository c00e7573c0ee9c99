"""Spaces from files: what comes with the package, folders of one's own, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from visa_proxy.errors import ConfigError
from visa_proxy.values import Space, bundled_spaces, load_space, load_spaces
from visa_proxy.values.load import distinct

BRAND = """\
name: brand-voice
dimensions:
  - name: thrift
    title: Thrift
    goal: spending no more than is needed.
    signals: Prices and
      savings.
    keywords: [cheap, "2 for 1"]
    group: money
  - {name: swagger_2, title: Swagger, goal: showing off}
"""


def brand(folder: Path, text: str = BRAND) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "space.yaml").write_text(text, encoding="utf-8")
    return folder


def test_what_comes_with_the_package() -> None:
    assert bundled_spaces() == ("inglehart-welzel", "schwartz", "tone")
    assert load_space("tone").names == ("formality", "warmth", "playfulness", "directness", "optimism")
    assert load_space("inglehart-welzel").names == (
        "secular_rational",
        "self_expression",
        "individualism",
        "progressive_gender_roles",
    )
    assert load_space("tone") is load_space("tone")


@pytest.mark.parametrize("space", [load_space(name) for name in bundled_spaces()], ids=bundled_spaces())
def test_every_bundled_dimension_is_defined(space: Space) -> None:
    for dimension in space.dimensions:
        assert dimension.title and dimension.group and len(dimension.keywords) == 2
        assert dimension.goal and not dimension.goal.endswith("."), "the prompt adds the full stop"
        assert dimension.signals.endswith(".")
        if space.name != "schwartz":
            assert "the contrary is" in dimension.goal, "both poles are named"
            assert dimension.signals.startswith("Positive: ") and " Negative: " in dimension.signals


def test_a_folder_or_a_file_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = brand(tmp_path / "brand")
    space = load_space(folder)
    assert (space.name, space.names, space.circle) == ("brand-voice", ("thrift", "swagger_2"), False)
    thrift, swagger = space.dimensions
    assert thrift.goal == "spending no more than is needed" and thrift.signals == "Prices and savings."
    assert (thrift.keywords, thrift.group) == (("cheap", "2 for 1"), "money")
    assert (swagger.signals, swagger.keywords, swagger.group) == ("", (), "")
    assert load_space(str(folder)) == load_space(folder / "space.yaml") == space
    monkeypatch.chdir(tmp_path)
    assert load_space("./brand") == load_space("brand/space.yaml") == space
    with pytest.raises(ConfigError, match="unknown value space 'brand'; allowed: inglehart-welzel, schwartz, tone, or a folder"):
        load_space("brand")


def test_schwartz_comes_first_and_each_space_once(tmp_path: Path) -> None:
    folder = str(brand(tmp_path / "brand"))
    assert load_spaces() == (load_space("schwartz"),)
    (tmp_path / "link").symlink_to(folder)
    names = ["tone", folder, "schwartz", "tone", f"{folder}/", f"{folder}/space.yaml", f"{tmp_path}/link"]
    assert [each.name for each in load_spaces(names)] == ["schwartz", "tone", "brand-voice"]
    assert distinct(names) == ("tone", folder, "schwartz")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder or file; allowed: inglehart-welzel, schwartz, tone"):
        load_space(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=f"there is no file {tmp_path}/space.yaml"):
        load_space(tmp_path)
    for path in ("/" + "x" * 5000, f"./{'x' * 1500}", "./a\0b", f"{tmp_path}/file/space.yaml"):
        with pytest.raises(ConfigError, match="there is no such folder or file") as caught:
            load_space(path)
        assert len(str(caught.value)) < 500


def problems(folder: Path, text: str | bytes) -> list[str]:
    """Without the file, which all of them name."""
    path = folder / "space.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load_space(folder)
    assert all(problem.startswith(f"{path}:") for problem in caught.value.problems)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


ONE = "{name: thrift, title: Thrift, goal: saving}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "1:1: the file is empty"),
        ("- a\n", "1:1: found a list, allowed: a mapping of the keys name, dimensions, circle"),
        ("name: [a\n", "2:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        (b"name: \xff\n", "1:1: not UTF-8: byte 0xff"),
        ("name: \x07\n", "1:1: not valid YAML: it holds a character YAML does not allow"),
        ("[" * 5000, "1:1: nested too deeply"),
        (r'name: "\UFFFFFFFF"', "1:1: not valid YAML: it holds a character YAML does not allow"),
        (r'name: "\U00110000"', "1:1: not valid YAML: it holds a character YAML does not allow"),
        (
            r'{name: b, dimensions: [{name: t, title: "a\e[2J\ud800", goal: g}]}',
            r"1:41: dimensions[0].title: found a\x1b[2J\ud800, allowed: text without control characters",
        ),
        (r'{"a\e\n": b}', r"1:2: found the key 'a\x1b\n', allowed: name, dimensions, circle"),
        (r'name: !x "a\e\nb"', r"1:7: name: found a\x1b\nb, allowed: "),
        ("#" * 70_000, "1:1: found more than 65536 bytes, allowed: at most that"),
        (f"name: Brand\ndimensions: [{ONE}]", "1:7: name: found 'Brand', allowed: ^[a-z][a-z0-9-]{0,31}$"),
        (f"name: no\ndimensions: [{ONE}]", "1:7: name: found no, allowed: ^[a-z][a-z0-9-]{0,31}$"),
        (f"name: {'b' * 33}\ndimensions: [{ONE}]", f"1:7: name: found '{'b' * 33}', allowed: ^[a-z][a-z0-9-]{{0,31}}$"),
        (f"name: 'b\n\n'\ndimensions: [{ONE}]", "1:7: name: found 'b\\n', allowed: ^[a-z][a-z0-9-]{0,31}$"),
        (f"dimensions: [{ONE}]", "1:1: name: required key is missing"),
        ("name: b", "1:1: dimensions: required key is missing"),
        (f"name: b\ncolour: red\ndimensions: [{ONE}]", "2:1: found the key 'colour', allowed: name, dimensions, circle"),
        (f"name: b\nname: c\ndimensions: [{ONE}]", "2:1: name: this key is already set"),
        (f"name: b\ncircle: 1\ndimensions: [{ONE}]", "2:9: circle: found 1, allowed: true or false"),
        ("name: b\ndimensions: []", "2:13: dimensions: found a list of 0, allowed: 1 to 64"),
        ("name: b\ndimensions: {}", "2:13: dimensions: found a mapping, allowed: a list of 1 to 64"),
        (
            "name: b\ndimensions: [{name: Thrift, title: T, goal: g}]",
            "2:21: dimensions[0].name: found 'Thrift', allowed: ^[a-z][a-z0-9_]{0,31}$",
        ),
        (
            "name: b\ndimensions:\n- x",
            "3:3: dimensions[0]: found 'x', allowed: a mapping of the keys name, title, goal, signals, keywords, group",
        ),
        (
            f"name: b\ndimensions:\n- {ONE}\n- {ONE}",
            "4:3: dimensions[1].name: a second dimension called 'thrift'; names must differ",
        ),
        ("name: b\ndimensions: [{name: t, title: T}]", "2:14: dimensions[0].goal: required key is missing"),
        ("name: b\ndimensions: [{name: t, title: T, goal: ' '}]", "2:40: dimensions[0].goal: found blank text, allowed: "),
        ("name: b\ndimensions: [{name: t, title: 3, goal: g}]", "2:31: dimensions[0].title: found 3, allowed: text (in quotes"),
        ("name: b\ndimensions: [{name: t, title: , goal: g}]", "2:30: dimensions[0].title: found nothing, allowed: text"),
        (
            f"name: b\ndimensions: [{{name: t, title: T, goal: {'g' * 501}}}]",
            "2:40: dimensions[0].goal: found 501 characters, allowed: at most 500",
        ),
        (
            "name: b\ndimensions: [{name: t, title: T, goal: g, keywords: a}]",
            "2:53: dimensions[0].keywords: found 'a', allowed: a list of 0 to 64",
        ),
        (
            "name: b\ndimensions: [{name: t, title: T, goal: g, keywords: [a, [b]]}]",
            "2:57: dimensions[0].keywords[1]: found a list, allowed: text",
        ),
        ("name: !!python/name:os.system b\ndimensions: []", "1:7: name: found b, allowed: ^[a-z]"),
        (f"name: b\ndimensions: [{ONE[:-1]}, <<: {{group: g}}}}]", "found the key <<, allowed: name, title"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else None,
)
def test_what_is_wrong_with_a_file(tmp_path: Path, text: str | bytes, problem: str) -> None:
    found = problems(tmp_path, text)
    assert any(problem in each for each in found), found


def test_all_problems_at_once(tmp_path: Path) -> None:
    found = problems(tmp_path, "name: B\ncircle: maybe\ndimensions:\n- {name: A, goal: g}\n- {name: a, title: T, goal: [g]}\n")
    assert [each.split(": ")[1] for each in found] == [
        "name",
        "circle",
        "dimensions[0].title",
        "dimensions[0].name",
        "dimensions[1].goal",
    ]


def test_sixty_four_dimensions_and_no_more(tmp_path: Path) -> None:
    def many(count: int) -> str:
        return "name: b\ndimensions:\n" + "".join(f"- {{name: d{i}, title: T, goal: g}}\n" for i in range(count))

    assert len(load_space(brand(tmp_path, many(64)))) == 64
    assert problems(tmp_path, many(65)) == ["3:1: dimensions: found a list of 65, allowed: 1 to 64"]


def test_aliases_cannot_multiply(tmp_path: Path) -> None:
    lines = ["name: b", "dimensions:", "- &d {name: t, title: T, goal: g}", *["- *d"] * 63]
    assert len(problems(tmp_path, "\n".join(lines))) == 63
