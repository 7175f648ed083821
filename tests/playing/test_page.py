"""The page in a real browser, served by the real command: what visitors can do, and that all of it is local."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from models import BUNDLE, NAMES, judge_of, many_classes

import kind_jax as kj

_MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
_PICTURES = "[...document.querySelectorAll('#pictures img')].map(image => image.src).join()"
_TIMEOUT = 60_000  # milliseconds; sizes are compiled
_SERVER = """
import os, sys

def note(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        host = args[1] if event == "socket.connect" else args[0]
        host = host[0] if isinstance(host, tuple) else host
        name = host.decode() if isinstance(host, bytes) else host
        if name not in (None, "127.0.0.1", "localhost", "::1", "0.0.0.0") and not str(name).startswith("/"):
            os.write(3, f"{event} {name}\\n".encode())

os.dup2(os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT), 3)
sys.addaudithook(note)
from kind_jax.cli import entry
entry()
"""


def _chromium():
    """The browser's program: what CHROMIUM names, else playwright's own; None where there is neither."""
    if _MISSING:
        return None
    if named := os.environ.get("CHROMIUM"):
        return named
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else None


CHROMIUM = _chromium()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(_MISSING), reason=f"{' and '.join(_MISSING)} not installed: make test-play"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: playwright install chromium, or CHROMIUM=program"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A process of the command; gives its address, and checks how it ends."""
    folder = tmp_path_factory.mktemp("play")
    kj.export(BUNDLE, folder / "art")
    judge_of().save(folder / "judge.safetensors")
    (folder / "tmp").mkdir()
    args = ["play", str(folder / "art"), "--judge", str(folder / "judge.safetensors")]
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(folder / "outside"), *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(folder / "tmp"), "HTTP_PROXY": "http://127.0.0.1:9"},  # where nobody listens
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address, (line, process.stderr.read())
        yield address[0]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (128 + signal.SIGINT, "interrupted\n")
        assert not list((folder / "tmp").glob("kind-jax-play-*"))
        assert (folder / "outside").read_text() == ""  # the process has asked nobody
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def browser(server):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, server):
    """A function that opens the page as a new visitor; what pages asked for, and what went wrong, is checked after."""
    wrong, contexts = [], []

    def open_page(address=server):
        contexts.append(context := browser.new_context(viewport={"width": 1280, "height": 1000}))
        page = context.new_page()
        page.set_default_timeout(_TIMEOUT)
        page.on("request", lambda r: None if _ours(r.url) else wrong.append(f"asked for {r.url}"))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#pictures img")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def _ours(url):
    return url.startswith(("http://127.0.0.1:", "data:", "blob:http://127.0.0.1:"))


def changed(page, act):
    """Do something, and wait until other pictures are there; gives them."""
    before = page.evaluate(_PICTURES)
    act()
    page.wait_for_function(f"before => {{ const now = {_PICTURES}; return now && now != before }}", arg=before)
    return page.evaluate(_PICTURES)


def press(page, slider, key):
    page.locator(f"#{slider} input[type=range]").focus()
    page.keyboard.press(key)


def parameters(page):
    return page.locator("#figures tr", has_text="parameters").locator("td").nth(2).inner_text()


def test_controls_change_what_is_drawn(visit):
    page = visit()
    assert "Play with art" in page.locator("h1").inner_text()
    assert all(name in page.locator(".kind-heading").inner_text() for name in NAMES)
    first, whole = page.evaluate(_PICTURES), parameters(page)
    assert "Class accuracy" in page.locator("#kind-accuracy").inner_text()
    weighed = changed(page, lambda: press(page, "weight-0", "ArrowLeft"))
    assert "zero at 0.95" in page.locator("#pictures").inner_text()
    assert parameters(page) == whole
    assert changed(page, lambda: press(page, "weight-0", "ArrowRight")) == first != weighed

    changed(page, lambda: press(page, "share", "Home"))
    small = parameters(page)
    assert int(small.replace(",", "")) < int(whole.replace(",", ""))
    assert changed(page, lambda: press(page, "share", "End")) == first

    changed(page, lambda: page.get_by_label("Learngenes only").check())
    assert page.locator("#pictures img").count() == 1
    assert changed(page, lambda: page.get_by_label("Learngenes only").uncheck()) == first
    changed(page, lambda: page.get_by_role("button", name="New noise").click())
    for name in (NAMES[3], NAMES[4]):  # neither HTML nor a template
        changed(page, lambda name=name: page.get_by_label(name, exact=True).check())
        assert f"{name} at 1" in page.locator("#pictures").inner_text()


def test_an_address_that_is_taken_is_refused(server, tmp_path):
    port = re.search(r":(\d+)/", server)[1]
    kj.export(BUNDLE, tmp_path / "art")
    command = [sys.executable, "-m", "kind_jax", "play", str(tmp_path / "art"), "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: --host is '127.0.0.1', but it must be an address of this machine where {port} is not.\n"
    )


def test_a_budget_that_nothing_fits_is_a_sentence(visit):
    page = visit()
    box = page.locator("#max-params textarea, #max-params input")
    box.fill("12")
    box.press("Enter")
    page.wait_for_selector("#pictures [role=alert]")
    said = page.locator("#pictures").inner_text()
    assert re.fullmatch(
        r"max_params is 12, but it must be \d+ or more, the smallest model that can be composed\.", said
    )
    page.get_by_role("button", name="Compose").click()
    page.wait_for_selector("#refusal [role=alert]")
    assert page.locator("#refusal").inner_text() == said
    box.fill("")
    box.press("Enter")
    page.wait_for_selector("#pictures img")


def test_what_is_shown_can_be_taken_away(visit, tmp_path):
    page = visit()
    changed(page, lambda: press(page, "share", "PageDown"))
    page.get_by_role("button", name="Compose").click()
    with page.expect_download() as download:
        page.locator("#download").click()
    download.value.save_as(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        archive.extractall(tmp_path)
    (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
    bundle = kj.open_bundle(folder)
    assert bundle.composition.classes == (0, 1)
    assert folder.name == f"composed_0_1_{int(parameters(page).replace(',', ''))}"
    assert bundle.sample(["zero", "one"], seed=0).shape == (2, 8, 8, 1)
    changed(page, lambda: press(page, "weight-0", "ArrowLeft"))
    assert not page.locator("#download").is_visible()  # it was of the model before


def test_visitors_do_not_see_each_other(visit):
    one, other = visit(), visit()
    before = other.evaluate(_PICTURES)
    changed(one, lambda: press(one, "weight-0", "Home"))
    changed(one, lambda: one.get_by_label("two").check())
    assert other.evaluate(_PICTURES) == before
    changed(other, lambda: press(other, "weight-1", "Home"))
    text = other.locator("#pictures").inner_text()
    assert "zero at 1, one at 0" in text
    assert "two alone" not in text


@pytest.mark.filterwarnings("ignore")  # of the library's own
def test_a_page_of_many_classes_in_a_notebook(visit):
    from kind_jax.playing.page import build

    page = build(many_classes(60))
    try:
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True)
        seen = visit(address)
        assert "Mixture of class 0 at 1, class 1 at 1" in seen.locator("#pictures").inner_text()
        seen.locator("#classes input").click()
        changed(seen, lambda: seen.get_by_role("option", name="class 59").click())
        assert "class 59 at 1" in seen.locator("#pictures").inner_text()
        assert seen.locator("#weight-2").is_visible()
    finally:
        page.close(verbose=False)
