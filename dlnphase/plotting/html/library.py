"""The plotting library of the page: plotly.js from the package plotly, compressed, to be unpacked by the browser."""

from __future__ import annotations

import base64
import gzip
import importlib.util
from pathlib import Path

from dlnphase.errors import RunError


def compressed_library() -> str:
    """plotly.js, gzip within base64: two fifths of its size. The same bytes every time.

    Raises:
        RunError: when plotly is not installed, with the line that installs it.
    """
    spec = importlib.util.find_spec("plotly")
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise RunError("--format html: plotly is not installed; install it with: pip install 'dlnphase[html]'")
    return base64.b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode()
