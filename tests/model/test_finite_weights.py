from __future__ import annotations

import pytest
import torch

from limbeck.errors import InputError
from limbeck.model.finite_weights import check_finite


@pytest.mark.parametrize(
    ("bad", "word"), [(float("nan"), "NaN"), (float("inf"), "infinite"), (-float("inf"), "infinite")]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_is_no_number_is_named(bad, word, dtype):
    given = {"a": torch.ones(3, dtype=dtype), "b": torch.ones(2, 2, dtype=dtype), "ids": torch.arange(3)}
    check_finite(given)
    given["b"][1, 1] = bad
    with pytest.raises(InputError, match=rf"folder: 'b' has 1 {word} of 4 numbers"):
        check_finite(given, "folder")


def test_large_numbers_are_numbers():
    check_finite({"a": torch.full((4, 1000), 3e38), "b": torch.full((9,), 6e4, dtype=torch.float16)})
