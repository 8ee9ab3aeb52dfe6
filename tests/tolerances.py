"""One tolerance per dtype: what round-off may do to an algebraic identity on matrices of a few dozen rows."""

import numpy as np

# About 1000 units of round-off, for chains of up to six products with condition numbers of order one.
ROUND_OFF = {"float64": 2e-13, "float32": 1e-4}


def assert_equal(found, expected, dtype: str = "float64", factor: float = 1.0) -> None:
    """Equal up to round-off of the largest entry; shapes included."""
    found, expected = (np.asarray(getattr(x, "cpu", lambda x=x: x)(), dtype=float) for x in (found, expected))
    assert found.shape == expected.shape, f"shapes {found.shape} and {expected.shape}"
    assert np.isfinite(expected).all()
    scale = np.abs(expected).max() if expected.size else 1.0
    np.testing.assert_allclose(found, expected, rtol=0, atol=factor * ROUND_OFF[dtype] * max(scale, 1e-300))
