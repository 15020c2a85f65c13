import pytest

from limbeck.core.candidate import Candidate
from limbeck.core.kinds import KINDS
from limbeck.core.shape import Shape
from limbeck.core.step import RunContext
from limbeck.errors import InputError
from limbeck.techniques.linearize import Linearize
from limbeck.train.config import TrainingConfig
from limbeck.train.guide_config import GuideConfig
from limbeck.train.linearization import EpochCheckpoints, Trajectory

SINGLE = "single_label_classification"


@pytest.mark.parametrize(
    ("guide", "start", "needs_teacher", "from_pretrained"),
    [
        ("unguided", None, False, False),
        ("unguided", "pretrained", True, True),
        ("trajectory", None, False, False),
        ("target", None, True, False),
        ("waypoint", None, True, True),
        ("waypoint", "candidate", True, False),
    ],
)
def test_who_takes_part(guide, start, needs_teacher, from_pretrained):
    config = GuideConfig(guide=guide, start=start)
    assert (config.needs_teacher, config.from_pretrained) == (needs_teacher, from_pretrained)
    if needs_teacher:
        with pytest.raises(InputError, match=f"guide {guide} has no teacher"):
            config.teacher(Candidate(None, None, None), RunContext(), None)
    else:
        assert config.teacher(Candidate(None, None, None), RunContext(), None) is None


def test_states_are_compared_by_weight():
    assert GuideConfig().compares_states
    assert not GuideConfig(alpha_output=1.0, alpha_layer=0.0).compares_states
    assert not GuideConfig(guide="unguided").compares_states


def test_a_guide_costs_a_forward_pass_of_three_and_a_trajectory_its_steps_too():
    assert GuideConfig(guide="unguided").relative_cost == 1
    assert GuideConfig().relative_cost == pytest.approx(4 / 3)
    assert GuideConfig(guide="trajectory", teacher_update_cycle=2).relative_cost == pytest.approx(1 + 2.5 / 3)


def test_the_objective_is_that_of_the_guide(make_model):
    shape = Shape.uniform(layers=2, hidden=32, heads=4, ffn=64)
    student, guide = make_model(shape), make_model(shape, seed=1)
    training = TrainingConfig(learning_rate=1e-3)

    def objective(**fields):
        return GuideConfig(**fields).objective(student, guide, training, problem_type=SINGLE, epoch_checkpoints="abc")

    assert objective(guide="unguided").guided is None
    assert objective(alpha_layer=0.0).guided is None
    target = objective(alpha_output=0.5, alpha_layer=2.0)
    assert {name: weight for name, (weight, _) in target.guided.terms.items()} == {
        "task": 1.0,
        "logits": 0.5,
        "hidden": 6.0,  # the mean over the embeddings and two layers, as a sum
    }
    assert objective(guide="hybrid", max_distill_steps=7).until == 7
    trajectory = objective(guide="trajectory", teacher_learning_rate=1e-2, teacher_update_cycle=3)
    assert isinstance(trajectory, Trajectory)
    assert (trajectory.teacher, trajectory.every) == (guide, 3)
    assert trajectory.config == TrainingConfig(learning_rate=1e-2)
    prepare = objective(guide="waypoint").prepare
    assert isinstance(prepare, EpochCheckpoints)
    assert (prepare.teacher, prepare.files) == (guide, "bc")


def test_a_temperature_softens_classes_alone():
    soft = GuideConfig(alpha_output=1.0, temperature=4.0)
    refused = {kind for kind in KINDS if soft.kind_problems(KINDS[kind])}
    assert refused == {"multilabel", "regression", "rerank", "embedding"}
    assert not any(GuideConfig(alpha_output=1.0).kind_problems(KINDS[kind]) for kind in KINDS)
    assert Linearize(guidance=soft).kind_problems(KINDS["regression"]).keys() == {"temperature"}
