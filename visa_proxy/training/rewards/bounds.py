"""What a joint success is (paper, section 4.5), in training and in evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

TINY: Final = 1e-9
"""So that what is on a bound is within it, whatever the rounding."""


@dataclass(frozen=True)
class Bounds:
    """Ours: the paper's own are lost in the copy that we work from."""

    value: float = 0.5
    """Cosine to v*, at least: within 60° of the target, the values asked for outweigh all others that the text expresses."""
    consistency: float = 0.6
    """At least: what the shield asks of a rewrite where a policy says nothing else."""
    nearer: float = 0.25
    """L2 to v* is at least this much less than that of the answer: half of the distance between two levels, or nothing has moved.
    The cosine alone does not see it, since it looks at no length."""

    def met(
        self, *, value: ArrayLike, consistency: ArrayLike, nearer: ArrayLike, intact: ArrayLike, faulty: ArrayLike
    ) -> NDArray[np.bool_]:
        """Joint success of a rewrite, or of N of them at once: all bounds hold, no verbatim span is lost, and the form is a rewrite's.

        `faulty` is also true of the answer itself. What was not measured may be NaN, and is no success.
        """
        within: Any = np.logical_and.reduce(
            [
                np.asarray(value) >= self.value - TINY,
                np.asarray(consistency) >= self.consistency - TINY,
                np.asarray(nearer) >= self.nearer - TINY,
                np.asarray(intact, np.bool_),
                ~np.asarray(faulty, np.bool_),
            ]
        )
        return np.asarray(within, np.bool_)
