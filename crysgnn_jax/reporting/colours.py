"""Which colour a number has in a picture."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import ArrayLike

NO_VALUE = "#e6e6e6"
"""Of what has no number."""


def scale(values: np.ndarray, *, centred: bool | None = None) -> ScalarMappable:
    """Number → colour, and what a colour bar is made of.

    From blue through white at 0 to red, equally far both ways, or from dark to light (viridis).
    Both can be told apart with any colour vision.

    Args:
      values: ``[n]``, those to be drawn; NaN is left aside.
      centred: around 0, as what is added or taken away; where not given, if there are numbers of
        both signs.
    """
    values = np.asarray(values, dtype=np.float64)
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    if centred or (centred is None and low < 0 < high):
        largest = max(-low, high) or 1.0
        return ScalarMappable(Normalize(-largest, largest), "RdBu_r")
    return ScalarMappable(Normalize(low, high if high > low else low + 1.0), "viridis")


def ink_on(colour: ArrayLike) -> str:
    """Black or white, whichever is read better on a colour (red, green, blue … from 0 to 1)."""
    luminance = float(np.dot(np.asarray(colour)[:3], (0.2126, 0.7152, 0.0722)))
    return "black" if luminance > 0.45 else "white"
