import numpy as np

from limbeck.data.arrays import kept_arrays


def test_arrays_are_made_once_and_mapped(tmp_path):
    built = []

    def keep(name, build):
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            build(folder)
        return folder

    def make():
        built.append(1)
        return {"logits": np.arange(6.0).reshape(2, 3), "hidden": np.ones(4, dtype=np.float16)}

    for _ in range(2):
        found = kept_arrays(keep, "outputs", make)
    assert len(built) == 1
    assert isinstance(found["logits"], np.memmap)
    np.testing.assert_array_equal(found["logits"], [[0, 1, 2], [3, 4, 5]])
    assert found["hidden"].dtype == np.float16
