"""Dashboard and alerts: every metric and label in them is one that a running proxy exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from tests.deploy.places import DEPLOY, read
from tests.deploy.promql import Labels, exported, named, unknown
from tests.fakes.base import QUESTION, FakeBase
from tests.fakes.http import HOST, closed_port
from tests.fakes.policies import policy
from tests.fakes.proxy import Starter
from tests.fakes.rewriter import FakeRewriter
from tests.fakes.said import LONG_ANSWER
from visa_proxy.policy.config import Endpoint
from visa_proxy.server.components import Instruments

BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "visa-proxy.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
RULES: list[dict[str, Any]] = [rule for group in read(DEPLOY / "prometheus" / "alerts.yaml")["groups"] for rule in group["rules"]]
ASK: Any = {"model": "sample", "messages": [{"role": "user", "content": QUESTION}]}
STATUSES = {"adapted", "passthrough", "aligned", "skipped", "fallback"}


def filled(text: str) -> str:
    """A panel's query as Grafana sends it."""
    return re.sub(r"\$(\w+)", lambda match: {"__rate_interval": "1m"}.get(match[1], ".*"), text)


def queries() -> Iterator[str]:
    """All expressions of the dashboard."""
    for panel in PANELS:
        yield from (filled(target["expr"]) for target in panel["targets"])
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            expr, label = re.fullmatch(r"label_values\((.+), (\w+)\)", filled(variable["query"])).groups()  # type: ignore[union-attr]
            yield f"sum by ({label}) ({expr})"


async def scraped(start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments) -> Labels:
    """What a proxy exports after an answer, a stream and a failover."""
    down = Endpoint(f"http://{HOST}:{closed_port()}/v1", timeout_s=20)
    text = policy(shield="{streaming: window, retries: 0}") + "failover: second\n"
    bases = {"default": down, "second": Endpoint(base.url, timeout_s=20)}
    proxy = await start("http://unused", rewriter.url, instruments=instruments, text=text, bases=bases)
    assert (await proxy.post(ASK)).json["visa"]["status"] == "adapted"
    base.texts = [LONG_ANSWER]
    assert b"[DONE]" in (await proxy.post({**ASK, "stream": True})).body
    return exported((await proxy.get("/metrics")).body.decode())


async def test_every_metric_and_label_is_exported(
    start: Starter, base: FakeBase, rewriter: FakeRewriter, instruments: Instruments
) -> None:
    known = await scraped(start, base, rewriter, instruments)
    expressions = [*queries(), *(rule["expr"] for rule in RULES)]
    assert len(expressions) > 30
    assert [problem for expr in expressions for problem in unknown(expr, known)] == []
    assert unknown('sum by (brand) (rate(visa_requests_total{tenant="a"}[5m])) / visa_request_total', known) == [
        'visa_requests_total has no label brand: sum by (brand) (rate(visa_requests_total{tenant="a"}[5m])) / visa_request_total',
        'no metric visa_request_total: sum by (brand) (rate(visa_requests_total{tenant="a"}[5m])) / visa_request_total',
    ], "it would not have noticed"


def test_everything_that_is_counted_is_shown() -> None:
    shown = {metric for expr in queries() for metric in named(expr)}
    counted = "requests request_duration_seconds requests_in_flight answers stage_duration_seconds windows"
    counted += " time_to_first_token_seconds failovers rewriter_tokens policy_problems rewriter_ready rewriter_restarts rewriter_adapters"
    assert {f"visa_{name}" for name in counted.split()} <= {re.sub("_(total|bucket)$", "", metric) for metric in shown}


def test_statuses_are_ones_that_answers_have() -> None:
    texts = [*queries(), *(rule["expr"] for rule in RULES)]
    matched = {word for text in texts for words in re.findall(r'status=~?"([^"]+)"', text) for word in words.split("|")}
    assert matched
    assert matched <= STATUSES


def test_a_rate_is_taken_of_what_only_grows() -> None:
    for expr in [*queries(), *(rule["expr"] for rule in RULES)]:
        for metric in re.findall(r"(?:rate|increase)\((\w+)", expr):
            assert re.search("_(total|bucket|restarts)$", metric), expr


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_is_wrong_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"(Visa|VisaProxy)([A-Z][a-z]+)+", rule["alert"])
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert promql_parser.parse_duration(rule.get("for", "1m")).total_seconds() > 0
    assert len(rule["annotations"]["summary"]) > 20
    assert len(rule["annotations"]["runbook"]) > 60
    labels = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    grouped = set().union(*(re.findall(r"\w+", by) for by in re.findall(r"by \(([^)]*)\)", rule["expr"])))
    assert labels <= (grouped or {"instance"}), "what is not grouped by is gone when the alert fires"


def test_alerts_are_told_apart() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 6


def test_panels_lie_side_by_side_and_are_told_apart() -> None:
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_panels_say_what_they_show_and_ask_the_chosen_source() -> None:
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    for panel in PANELS:
        assert panel["description"] and panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}
    assert variables == {"datasource", "job", "tenant"}
