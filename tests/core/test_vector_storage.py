"""Vectors in 8 bits, as signs, and cut."""

from __future__ import annotations

import numpy as np
import pytest

from limbeck.core.vector_storage import int8, leading, signs, stored_forms

VECTORS = np.random.default_rng(0).normal(size=(50, 300))


def test_8_bits_round_within_the_range_of_each_component():
    read = int8(VECTORS)
    step = (VECTORS.max(axis=0) - VECTORS.min(axis=0)) / 255
    assert (np.abs(read - VECTORS) <= step / 2 + 1e-12).all()
    assert all(len(np.unique(read[:, column])) <= 256 for column in range(3))
    np.testing.assert_allclose([read.min(axis=0), read.max(axis=0)], [VECTORS.min(axis=0), VECTORS.max(axis=0)])


def test_a_component_that_never_changes_stays_as_it_is():
    assert int8(np.full((4, 2), 0.3)).tolist() == np.full((4, 2), 0.3).tolist()


def test_the_order_of_cosines_of_signs_is_that_of_hamming_distances():
    bits, read = VECTORS > 0, signs(VECTORS)
    hamming = (bits[:1] != bits[1:]).sum(axis=1)
    cosines = (read[:1] * read[1:]).sum(axis=1) / 300
    np.testing.assert_allclose(cosines, 1 - 2 * hamming / 300)


@pytest.mark.parametrize(
    ("width", "names"),
    [(300, ["int8", "binary", "first 256", "first 128", "first 64"]), (64, ["int8", "binary"])],
)
def test_forms_have_the_bytes_that_an_index_needs(width, names):
    forms = stored_forms(width)
    assert list(forms) == names
    assert (forms["int8"].bytes, forms["binary"].bytes) == (width, -(-width // 8))
    for form in forms.values():
        assert form.read(VECTORS[:, :width]).shape == (50, form.width)
    assert leading(8, VECTORS).tolist() == VECTORS[:, :8].tolist()
