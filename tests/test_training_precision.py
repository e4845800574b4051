import pytest
import torch

from glm_data.model.config import ModelConfig
from glm_data.model.model import build
from glm_data.training.precision import LossScale, Masters

CONFIG = ModelConfig(vocab=32, layers=2, hidden=16, heads=2, ffn=24)


def test_scale_halves_at_the_second_overflow_and_doubles_after_the_window():
    scale = LossScale(scale=8.0, window=3)
    seen = []
    for finite in (False, True, False, True, True, True, False):
        scale.update(finite)
        seen.append(scale.scale)
    assert seen == [8.0, 8.0, 4.0, 4.0, 4.0, 8.0, 8.0]
    low = LossScale(scale=1.0, patience=1)
    low.update(False)
    assert low.scale == 1.0


def test_float32_masters_are_the_weights_themselves():
    model = build(CONFIG, 0)
    masters = Masters(model, "float32")
    assert all(masters.parameters[name] is parameter for name, parameter in model.named_parameters())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_adds_gradients_in_float32_and_publishes_rounded_masters(precision):
    model = build(CONFIG, 0)
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    masters = Masters(model, precision)
    assert all(torch.equal(masters.parameters[name], start[name]) for name in start)
    weight = model.final_layernorm.weight
    for _ in range(300):  # 1 + 300 x 2^-10: lost one by one in half precision
        (weight * 2**-10).sum().backward()
    (weight * 1).sum().backward()
    found = masters.parameters["final_layernorm.weight"].grad
    assert torch.allclose(found, torch.full((16,), 1 + 300 * 2**-10))
    assert weight.grad is None
    assert len(masters.gradients) == 1
    with torch.no_grad():
        masters.parameters["final_layernorm.weight"] += 1 / 3
    masters.publish()
    assert torch.equal(weight, torch.full((16,), 4 / 3).to(weight.dtype))
