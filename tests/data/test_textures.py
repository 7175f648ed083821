import matplotlib
import numpy as np
import pytest

from kind_jax.config import DataConfig
from kind_jax.data import textures
from kind_jax.data.dataset import open_dataset
from kind_jax.errors import UserError


def test_splits_are_balanced_and_share_no_image_even_mirrored(records):
    found = records("textures")
    assert (found["train"][1].min(), found["train"][1].max()) == (0, 255)
    seen = []
    for split, per_class in (("train", 150), ("test", 50)):
        dataset, images, labels = found[split]
        assert dataset.image_shape == (8, 8, 1)
        assert dataset.class_names == ("sky", "roof", "foliage", "petals", "leaf", "stars", "brain", "relief")
        np.testing.assert_array_equal(np.bincount(labels), np.full(8, per_class))
        seen += [min(image.tobytes(), image[:, ::-1].tobytes()) for image in images]
    assert len(set(seen)) == 1600


@pytest.mark.parametrize("name", list(textures._MATERIALS))
def test_the_splits_share_no_pixel_of_a_picture(name):
    material = textures._MATERIALS[name]
    # A picture whose every pixel is the number of its tile, and 255 outside: crops tell which tiles they come from.
    picture = np.full((700, 700), 255, np.uint8)
    for i, (left, top) in enumerate(material.tiles()):
        area = picture[top : top + material.tile, left : left + material.tile]
        assert (area == 255).all()  # tiles do not overlap
        area[:] = i
    random = np.random.RandomState(0)
    tiles = material.tiles()
    for places in (tiles[:1], tiles[1:]):
        crops = np.stack([textures._crop(material, picture, places, random) for _ in range(300)])
        assert (crops == crops[:, :1, :1]).all()  # a crop stays inside its tile
        assert set(crops[:, 0, 0].tolist()) == {tiles.index(place) for place in places}


def test_regions_lie_inside_their_pictures():
    pictures = textures._pictures()
    for material in textures._MATERIALS.values():
        height, width = pictures[material.picture].shape
        assert all(0 <= left < right <= width and 0 <= top < bottom <= height
                   for left, top, right, bottom in material.regions)  # fmt: skip


def test_test_crops_come_from_tiles_of_their_own(monkeypatch):
    material = textures._MATERIALS["petals"]
    picture, used = textures._pictures()["flower"], {}
    crop = textures._crop

    def spy(material, picture, places, random):
        used.setdefault(tuple(places), None)
        return crop(material, picture, places, random)

    monkeypatch.setattr(textures, "_crop", spy)
    textures._crops(material, picture, np.random.RandomState(0))
    train, test = used
    assert not set(train) & set(test)
    assert sorted(train + test) == sorted(material.tiles())
    assert len(test) == len(material.tiles()) // 4


def test_crops_average_areas():
    material = textures._Material(picture="any", tile=16, zooms=(2,), regions=((0, 0, 16, 16),))
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = textures._crop(material, picture, material.tiles(), np.random.RandomState(0))
    expected = np.rint([[picture[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(8)] for y in range(8)])
    assert np.array_equal(found, expected) or np.array_equal(found[:, ::-1], expected)


def test_a_slope_that_faces_the_light_is_brighter():
    ramp = np.broadcast_to(np.arange(9.0), (9, 9))  # rises to the right: faces left, towards the light
    flat, facing, away = (textures._shade(heights)[4, 4] for heights in (0 * ramp, ramp, -ramp))
    assert away < flat < facing <= 1
    assert textures._shade(ramp + ramp.T)[4, 4] > facing


def test_classes_can_be_told_apart(recognised):
    found = recognised("textures")
    assert found.mean() > 0.88
    assert found.min() > 0.5  # the brain, in places as smooth as petals


def test_preparing_again_gives_the_same_records(records, tmp_path):
    again = open_dataset(DataConfig(source="textures", path=str(tmp_path)), "test")
    assert again.fingerprint == records("textures")["test"][0].fingerprint


def test_missing_pictures_are_named_and_nothing_is_left_half_prepared(tmp_path, monkeypatch):
    monkeypatch.setattr(matplotlib, "get_data_path", lambda: str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"nowhere/sample_data/.*' is missing, but matplotlib must be installed whole"):
        open_dataset(DataConfig(source="textures", path=str(tmp_path / "data")), "train")
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["textures"]
