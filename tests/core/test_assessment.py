from limbeck.core.assessment import Assessment, UnseenWord
from limbeck.core.statistics import Interval


def test_an_assessment_of_rows_has_nothing_beside_it():
    assessment = Assessment(Interval(0.5, 0.4, 0.6), {})
    assert (assessment.beside, assessment.examples) == ({}, None)
    assert UnseenWord(3, 1)._asdict() == {"word": 3, "label": 1}
