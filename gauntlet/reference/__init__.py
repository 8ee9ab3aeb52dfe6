"""The reference side: NumPy and SciPy alone, nothing of the package that is judged (a test sees to it)."""
