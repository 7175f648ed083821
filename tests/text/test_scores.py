import math

import numpy as np
import pytest

from kind_jax.errors import UserError
from kind_jax.text import scores

CANDIDATES = ["A cat sits on the mat.", "two dogs run in the park", "the the the the the the the", "a man rides a bike"]
REFERENCES = [
    ["a cat is sitting on the mat", "there is a cat on the mat"],
    ["two dogs are running in a park", "dogs run in the park"],
    ["the cat is on the mat", "there is a cat on the mat"],
    ["a man rides a red bike", "a person rides a bicycle on the road", "a man is riding a bike"],
]


def test_words_are_small_and_without_signs():
    assert scores.words("The Dog's well-known, e.g. 3 cats_and “Ärger”—it\N{RIGHT SINGLE QUOTATION MARK}s!") == (
        ["the", "dog's", "well-known", "e", "g", "3", "cats", "and", "ärger", "it's"]
    )
    assert scores.words(" ... ") == []


def test_bleu_and_cider_d_are_those_of_the_coco_evaluation():
    """What pycocoevalcap 1.2 gives for these words."""
    wanted = (0.7193920927719043, 0.6434438487628443, 0.5300526259237512, 0.43471071402310796)
    found = [scores.bleu(CANDIDATES, REFERENCES, order=n) for n in (1, 2, 3, 4)]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)  # COCO adds 1e-9 to counts
    assert scores.bleu(CANDIDATES, REFERENCES) == found[3]
    np.testing.assert_allclose(scores.cider(CANDIDATES, REFERENCES), [1.87351851, 5.40471986, 0, 3.34532583], rtol=1e-8)


def test_precisions_are_clipped_as_in_the_paper():
    """Papineni et al. 2002, example 2: a clipped 1-gram precision of 2/7."""
    counts = scores.bleu_counts(CANDIDATES[2:3], [["The cat is on the mat.", "There is a cat on the mat."]], order=2)
    assert counts.tolist() == [[7, 7, 2, 7, 0, 6]]
    assert scores.bleu_of(counts[0, :4]) == 2 / 7
    assert scores.bleu_of(counts[0]) == 0


def test_the_brevity_penalty_takes_the_closest_reference():
    assert scores.bleu(["a b c d"], [["a b c d"]]) == 1
    assert scores.bleu(["a b c d"], [["a b c d e f g h", "a b c d e"]]) == pytest.approx(math.exp(1 - 5 / 4))
    assert scores.bleu(["a b c d"], [["a b c d e", "x y z"]]) == 1  # of equally close lengths the shorter
    assert scores.bleu(["a b c d e f"], [["a b c d"]], order=1) == pytest.approx(4 / 6)
    # Lengths are summed over the corpus first: one long caption makes up for a short one.
    assert scores.bleu(["a b c d", "a b c d e f"], [["a b c d e"], ["a b c d e"]], order=1) == pytest.approx(9 / 10)


def test_bleu_of_some_captions_is_a_sum():
    counts = scores.bleu_counts(CANDIDATES, REFERENCES)
    some = [3, 0, 3]
    again = scores.bleu([CANDIDATES[i] for i in some], [REFERENCES[i] for i in some])
    assert scores.bleu_of(counts[some].sum(0)) == again


def test_cider_by_hand():
    """Two images whose references share no word: each n-gram has the IDF log 2, so that cosines are of counts."""
    references = [["a b c d"], ["e f g h"]]
    assert scores.cider(["a b c d", "h g f e"], references, plain=True) == pytest.approx([1, 1 / 4])
    assert scores.cider(["a b c d", "e f g h"], references) == pytest.approx([10, 10])
    # a b: cosines sqrt(2/4) and sqrt(1/3) of 1-grams and 2-grams, none of longer ones; two words too few.
    cosines = (math.sqrt(2 / 4) + math.sqrt(1 / 3)) / 4
    assert scores.cider(["a b", "e"], references, plain=True)[0] == pytest.approx(cosines)
    assert scores.cider(["a b", "e"], references)[0] == pytest.approx(10 * cosines * math.exp(-4 / 72))
    # a a a a: all of its length lies along a; clipped to one a it has a fourth of it.
    assert scores.cider(["a a a a", "e"], references, plain=True)[0] == pytest.approx(4 * 1 / (4 * 2) / 4)
    assert scores.cider(["a a a a", "e"], references)[0] == pytest.approx(10 * 1 / (4 * 2) / 4)
    # What every image has tells nothing, and the mean is over the references.
    assert scores.cider(["a", "a"], [["a"], ["a"]]).tolist() == [0, 0]
    assert scores.cider(["a", "x"], [["a", "b"], ["c"]], plain=True) == pytest.approx([1 / 2 / 4, 0])
    assert scores.cider(["a cat"], [["a cat"]]).tolist() == [0]


@pytest.mark.parametrize("score", [scores.bleu, scores.cider])
def test_wrong_numbers_of_captions_are_refused(score):
    with pytest.raises(UserError, match="there are 1 captions to score and references of 2 images"):
        score(["a"], [["a"], ["b"]])
    with pytest.raises(UserError, match="there are 0 captions"):
        score([], [])
    with pytest.raises(UserError, match="caption 1 has no list of references"):
        score(["a", "b"], [["a"], []])
    with pytest.raises(UserError, match="caption 0 has no list of references"):
        score(["a", "b"], ["a", ["b"]])
    assert np.mean(score(["", "?"], [["a"], ["b c"]])) == 0


def test_the_accuracy_of_tokens_leaves_padding_out():
    wanted = np.asarray([[5, 6, 2, 0], [7, 2, 0, 0]], np.int32)
    predicted = np.asarray([[5, 9, 2, 0], [7, 2, 4, 4]], np.int32)
    assert scores.token_accuracy(predicted, wanted).tolist() == [2 / 3, 1]
    with pytest.raises(UserError, match="row 1 of the tokens is padding alone"):
        scores.token_accuracy(predicted, wanted * np.asarray([[1], [0]], np.int32))


def test_recall_in_both_directions_with_several_texts_of_an_image():
    positives = np.asarray([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]], bool)
    similarity = np.asarray([[1, 9, 8, 7, 2], [5, 6, 4, 3, 1], [2, 1, 3, 9, 8]], float)
    found = scores.recall_at(similarity, positives, (1, 2, 3, 5))
    # Image 0 finds its second text first, image 1 its text behind two others, image 2 at once.
    assert found.rows == {1: 2 / 3, 2: 2 / 3, 3: 1, 5: 1}
    # Texts by columns: behind both other images, first, behind image 0, first, first.
    assert found.columns == {1: 3 / 5, 2: 4 / 5, 3: 1, 5: 1}
    assert scores.recall_at(similarity.T, positives.T, (1,)) == ({1: 3 / 5}, {1: 2 / 3})


def test_a_model_that_sees_no_difference_finds_nothing():
    same = scores.recall_at(np.zeros((20, 20)), np.eye(20, dtype=bool))
    assert same == ({1: 0, 5: 0, 10: 0}, {1: 0, 5: 0, 10: 0})
    assert scores.recall_at(np.zeros((20, 20)), np.ones((20, 20), bool)).rows == {1: 1, 5: 1, 10: 1}


def test_similarities_that_cannot_be_ranked_are_refused():
    similarity, positives = np.eye(3), np.eye(3, dtype=bool)
    with pytest.raises(UserError, match="row 1 of the similarities has nothing"):
        scores.recall_at(similarity, positives & ~np.eye(3, dtype=bool)[[1, 1, 1]])
    with pytest.raises(UserError, match="column 0 of the similarities has nothing"):
        scores.recall_at(similarity, np.asarray([[0, 1, 0], [0, 1, 0], [0, 0, 1]], bool))
    with pytest.raises(UserError, match="not finite"):
        scores.recall_at(similarity * np.nan, positives)
    with pytest.raises(UserError, match=r"looked at are \(0,\)"):
        scores.recall_at(similarity, positives, (0,))
