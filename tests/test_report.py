import html.parser
import io
import math

import numpy as np
import pytest
from PIL import Image

from kind_jax import images, plots
from kind_jax.report import Picture, Pictures, Table, Text, render_report

VOID = {"meta", "img"}


class Reader(html.parser.HTMLParser):
    """Collects tags, attributes and text, and insists on matching end tags."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links, self.images, self.text = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.links += [v for k, v in attrs if k in ("href", "src", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_page_holds_everything_and_fetches_nothing():
    png = images.png_bytes(np.zeros((2, 2, 3), np.uint8))
    page = render_report(
        "Run a",
        [("accuracy", "98.4 %")],
        [
            Text(heading="What", body="one\n\ntwo"),
            Picture(png=png, caption="samples", pixelated=True),
            Pictures(pictures=(Picture(png=png, caption="left"), Picture(png=png, caption="right"))),
            Table(header=("class", "size"), rows=(("3", "1.5 MB"), ("7", "-2")), caption="bytes"),
        ],
    )
    reader = read(page)
    assert all(link.startswith("data:image/png;base64,") for link in reader.links)
    assert len(reader.links) == 3
    assert [image["alt"] for image in reader.images] == ["samples", "left", "right"]
    for forbidden in ("http", "url(", "@import", "<script", "<link"):
        assert forbidden not in page
    text = " ".join(reader.text)
    assert all(word in text for word in ("Run a", "98.4 %", "What", "one", "two", "1.5 MB", "bytes"))
    assert reader.tags.count("p") == 3
    assert "prefers-color-scheme: dark" in page


def test_everything_is_escaped():
    evil = """<script>alert("1" & '2')</script>"""
    png = images.png_bytes(np.zeros((1, 1), np.uint8))
    page = render_report(
        evil,
        [(evil, evil)],
        [
            Text(heading=evil, body=evil),
            Picture(heading=evil, png=png, caption=evil),
            Table(header=(evil,), rows=((evil,),), heading=evil, caption=evil),
        ],
    )
    reader = read(page)
    assert "script" not in reader.tags
    assert reader.images[0]["alt"] == evil
    assert reader.text.count(evil) == 1 + 1 + 2 + 2 + 2 + 4


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def share_of(picture, colour):
    return np.mean(np.abs(picture - np.array(colour)[None, None, :]).max(axis=-1) < 12)


BLUE, AMBER = (66, 99, 235), (245, 159, 0)


def test_loss_curve_shows_both_curves_and_survives_odd_values():
    steps = list(range(10, 2010, 10))
    losses = [5 / s + 0.2 for s in steps]
    plain = pixels(plots.loss_curve(steps, losses))
    both = pixels(plots.loss_curve(steps, losses, [(1000, 0.3), (2000, 0.25)]))
    assert share_of(plain, BLUE) > 0.001
    assert share_of(plain, AMBER) == 0
    assert share_of(both, AMBER) > 0.0005
    plots.loss_curve([], [])
    plots.loss_curve([1], [0.5])
    plots.loss_curve([1, 2, 3], [math.nan, math.inf, 0.5])


def test_energy_bars_have_areas_like_the_energies():
    layers = {f"blocks.{i}.{p}": {"learngenes": 6.0, "tailors": 2.0} for i in range(4) for p in ("qkv", "o", "mlp_in")}
    picture = pixels(plots.energy_bars(layers))
    assert share_of(picture, BLUE) / share_of(picture, AMBER) == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(
    "names",
    [
        [f"blocks.{i}.{p}" for i in range(28) for p in ("qkv", "o", "mlp_in", "mlp_out")],
        [f"layer {i}" for i in range(28)],
        ["patch", "final", "qkv 3"],
        ["one"],
    ],
)
def test_energy_bars_take_any_names(names):
    picture = pixels(plots.energy_bars({name: {"learngenes": 1.0, "tailors": 1.0} for name in names}))
    assert share_of(picture, BLUE) > 0.02
    assert picture.shape[1] <= 1300


def test_plots_leave_global_state_alone(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    plots.energy_bars({"a.0": {"learngenes": 1.0}})
    plots.loss_curve([1, 2], [1.0, 2.0])
    assert "matplotlib.pyplot" not in sys.modules
