"""gradio, which draws the page: an extra, imported when a page is built."""

from __future__ import annotations

import importlib
import os
from typing import Any

from kind_jax.errors import UserError


def gradio() -> Any:
    """The library, told to report to nobody.

    Raises:
      UserError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        return importlib.import_module("gradio")
    except ModuleNotFoundError as e:
        if e.name != "gradio":
            raise
        raise UserError("gradio is not installed, but the page needs it: pip install 'kind-jax[play]'.") from e
