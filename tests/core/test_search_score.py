import json

import numpy as np

from limbeck.core.search_score import SearchScore
from limbeck.core.stored_labels import from_plain, to_plain


def test_it_is_a_number_that_is_kept_as_what_it_is():
    score = SearchScore(0.5)
    assert np.asarray([score, 1.0]).tolist() == [0.5, 1.0]
    kept = from_plain(json.loads(json.dumps(to_plain(score))))
    assert (type(kept), kept) == (SearchScore, 0.5)
