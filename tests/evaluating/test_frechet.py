import numpy as np
import pytest
import scipy.linalg

from kind_jax.errors import UserError
from kind_jax.evaluating.frechet import frechet_distance, gaussian_fit


def covariance(rng, dims, rank=None):
    root = rng.normal(size=(dims, rank or dims))
    return root @ root.T


def test_closed_forms():
    rng = np.random.default_rng(0)
    mean_a, mean_b = rng.normal(size=(2, 5))
    a, b = rng.uniform(0.1, 4, (2, 5))
    offset = np.sum((mean_a - mean_b) ** 2)
    assert frechet_distance(mean_a, np.eye(5), mean_b, np.eye(5)) == pytest.approx(offset)
    # Covariances that commute: (sqrt a - sqrt b)² summed.
    want = offset + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    assert frechet_distance(mean_a, np.diag(a), mean_b, np.diag(b)) == pytest.approx(want)


def test_matches_the_matrix_square_root_and_is_symmetric():
    rng = np.random.default_rng(1)
    mean_a, mean_b = rng.normal(size=(2, 8))
    a, b = covariance(rng, 8), covariance(rng, 8)
    assert np.abs(a @ b - b @ a).max() > 1  # they do not commute
    want = np.sum((mean_a - mean_b) ** 2) + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b).real)
    assert frechet_distance(mean_a, a, mean_b, b) == pytest.approx(want, rel=1e-10)
    assert frechet_distance(mean_b, b, mean_a, a) == pytest.approx(want, rel=1e-10)


def test_rank_deficient_covariances():
    rng = np.random.default_rng(2)
    zero = np.zeros(6)
    a = covariance(rng, 6, rank=2)
    assert frechet_distance(zero, a, zero, a) < 1e-12 * np.trace(a)
    assert frechet_distance(zero, a, zero, np.zeros((6, 6))) == pytest.approx(np.trace(a))
    # Rank one: tr (A^½ u uᵀ A^½)^½ is the length of A^½ u, which is sqrt(uᵀ A u).
    u = rng.normal(size=6)
    want = np.trace(a) + u @ u - 2 * np.sqrt(u @ a @ u)
    assert frechet_distance(zero, a, zero, np.outer(u, u)) == pytest.approx(want, rel=1e-10)


def test_rotation_changes_nothing_and_fit_recovers_a_known_gaussian():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(200, 4)), rng.normal(size=(300, 4)) * np.array([[1.0, 2, 3, 0.1]]) + 1
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    plain = frechet_distance(*gaussian_fit(a), *gaussian_fit(b))
    assert frechet_distance(*gaussian_fit(a @ turn), *gaussian_fit(b @ turn)) == pytest.approx(plain, rel=1e-10)
    mean, cov = gaussian_fit(b.astype(np.float32))
    assert mean == pytest.approx(b.mean(axis=0), abs=1e-6)
    assert cov == pytest.approx(np.cov(b, rowvar=False), abs=1e-5)


def test_too_few_or_broken_samples_are_refused():
    with pytest.raises(UserError, match="4 samples, but 4 features need at least 5"):
        gaussian_fit(np.zeros((4, 4)))
    with pytest.raises(UserError, match="finite"):
        gaussian_fit(np.full((9, 2), np.nan))
