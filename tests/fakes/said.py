"""What a base model says, in the words of no surface: every surface of the fake says the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

QUESTION = "How do I cook rice?"
ANSWER = (
    "Rinse the rice in cold water until the water runs clear. Bring a pot of water to a boil and add the rice. "
    "Let it simmer with the lid on for 15 minutes, as shown at https://example.org/rice. "
    "If the rice is still hard, add a little more water."
)
CODE = """\
```python
def cook(minutes: int = 15) -> None:
    print(f"Simmer for {minutes} minutes.  Do not stir.")

cook()
```
"""
TABLE = """\
| Rice  | Water    | Time   |
|-------|----------|--------|
| white | 1.5 cups | 15 min |
| brown | 2 cups   | 40 min |
"""
LONG_ANSWER = f"""\
Start with clean water. Rinse the rice until the water runs clear, because the starch on it makes it sticky.

Let a small script keep the time for you:

{CODE}
How much water you need depends on the kind of rice that you have:

{TABLE}
Then take these steps:

- Bring the water to a boil in a heavy pot.
- Add the rice and a little salt. Put the lid on.
- Turn the heat down and let it simmer.

If the rice is still hard at the end, add a little more water and wait. Fluff it with a fork before you serve it."""
SUMMARY = "Rinse the rice in cold water. Let it simmer with the lid on."
JSON_ANSWER = f'{{"summary": "{SUMMARY}",  "minutes": 15,\n "steps": ["rinse", "boil"], "caf\\u00e9": 1.50}}'
FUTURE: Json = {"kept": [1.5, "x"]}
"""What a field holds that nobody knows yet."""
REFUSAL = "I can't help with that."
USAGE = {"prompt_tokens": 11, "completion_tokens": 22, "total_tokens": 33}


@dataclass(frozen=True)
class Call:
    """A function that the base model wants called."""

    id: str
    name: str
    arguments: str
    """JSON, spelt as the model spelt it."""


CALLS = (
    Call("call_weather", "get_weather", '{"city": "Paris",  "unit":"c"}'),
    Call("call_time", "get_time", '{"zone": "Europe\\/Paris", "at": 1.50}'),
)


@dataclass(frozen=True)
class Says:
    """One choice of an answer. `Says()` is the plain one."""

    text: str | None = ANSWER
    reasoning: str | None = None
    """What a reasoning model thinks before it answers."""
    calls: tuple[Call, ...] = ()
    """In parallel, after the text."""
    refusal: str | None = None
    cut: bool = False
    """Whether the token limit ended it."""

    @property
    def finish(self) -> str:
        """The finish reason of the chat surface."""
        if self.cut:
            return "length"
        return "tool_calls" if self.calls else "stop"


TOOLS = Says("Let me look up the weather and the time for you.", calls=CALLS)
CALLS_ONLY = Says(None, calls=CALLS)
JSON = Says(JSON_ANSWER)
LONG = Says(LONG_ANSWER)
REFUSES = Says(None, refusal=REFUSAL)
THINKS = Says(reasoning="The user wants rice. I will keep it short.")
CUT = Says(ANSWER.rpartition(" If ")[0], cut=True)


def pieces(text: str | None) -> list[str]:
    """How a text streams: word by word."""
    if not text:
        return []
    words = text.split(" ")
    return [word + " " for word in words[:-1]] + [words[-1]]


def of_the_future(node: Any) -> Any:
    """`node` with FUTURE in every object of it; `metadata` is the client's own."""
    if isinstance(node, dict):
        return {key: value if key == "metadata" else of_the_future(value) for key, value in node.items()} | {"x_future": FUTURE}
    return [of_the_future(each) for each in node] if isinstance(node, list) else node


def all_says(texts: Sequence[str | Says | None]) -> list[Says]:
    """Plain texts as answers."""
    return [each if isinstance(each, Says) else Says(each) for each in texts]
