"""Layers: which part of the units each experiment of a policy may take, and what cannot be shared out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from visa_proxy.policy.assign import SESSION_HEADER, Arm, Experiment
from visa_proxy.policy.document import KeyPath
from visa_proxy.policy.schema import ArmSpec, ExperimentSpec, PolicyFile

_DIGITS: Final = 12
"""After the point: 0.1 + 0.2 + 0.7 is 1."""


def experiments_of(file: PolicyFile) -> tuple[Experiment, ...]:
    """The experiments in the order of the file, each with its part of its layer.

    A `traffic` that is one number begins where the layer's experiment before it ends.
    """
    ends: dict[str, float] = {}
    built: list[Experiment] = []
    for spec in file.experiments:
        begin = ends.get(spec.layer, 0.0) if spec.layer is not None else 0.0
        slot = spec.traffic if isinstance(spec.traffic, tuple) else (begin, round(begin + spec.traffic, _DIGITS))
        if spec.layer is not None:
            ends[spec.layer] = slot[1]
        built.append(_experiment(spec, slot))
    return tuple(built)


def _experiment(spec: ExperimentSpec, slot: tuple[float, float]) -> Experiment:
    kind, _, name = spec.unit.partition(":")
    header = SESSION_HEADER if kind == "session" else name.lower()
    return Experiment(
        name=spec.name,
        unit="user" if kind == "user" else "conversation" if kind == "conversation" else "header",
        header=header,
        arms=tuple(_arm(name, entry) for name, entry in spec.arms.items()),
        layer=spec.layer,
        slot=slot,
        holdout=spec.holdout,
        start=_seconds(spec.start, -math.inf),
        stop=_seconds(spec.stop, math.inf),
    )


def _arm(name: str, entry: ArmSpec | float) -> Arm:
    return Arm(name, entry.profile, entry.weight) if isinstance(entry, ArmSpec) else Arm(name, name, entry)


def _seconds(moment: datetime | None, default: float) -> float:
    return default if moment is None else moment.timestamp()


def unshareable(file: PolicyFile) -> Iterator[tuple[KeyPath, str]]:
    """Experiments that never run, that take the same part of a layer, or that leave nothing for one after them."""
    built = experiments_of(file)
    for i, one in enumerate(built):
        place: KeyPath = ("experiments", i)
        if one.stop <= one.start:
            message = f"found {_shown(file, i, 'stop')}, which is not after start; allowed: later than {_shown(file, i, 'start')}"
            yield (*place, "stop"), message
        mates = [each for each in built[:i] if one.layer is not None and each.layer == one.layer]
        other = next((mate for mate in mates if (mate.unit, mate.header) != (one.unit, one.header)), None)
        if other is not None:
            yield (
                (*place, "unit"),
                f"the layer {one.layer!r} shares out other units: {other.name!r} has unit {file.experiments[built.index(other)].unit}; "
                "allowed: one unit for all experiments of a layer",
            )
        message = _overfull(one, mates)
        if message:
            yield (*place, "traffic"), message
        message = _starved(one, built[:i])
        if message:
            yield (*place, "unit"), message


def _overfull(one: Experiment, mates: Sequence[Experiment]) -> str:
    """Why the experiment's part of its layer is not to be had, or ""."""
    begin, end = one.slot
    if end > 1:
        return (
            f"the experiments of layer {one.layer!r} add up to {end:g} here, of which {begin:g} go to those before; "
            f"allowed: at most {max(0.0, 1 - begin):g}, or a part of its own: [from, to]"
        )
    for mate in mates:
        if begin < mate.slot[1] and mate.slot[0] < end and one.start < mate.stop and mate.start < one.stop:
            return (
                f"takes {begin:g} to {end:g} of layer {one.layer!r}, of which {mate.name!r} has {mate.slot[0]:g} to {mate.slot[1]:g} "
                "at the same time; allowed: parts that do not overlap"
            )
    return ""


def _starved(one: Experiment, before: Sequence[Experiment]) -> str:
    """A request takes part in one experiment, the first: why none is left for this one, or ""."""
    layers: dict[tuple[bool, str], list[Experiment]] = {}
    for each in before:
        covers = each.start <= one.start and one.stop <= each.stop and one.start < one.stop
        if covers and (each.unit, each.header) == (one.unit, one.header) and (each.layer is None or each.layer != one.layer):
            layers.setdefault((each.layer is None, each.layer or each.name), []).append(each)
    for takers in layers.values():
        if round(sum(end - begin for begin, end in (taker.slot for taker in takers)), _DIGITS) >= 1:
            names = ", ".join(repr(taker.name) for taker in takers)
            who = f"the experiment {names} already takes" if len(takers) == 1 else f"the experiments {names} already take"
            return (
                f"{who} every request with this unit: {one.name!r} would never get one; "
                "allowed: another unit, another time, less traffic there, or one layer for both"
            )
    return ""


def _shown(file: PolicyFile, i: int, key: str) -> str:
    moment: datetime | None = getattr(file.experiments[i], key)
    return "nothing" if moment is None else moment.isoformat()
