"""What a value vector is: spaces, vectors, targets. Pure, no I/O beyond the YAML of spaces."""

from visa_proxy.values.load import bundled_spaces, is_path, load_space, load_spaces, space_file
from visa_proxy.values.space import Dimension, Space, join
from visa_proxy.values.target import Target
from visa_proxy.values.vector import LEVELS, ValueVector

__all__ = [
    "LEVELS",
    "Dimension",
    "Space",
    "Target",
    "ValueVector",
    "bundled_spaces",
    "is_path",
    "join",
    "load_space",
    "load_spaces",
    "space_file",
]
