"""The average of the weights."""

import torch
from toy_training import ToyNet

from equivbench.training.optim import Average, decay_at


def test_update_is_the_recursion_of_the_design():
    model = ToyNet()
    average = Average(model, decay=0.5)
    expected = {name: parameter.detach().double() for name, parameter in model.named_parameters()}
    for step in range(12):
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        average.update(step)
        d = min(0.5, (1 + step) / (10 + step))
        expected = {
            name: d * expected[name] + (1 - d) * p.detach().double()
            for name, p in model.named_parameters()
        }
    for name, value in expected.items():
        torch.testing.assert_close(
            average.average[name].double(), value, rtol=1e-5, atol=1e-6
        )  # float32, 12 roundings


def test_a_short_run_forgets_its_initial_weights():
    kept = 1.0
    for step in range(200):
        kept *= decay_at(step, 0.999)
    assert kept < 1e-9  # a fixed 0.999 would keep 82%


def test_swapping_exchanges_storage_and_comes_back_after_an_error():
    model = ToyNet()
    average = Average(model, decay=0.9)
    weight = model.layers[0].weight
    weight.data.add_(1.0)
    raw, averaged = weight.data_ptr(), average.average["layers.0.weight"].data_ptr()
    before = weight.detach().clone()
    try:
        with average.swapped_in():
            assert (weight.data_ptr(), average.average["layers.0.weight"].data_ptr()) == (
                averaged,
                raw,
            )
            raise KeyError
    except KeyError:
        pass
    assert weight.data_ptr() == raw
    assert torch.equal(weight, before)
