"""Classes by number, name, and as they are typed."""

import numpy as np
import pytest

from kind_jax.classes import Typed, describe, labels_of, numbers_of
from kind_jax.errors import UserError

NAMES = ("flags", "big, red", "a-b", "7", "3-4", "two words")


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["3,0"], (3, 0)),
        (["flags,2"], (0, 2)),
        (["0-2", "4"], (0, 1, 2, 4)),
        (["flags", "two words, a-b"], (0, 5, 2)),
        (["flags,big, red,a-b"], (0, 1, 2)),
        (["big, red"], (1,)),
        (["3-4"], (3, 4)),  # a range, although a class has this name
        (["3 - 4"], (3, 4)),
    ],
)
def test_typed_classes(texts, wanted):
    assert Typed("--classes", tuple(texts)).among(NAMES) == wanted


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["7"],
            r"is 7, but it must be between 0 and 5 \(the class that is named '7' has the number 3\)",
        ),
        (["0,flags"], "--classes is '0,flags', but it must name each class once"),
        (["0", "0-2"], "must name each class once"),
        (["boat"], "a class of --classes is 'boat', but no class has this name: the classes are 0 flags, 1 big, red,"),
        (["4-3"], "is '4-3', but no class has this name"),
        (["9" * 99], "a number of more than 18 digits, but it must be between 0 and 5"),
        (["²"], "is '²', but no class has this name"),
    ],
)
def test_what_names_no_class_is_refused(texts, message):
    with pytest.raises(UserError, match=message) as e:
        Typed("--classes", tuple(texts)).among(NAMES)
    assert len(str(e.value)) < 400


@pytest.mark.parametrize("text", ["", ",", "3,,4", " ", "0-" + "9" * 90])
def test_what_no_model_has_is_refused_before_one_is_opened(text):
    with pytest.raises(UserError, match=r"by number or name|more classes than any model has"):
        Typed("--classes", (text,))


def test_numbers_that_are_names_of_others_are_remarked_upon():
    names = ("2", "1", "0")
    assert Typed("--classes", ("2",)).among(names) == (2,)
    remark = Typed("--classes", ("1,2",)).remark(names)
    assert remark == ("--classes 2 is class number 2, which is named '0'; the class that is named '2' has the number 0")
    assert Typed("--classes", ("1",)).remark(names) is None
    assert Typed("--classes", ("0-2",)).remark(("7", "8", "9")) is None
    names = ("a", "0-1", "007")
    assert Typed("--classes", ("0-1",)).among(names) == (0, 1)
    remark = Typed("--classes", ("0-1",)).remark(names) or ""
    assert remark.startswith("--classes 0-1 stands for the classes of these numbers; the class that is named '0-1' has")
    assert Typed("--classes", ("007",)).among(names) == (2,)  # no number is written so


def test_in_python_the_type_decides():
    assert numbers_of(["7", 0, np.int64(5)], NAMES) == (3, 0, 5)
    assert numbers_of(np.array([2, 1]), NAMES) == (2, 1)
    assert labels_of(["7", 0, 0], NAMES).tolist() == [3, 0, 0]
    assert labels_of(np.array(["flags", "7"]), NAMES).tolist() == [0, 3]
    with pytest.raises(UserError, match="class is '3', but no class has this name"):
        numbers_of(["3"], NAMES)
    with pytest.raises(UserError, match=r"the name of the classes 0 and 2, so it must be one of these numbers"):
        numbers_of(["crane"], ("crane", "ox", "crane"))
    with pytest.raises(UserError, match="there are 1000 classes, of similar names bear"):
        numbers_of(["baer"], ("bear", *map(str, range(999))))


@pytest.mark.parametrize(
    "wrong",
    [
        3, "3", "flags", b"flags", None, {3: 1.0}, [], (), [True], [0.0], [None], [[0]], [-1], [6], 1.5,
        np.zeros(2), np.zeros((1, 2), int), np.array(3), np.array([], int), np.array([True]), np.array([0, 6]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("read", [numbers_of, labels_of])
def test_what_is_no_list_of_classes_is_refused(read, wrong):
    with pytest.raises(UserError, match=r"but it must|but no class"):
        read(wrong, NAMES)


def test_classes_in_a_sentence():
    names = (*map(str, range(9)), "bear", "9")
    assert describe((7, 8), names) == "7 and 8"
    assert describe((8, 9, 10), names) == "8, 9 bear and 10 (named 9)"
    assert describe(range(1000), tuple(map(str, range(1000)))).endswith("19 and 980 more")
