from limbeck.techniques.distill import Distill
from limbeck.train.distillation_presets import PRESETS


def test_every_preset_is_a_step_without_conflicts():
    for preset in PRESETS.values():
        assert not Distill.of(**preset).problems()
