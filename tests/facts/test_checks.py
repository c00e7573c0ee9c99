"""Deterministic checks: substance differs or it does not, whatever the wording."""

import subprocess
import sys
import time

import pytest

from visa_proxy.facts.checks import differences, facts

SAME = [
    ("Add 5 eggs.", "Add five eggs."),
    ("It fell by 50%.", "It fell by fifty percent."),
    ("It costs $5.", "It costs 5 dollars."),
    ("It holds 1,200 people.", "It holds 1200 people."),
    ("It holds two hundred and five people.", "It holds 205 people."),
    ("It is twenty-one years old.", "It is 21 years old."),
    ("The 4th edition.", "The fourth edition."),
    ("It opened on March 5, 2020.", "It opened on 5 March 2020."),
    ("It opened on 2020-03-05.", "It opened on March 5th, 2020."),
    ("It is not safe.", "It isn't safe."),
    ("You cannot open it.", "You can't open it."),
    ("Do it in 1999.", "If you like things steady, do it in 1999."),
    ("London is large. Go there.", "For a bit of fun, London is large. Go there."),
    ("The city of Paris is large.", "Paris, the city, is large."),
    ("Wash the apple.", "Wash the apple without fuss."),
    ("Wash the apple.", "Nothing to fear here: wash the apple."),
    ("Put the lid on.", "Put the lid on, because your wellbeing must never be put at risk."),
    ("You need a pot. Fill it.", "There is no need to be in charge of this. You need a pot. Fill it."),
    ("You should wash the apple.", "You have no choice but to wash the apple."),
    ("Consider a walk.", "Do not explore alternatives; settle for a walk."),
    ("It never rains. The sun shines.", "It never rains, and the sun shines."),
    ("It works. It does not break.", "It works and it does not break."),
    ("1. Boil water.\n2. Add tea.", "- Boil water.\n- Add tea."),
    ("See https://a.b/c.", "See https://a.b/c, please."),
    ("Call 2 people before 5 pm.", "Before 5 pm, call 2 people."),
    ("", ""),
    ("Ésta es la opción 7 🙂.", "Ésta es la opción 7 🙂."),
]

DIFFERENT = [
    ("Add 5 eggs.", "Add 6 eggs.", "number:5", "number:6"),
    ("Add two eggs.", "Add three eggs.", "number:2", "number:3"),
    ("It is 5% of it.", "It is 5 of it.", "number:5%", "number:5"),
    ("It costs €5.", "It costs $5.", "number:5eur", "number:5usd"),
    ("In the 1970s it grew.", "In the 1960s it grew.", "number:1970", "number:1960"),
    ("At 25mph it stops.", "At 35mph it stops.", "number:25", "number:35"),
    ("Open from 9-17.", "Open from 9-18.", "number:17", "number:18"),
    ("It opened on March 5, 2020.", "It opened on March 6, 2020.", "date:2020-03-05", "date:2020-03-06"),
    ("Come on Monday.", "Come on Tuesday.", "date:monday", "date:tuesday"),
    ("See https://a.b/c now.", "See https://a.b/d now.", "url:https://a.b/c", "url:https://a.b/d"),
    ("Write to me@x.org now.", "Write to us now.", "url:me@x.org", ""),
    ("He lives in Paris now.", "He lives in London now.", "name:Paris", "name:London"),
    ("It was built by NASA.", "It was built by them.", "name:NASA", ""),
    ("Use GitHub for it.", "Use GitLab for it.", "name:GitHub", "name:GitLab"),
    ("Run `ls -a` here.", "Run `ls -l` here.", "code:`ls -a`", "code:`ls -l`"),
    ("```\nx = 1\n```", "```\nx = 2\n```", "code:```\nx = 1\n```", "code:```\nx = 2\n```"),
    ("Wash the apple.", "Do not wash the apple.", "", "negation:¬wash"),
    ("It is safe.", "It is not safe.", "", "negation:¬safe"),
    ("It probably is.", "It probably is not.", "", "negation:¬is"),
    ("You can open it.", "You can't open it.", "", "negation:¬open"),
    ("Never wash it in hot water.", "Wash it in hot water.", "negation:¬wash", ""),
    ("Make it without sugar.", "Make it with sugar.", "negation:¬sugar", ""),
    ("Do not open the door. Wait.", "With caution, open the door. Wait.", "negation:¬open", ""),
    ("Add 2 cups and 3 eggs.", "Add 3 cups and 2 eggs.", "order:2", ""),
    ("Then Alice paid Bob.", "Then Bob paid Alice.", "order:Alice", ""),
]


@pytest.mark.parametrize(("original", "rewritten"), SAME)
def test_wording_is_no_difference(original: str, rewritten: str) -> None:
    assert differences(original, rewritten) == ((), ())
    assert differences(rewritten, original) == ((), ())


@pytest.mark.parametrize(("original", "rewritten", "lost", "gained"), DIFFERENT)
def test_substance_is_a_difference(original: str, rewritten: str, lost: str, gained: str) -> None:
    found = differences(original, rewritten)
    assert not lost or lost in found[0]
    assert not gained or gained in found[1]
    back = differences(rewritten, original)
    assert back[0] or back[1]


def test_facts_come_in_order_of_appearance() -> None:
    assert [f.text for f in facts("On May 1 the shop in Rome sold 3 cakes.")] == ["?-05-01", "Rome", "3"]


def test_a_long_text_takes_little_time() -> None:
    sentences = [f"Step {i} does not need the tool of Anna, but {i} others." for i in range(200)]
    changed = [f"With care, {sentence[0].lower()}{sentence[1:]}" for sentence in sentences]
    started = time.perf_counter()
    differences(" ".join(sentences), " ".join(changed))
    assert time.perf_counter() - started < 3.0


def test_importing_loads_no_torch() -> None:
    code = "import sys; import visa_proxy.facts.checks, visa_proxy.facts.load; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
