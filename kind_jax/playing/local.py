"""A page that loads nothing from elsewhere, whoever launches it."""

from __future__ import annotations

from typing import Any

from kind_jax.playing.markup import STYLE

_FONT = ("system-ui", "sans-serif")
_MONO = ("ui-monospace", "monospace")


def local_blocks(gr: Any, title: str) -> Any:
    """gradio's Blocks with launch settings of its own: fonts of the system, no analytics, no way to a public address.

    Args:
      gr: the library.
      title: of the browser's tab.
    """

    class Page(gr.Blocks):
        def launch(self, *args: Any, **settings: Any) -> Any:
            theme = gr.themes.Soft(primary_hue="indigo", font=_FONT, font_mono=_MONO)
            own = {"theme": theme, "css": STYLE, "footer_links": [], "share": False, "ssr_mode": False}
            own |= {"run_history": False, "enable_monitoring": False, "mcp_server": False, "pwa": False}
            return super().launch(*args, **(own | settings))

    return Page(title=title, analytics_enabled=False, fill_width=True)
