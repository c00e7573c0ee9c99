"""What the figures of a report say, and what stands against believing them, in sentences."""

from __future__ import annotations

from visa_proxy.experiments.comparison import Comparison
from visa_proxy.experiments.figures import Arm, Report
from visa_proxy.experiments.metrics import METRICS, Metric
from visa_proxy.experiments.sequential import START
from visa_proxy.experiments.wording import chance, count, interval, number, size


def verdicts(report: Report) -> tuple[str, ...]:
    """A sentence for each arm that is compared. Only the always-valid interval decides."""
    metric = METRICS[report.primary]
    return tuple(
        _verdict(arm, arm.against_control[metric.name], metric, report) for arm in report.arms if arm.against_control is not None
    )


def _verdict(arm: Arm, found: Comparison, metric: Metric, report: Report) -> str:
    pair = f"{arm.name} against {report.control}, {metric.title}"
    if report.balance.alarm:
        return f"{pair}: no verdict, because the arms do not have the units that their weights give them."
    if found.always.interval is None or found.difference is None:
        units = ", ".join(
            f"{each.name} {each.metrics[metric.name].units}" for each in report.arms if each.name in (arm.name, report.control)
        )
        return (
            f"{pair}: too little to say ({units}; it takes {START} units with this metric in both arms, and figures that differ)."
        )
    reach = interval(found.always.interval, metric, signed=True)
    if 0 in found.always.interval:
        found_by_now = size(found.always.detectable, metric)
        return f"{pair}: no difference shown ({reach}); one of {found_by_now} would be found with 80 % power by now."
    more = found.difference > 0
    better = "better" if more == metric.higher_is_better else "worse"
    difference = number(found.difference, metric, signed=True)
    return f"{pair}: {better} by {difference} ({reach}, p {chance(found.always.p)} at any look)."


def cautions(report: Report) -> tuple[str, ...]:
    """Sentences, the gravest first; () when there is nothing."""
    lines = _mismatch(report)
    if report.balance.assumed and len(report.balance.expected) > 1:
        lines.append("The weights of the arms are not known here: equal ones are assumed.")
    unknown = [arm.name for arm in report.arms if arm.name not in report.balance.expected and not report.balance.assumed]
    if unknown:
        lines.append(f"Not in the policy, and so not in the test of the weights: {', '.join(unknown)}.")
    if report.crossed:
        lines.append(
            f"{count(report.crossed)} units were seen in more than one arm (weights changed, or an identifier was shared): they count for "
            f"their first, and {count(report.left_out)} of their requests are left out."
        )
    responses = [arm.name for arm in report.arms if _responds_otherwise(arm, report)]
    if responses and METRICS[report.primary].rated:
        lines.append(
            f"Feedback is given more or less often than in {report.control}: {', '.join(responses)}. Those who answer may then be others, "
            "so a difference in what they say need not be one in what they got."
        )
    few = [arm.name for arm in report.arms if arm.units < START]
    if few:
        lines.append(f"Fewer than {START} units: {', '.join(few)}. Intervals and p-values at one look are rough there.")
    return tuple(lines)


def _mismatch(report: Report) -> list[str]:
    if not report.balance.alarm:
        return []
    expected = report.balance.expected
    total = sum(arm.units for arm in report.arms if arm.name in expected)
    shares = ", ".join(
        f"{arm.name} {arm.units / total * 100:.1f} % for {expected[arm.name] * 100:.1f} %"
        for arm in report.arms
        if arm.name in expected
    )
    return [
        f"SAMPLE RATIO MISMATCH (p {chance(report.balance.always_p)}): {shares}. Something loses units of one arm, or the weights were "
        "changed on the way; no figure below can be trusted before it is known why."
    ]


def _responds_otherwise(arm: Arm, report: Report) -> bool:
    if arm.against_control is None:
        return False
    p = arm.against_control["response"].always.p
    return p is not None and p <= report.alpha
