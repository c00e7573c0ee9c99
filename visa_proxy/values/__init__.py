"""What a value vector is: spaces, vectors, targets. Pure, no I/O beyond the bundled YAML."""

from visa_proxy.values.space import Dimension, Space, load_space
from visa_proxy.values.target import Target
from visa_proxy.values.vector import LEVELS, ValueVector

__all__ = ["LEVELS", "Dimension", "Space", "Target", "ValueVector", "load_space"]
