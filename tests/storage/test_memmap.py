import numpy as np

from limbeck.storage.memmap import Ragged, cached_arrays


def test_arrays_are_computed_once_and_mapped(tmp_path):
    built = []

    def keep(name, build):
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            build(folder)
        return folder

    def compute():
        built.append(1)
        return {"logits": np.arange(6.0).reshape(2, 3), "hidden": np.ones(4, dtype=np.float16)}

    for _ in range(2):
        arrays = cached_arrays(keep, "outputs", compute)
    assert len(built) == 1
    assert isinstance(arrays["logits"], np.memmap)
    np.testing.assert_array_equal(arrays["logits"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["hidden"].dtype == np.float16


def test_ragged_rows_come_back_padded():
    rng, lengths = np.random.default_rng(0), np.array([3, 1, 2])
    for pairs in (False, True):
        power = 2 if pairs else 1
        ragged = Ragged(np.empty((int((lengths**power).sum()), 4), dtype=np.float16), lengths, pairs)
        rows = [rng.integers(0, 9, (n,) * power + (4,)) for n in lengths]
        for example in (2, 0, 1):
            ragged.put(example, rows[example])
        padded = ragged.padded([1, 2])
        assert padded.shape == (2,) + (2,) * power + (4,)
        np.testing.assert_array_equal(padded[1], rows[2])
        np.testing.assert_array_equal(padded[0][:1, :1] if pairs else padded[0][:1], rows[1])
        assert padded.sum() == rows[1].sum() + rows[2].sum()
