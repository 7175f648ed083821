"""The class table of the KIND protocol: what it promises, the rule that makes it, and what a damaged one is told."""

import importlib.util
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from classes import make
from classes.protocol import allocate, choose, merge, strata
from classes.wordnet import Synset, ancestor, read_nouns, unique_names
from kind_jax.config import ModelConfig
from kind_jax.data import classes as tables
from kind_jax.data.classes import ClassTable, load_protocol
from kind_jax.errors import UserError

WORDNET = os.environ.get("KIND_JAX_WORDNET")


def noun(number, words, up=(), instance=()):
    """A line of data.noun; ``instance`` pointers stand first, which must not matter."""
    pointers = [f"@i {n:08d} n 0000" for n in instance] + [f"@ {n:08d} n 0000" for n in up]
    pointers.append("+ 00000001 v 0101")  # a verb that it is derived from
    return (
        f"{number:08d} 03 n {len(words):02x} {' '.join(f'{w} 0' for w in words)} "
        f"{len(pointers):03d} {' '.join(pointers)} | a gloss with | and @ 00000001 n in it\n"
    )


@pytest.fixture
def wordnet(tmp_path):
    """A function: lines to the nouns in a data.noun of them."""

    def of(*lines):
        (tmp_path / "data.noun").write_text("  1 This software and database is\n" + "".join(lines))
        return read_nouns(tmp_path)

    return of


def chain(first, last, above):
    """Synsets first..last, each below the one before, the first one below ``above``."""
    return [noun(n, [f"s{n}"], [above if n == first else n - 1]) for n in range(first, last + 1)]


def wnid(number):
    return f"n{number:08d}"


@pytest.fixture
def tree(wordnet):
    """entity 1 - 2 - 3 - 4 - 5 - 6 and 1 - 20 - 21; leaves 101-103 below 6, 111-112 below 21, 113-114 below 20, 115."""
    leaves = [noun(n, [f"leaf{n}"], [6]) for n in (101, 102, 103)]
    leaves += [noun(n, [f"leaf{n}"], [21]) for n in (111, 112)] + [noun(n, [f"leaf{n}"], [20]) for n in (113, 114)]
    leaves += [noun(115, ["leaf115"], [4, 21])]
    return wordnet(noun(1, ["entity"]), *chain(2, 6, 1), *chain(20, 21, 1), *leaves)


LEAVES = [wnid(n) for n in (101, 102, 103, 111, 112, 113, 114, 115)]


def test_a_synset_is_read_as_wordnet_writes_it(wordnet):
    many = [f"w{i}" for i in range(17)]  # w_cnt is hexadecimal
    nouns = wordnet(
        noun(1, ["entity"]), noun(2, ["Egyptian_cat", "puss"], [1]), noun(3, many, [2], [1]), noun(4, ["x"], (), [3, 2])
    )
    assert nouns[wnid(2)].name == "Egyptian cat"
    assert nouns[wnid(3)].hypernyms == (wnid(2), wnid(1))  # @ before @i
    assert nouns[wnid(4)].parent == wnid(3)  # of instances alone the first
    assert [nouns[wnid(n)].depth for n in (1, 2, 3, 4)] == [0, 1, 1, 2]  # the shortest way, through @i too


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["rubbish\n"], "line 2 of .* is no synset"),
        ([noun(1, ["a"], [7])], "has no synset n00000007"),
        ([noun(1, ["a"]), noun(2, ["b"], [3]), noun(3, ["c"], [2])], "no way from n00000002 to a root"),
    ],
)
def test_another_file_is_refused(wordnet, lines, message):
    with pytest.raises(UserError, match=message):
        wordnet(*lines)


def test_the_deepest_groups_merge_first_until_the_count_is_reached(tree):
    def members(count):
        return [(one.wnid, one.labels) for one in merge(LEAVES, tree, count) if len(one.labels) > 1]

    assert members(8) == []
    assert members(6) == [(wnid(6), (0, 1, 2))]
    assert members(5) == [(wnid(6), (0, 1, 2)), (wnid(21), (3, 4))]
    assert members(4) == [
        (wnid(6), (0, 1, 2)),
        (wnid(21), (3, 4)),
        (wnid(20), (5, 6)),
    ]
    for count in (7, 3):  # jumped over, and beyond the last merge
        with pytest.raises(UserError, match=rf"but it must leave {count}"):
            merge(LEAVES, tree, count)
    with pytest.raises(UserError, match="has no synset n00000999"):
        merge([*LEAVES, wnid(999)], tree, 8)


def test_equally_deep_groups_merge_in_the_order_of_offsets(wordnet):
    nouns = wordnet(
        noun(1, ["entity"]), noun(8, ["late"], [1]), noun(7, ["early"], [1]),
        *[noun(n, ["x"], [8]) for n in (11, 12)], *[noun(n, ["x"], [7]) for n in (13, 14)],
    )  # fmt: skip
    assert [one.wnid for one in merge([wnid(n) for n in (11, 12, 13, 14)], nouns, 3) if len(one.labels) > 1] == [
        wnid(7)
    ]


def test_strata_are_the_ancestors_at_a_depth(tree):
    assert ancestor(wnid(101), tree, 3) == wnid(4)
    assert ancestor(wnid(6), tree, 5) == wnid(6)
    assert ancestor(wnid(113), tree, 5) == wnid(113)  # shallower: itself
    assert strata(merge(LEAVES, tree, 5), tree, 1) == {wnid(2): [0, 4], wnid(20): [1, 2, 3]}


def test_names_are_made_unique_by_the_hypernym_then_by_the_wnid(wordnet):
    nouns = wordnet(
        noun(1, ["entity"]), noun(2, ["bird"], [1]), noun(3, ["device"], [1]), noun(4, ["crane"], [2]),
        noun(5, ["crane"], [3]), noun(6, ["cub"], [2]), noun(7, ["cub"], [2]), noun(8, ["owl"], [2]),
    )  # fmt: skip
    assert unique_names([wnid(n) for n in (4, 5, 6, 7, 8)], nouns) == [
        "crane (bird)", "crane (device)", "cub (n00000006)", "cub (n00000007)", "owl",
    ]  # fmt: skip


def test_seats_go_by_largest_remainder():
    assert allocate([4, 3, 2, 1], 5) == [2, 2, 1, 0]  # 2, 1.5, 1, 0.5: of equal remainders the first
    assert allocate([1, 1, 8], 5) == [1, 0, 4]
    assert sum(allocate([7, 11, 13, 1, 1, 1], 9)) == 9
    assert choose([[0, 1, 2, 3], [4, 5, 6]], 7, 0) == set(range(7))


def source():
    return json.loads(tables.TABLE.read_text())


def test_the_table_is_a_partition_with_the_papers_counts():
    whole, base, novel = (load_protocol(name) for name in ("kind-611", "kind-base", "kind-novel"))
    assert [len(table.names) for table in (whole, base, novel)] == [611, 150, 461]
    assert sorted(label for own in whole.members for label in own) == list(range(1000))
    assert set(base.members) | set(novel.members) == set(whole.members)
    assert set(base.names) | set(novel.names) == set(whole.names)
    assert list(whole.members) == sorted(whole.members)  # in the order of their lowest labels
    of = whole.class_of(1000)
    assert of.dtype == np.int32
    assert all(of[label] == number for number, own in enumerate(whole.members) for label in own)
    assert (base.class_of(1000) >= 0).sum() == sum(map(len, base.members)) < 1000
    assert sum(len(own) > 1 for own in whole.members) == 192


def test_labels_are_those_of_tfds_and_read_well():
    spec = importlib.util.find_spec("tensorflow_datasets")
    assert spec is not None
    assert spec.origin is not None
    assert list(tables.imagenet_wnids()) == make.read_labels(None)
    names = tables.imagenet_names()
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 285: "Egyptian cat", 817: "sports car", 980: "volcano"}
    assert {label: names[label] for label in known} == known
    assert len(set(names)) == 1000
    assert len({name for name in names if name.startswith("crane (")}) == 2


def test_the_rule_applied_to_the_committed_synsets_gives_the_committed_classes():
    """Merge and split drawn again, without WordNet."""
    found = source()
    synsets = {
        wnid: Synset(wnid=wnid, name=name, hypernyms=(parent,) if parent else (), depth=depth)
        for wnid, (name, depth, parent) in found["synsets"].items()
    }
    again = make.table(synsets, list(tables.imagenet_wnids()))
    assert again["classes"] == found["classes"]
    assert len({synsets[wnid].parent for wnid in tables.imagenet_wnids()}) == 556  # what docs/classes.md says of it
    assert again == {key: value for key, value in found.items() if key != "source"}


def test_base_classes_are_spread_over_the_ancestors():
    part, chosen = Counter(), Counter()
    for one in source()["classes"]:
        part[one["ancestor"]] += 1
        chosen[one["ancestor"]] += one["split"] == "base"
    assert all(abs(chosen[wnid] - 150 * size / 611) < 1 for wnid, size in part.items())


def test_superclasses_are_groups_of_a_model():
    for name in ("kind-611", "kind-base", "kind-novel"):
        for depth in (5, 8):
            groups, names = tables.superclasses(name, depth)
            model = ModelConfig(num_classes=len(groups), groups=groups)
            assert model.num_groups == len(names) == len(set(names)) < len(groups)
    whole = load_protocol("kind-611")
    groups, names = tables.superclasses("kind-611", 8)
    dogs = {names[group] for group, own in zip(groups, whole.members, strict=True) if 151 <= own[0] <= 268}
    assert dogs == {"dog", "greyhound"}  # which is a racer, too, and these are less deep
    ancestors = [one["ancestor"] for one in source()["classes"]]
    order = list(dict.fromkeys(ancestors))
    assert tables.superclasses("kind-611")[0] == tuple(order.index(wnid) for wnid in ancestors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["classes"].pop(), "it has 610 classes"),
        (lambda t: t["classes"][0].update(split="base" if t["classes"][0]["split"] == "novel" else "novel"), "base"),
        (lambda t: t["classes"][0].update(name=t["classes"][1]["name"]), "twice, but names must be unique"),
        (lambda t: t["classes"][0].update(labels=[1000]), "over the labels 0 to 999"),
        (lambda t: t["classes"][0].update(labels=[999]), "label 999 in"),
        (lambda t: t["classes"][0].update(ancestor="n99999999"), "every synset that is named"),
        (lambda t: t["classes"][0].pop("labels"), "KeyError 'labels'"),
        (lambda t: t["imagenet"][3].__setitem__(1, "a\x1b[2J"), "printable"),
        (lambda t: t["imagenet"].reverse(), "sorted wnids"),
        (lambda t: t.update(classes=3), "TypeError"),
    ],
)
def test_a_damaged_table_is_refused(tmp_path, change, message):
    found = source()
    change(found)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match=message) as caught:
        tables.read_table(path)
    assert str(path) in str(caught.value)


def test_tables_of_ones_own():
    table = ClassTable(names=("cats", "dogs"), members=((3, 1), (0,)))
    np.testing.assert_array_equal(table.class_of(5), [1, 0, -1, 0, -1])
    with pytest.raises(UserError, match="has 3 classes, but the class table needs 4 or more"):
        table.class_of(3)
    for names, members, message in (
        (("a", "b"), ((0,),), "has 2 names, but members of 1 classes"),
        (("a", "a"), ((0,), (1,)), "'a' twice"),
        (("a", "b"), ((0,), ()), "'b' of the class table has no label"),
        (("a", "b"), ((0,), (0,)), "label 0 in 'a' and in 'b'"),
        (("a",), ((-1,),), "label -1"),
        ((), (), "has no class"),
    ):
        with pytest.raises(UserError, match=message):
            ClassTable(names=names, members=members)


def test_an_unknown_protocol_is_refused():
    with pytest.raises(UserError, match="is 'kind-612', but it must be one of kind-611, kind-base, kind-novel"):
        tables._chosen("kind-612")  # what a caller without type checks passes


def test_the_script_writes_what_it_read(tree, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LEAVES))
    made = make.table(tree, make.read_labels(labels), count=5, base=2)
    assert json.loads(make.dump(made)) == made
    assert [one["labels"] for one in made["classes"]] == [[0, 1, 2], [3, 4], [5], [6], [7]]
    assert [one["split"] for one in made["classes"]].count("base") == 2
    assert made["classes"][0]["name"] == "s6"
    labels.write_text("\n".join(reversed(LEAVES)))
    with pytest.raises(UserError, match="but they must be sorted"):
        make.read_labels(labels)


@pytest.mark.skipif(WORDNET is None, reason="KIND_JAX_WORDNET does not name WordNet 3.0's folder dict")
def test_wordnet_gives_the_committed_bytes(tmp_path):
    assert WORDNET is not None
    assert make.main(["--wordnet", WORDNET, "--out", str(tmp_path / "t.json")]) == 0
    assert (tmp_path / "t.json").read_bytes() == tables.TABLE.read_bytes()


def test_wordnets_licence_is_beside_its_names():
    assert "Princeton University" in Path(tables.TABLE.parent, "WORDNET_LICENSE.txt").read_text()
