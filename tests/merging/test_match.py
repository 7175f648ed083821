"""Matching features: against recordings of the published code, and by hand."""

from pathlib import Path

import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.merging import match

RECORDED = np.load(Path(__file__).parents[1] / "fixtures" / "zipit_reference.npz", allow_pickle=False)
CASES = sorted({key.rsplit("/", 1)[0] for key in RECORDED if key.startswith("match/") and key.endswith("/unmerge")})


def correlation(pairs, count=4, rest=0.0):
    found = np.full((count, count), rest, np.float32)
    np.fill_diagonal(found, 1)
    for (i, j), value in pairs.items():
        found[i, j] = found[j, i] = value
    return found


def groups(found):
    return [set(np.flatnonzero(found.group == k).tolist()) for k in range(len(found.sizes))]


@pytest.mark.parametrize("case", CASES)
def test_as_recorded(case):
    """The same groups in the same order, wherever the recorded choice was no tie."""
    _, sizes, method = case.split("/")
    name, _, rest = method.partition("_")
    how = {"method": {"zipit": "zip"}.get(name, name)}
    if rest:
        alpha, beta = rest.split("_")
        how |= {"alpha": float(alpha[1:]), "beta": float(beta[1:])}
    found = match(RECORDED[f"match/{sizes}/correlation"], models=int(sizes.split("_N")[1]), **how)
    merge, unmerge = (RECORDED[f"{case}/{which}"] for which in ("merge", "unmerge"))
    if name == "optimal":  # whose columns have any order
        order = np.argsort(np.argmax(unmerge, axis=0))
        merge, unmerge = merge[order], unmerge[:, order]
    elif rest:
        assert RECORDED[f"{case}/margin_rel"].min() > 1e-4
        np.testing.assert_array_equal(found.order, RECORDED[f"{case}/merge_order"])
    np.testing.assert_array_equal(found.unmerge, unmerge)
    np.testing.assert_allclose(found.merge, merge, atol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_by_hand(beta):
    across = correlation({(0, 2): 0.9, (1, 3): 0.8}, rest=0.3)
    assert groups(match(across, beta=beta)) == [{0, 2}, {1, 3}]
    within = correlation({(0, 1): 0.95, (2, 3): 0.97}, rest=0.2)
    assert groups(match(within, beta=beta)) == [{0, 1}, {2, 3}]  # one merge within is always allowed
    assert groups(match(np.ones((4, 4), np.float32), alpha=0.5, beta=beta)) == [{0, 1}, {2, 3}]
    assert groups(match(np.zeros((4, 4), np.float32), alpha=0.5, beta=1.0)) == [{0, 1, 2}, {3}]
    negative = correlation({(0, 1): 0.9, (1, 2): -0.7, (0, 2): -0.6, (0, 3): -0.5, (1, 3): -0.4, (2, 3): -0.3})
    assert groups(match(negative, alpha=1.0, beta=1.0)) == [{0, 1}, {2, 3}]
    assert groups(match(negative, alpha=0.1, beta=1.0)) == [{0, 1, 3}, {2}]


@pytest.mark.parametrize("models", [2, 3, 4])
def test_no_feature_is_lost(models):
    """Every row of unmerge has one 1, every mean is over a group, and merging what was unmerged changes nothing."""
    rng = np.random.default_rng(models)
    for _ in range(20):
        features = rng.standard_normal((8 * models, 40))
        for alpha, beta in ((0.3, 0.125), (1e-4, 0.0), (1.0, 0.0), (0.0, 1.0)):
            found = match(np.corrcoef(features), models, alpha=alpha, beta=beta, epsilon=0)
            assert len(found.sizes) == 8 or alpha <= 0
            np.testing.assert_array_equal(found.unmerge.sum(axis=1), 1)
            np.testing.assert_allclose(found.merge @ found.unmerge, np.eye(len(found.sizes)), atol=1e-6)


def test_a_plain_scan_finds_the_same():
    """The cached greatest of each row, against looking at the whole matrix before every merge."""
    rng = np.random.default_rng(0)
    for alpha, beta in ((0.3, 0.125), (1e-4, 0.075), (1.0, 1.0), (0.5, 0.5)):
        found = np.corrcoef(rng.standard_normal((48, 60))).astype(np.float32)
        assert groups(match(found, 2, alpha=alpha, beta=beta)) == _scanned(found, 24, alpha, beta)


def _scanned(correlation, wanted, alpha, beta):
    similar, members = correlation.copy(), {i: {i} for i in range(len(correlation))}
    np.fill_diagonal(similar, -np.inf)
    owner, budget = np.arange(len(similar)) // wanted, [int(wanted // 2 * beta + 1e-4)] * 2
    while len(members) > wanted:
        i, j = np.unravel_index(np.argmax(similar), similar.shape)
        members[i] |= members.pop(j)
        similar[i] = similar[:, i] = alpha * np.minimum(similar[i], similar[j])
        similar[i, i] = similar[j] = similar[:, j] = -np.inf
        if owner[i] == owner[j]:
            budget[owner[i]] -= 1
            if budget[owner[i]] <= 0:
                mine = [k for k in members if owner[k] == owner[i]]
                similar[np.ix_(mine, mine)] = -np.inf
    return [members[k] for k in sorted(members)]


@pytest.mark.parametrize(
    ("matrix", "how", "sentence"),
    [
        (np.ones((4, 3), np.float32), {}, r"^correlation is 'of shape \(4, 3\)', but it must be a square matrix"),
        (np.eye(5), {}, "^correlation is 'of 5 features', but it must be of a multiple of 2"),
        (np.full((4, 4), np.nan), {}, "^correlation is 'NaN or infinite in places'"),
        (np.triu(np.ones((4, 4))), {}, "^correlation is 'not symmetric'"),
        (np.eye(4), {"method": "best"}, "^method is 'best', but it must be one of 'zip', 'permute'"),
        (np.eye(4), {"alpha": 2.0}, "^alpha is 2.0, but it must be at most 1"),
        (np.eye(4), {"beta": -0.1}, "^beta is -0.1, but it must be between 0 and 1"),
        (np.eye(4), {"models": 0}, "^models is 0"),
        (np.eye(6), {"models": 3, "method": "optimal"}, "^models is 3, but it must be 2 for method 'optimal'"),
    ],
)
def test_impossible_arguments(matrix, how, sentence):
    with pytest.raises(UserError, match=sentence):
        match(matrix, **how)
