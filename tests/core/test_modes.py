"""`evaluation_mode`: no dropout within, everything as it was afterwards."""

import pytest
from torch import nn

from ftlib.core.modes import evaluation_mode


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("fails", [False, True])
def test_each_module_gets_its_own_mode_back(fails):
    """A part that is kept in evaluation mode, such as a frozen one without dropout, stays so;
    `model.train(True)` would set it too.
    """
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2)))
    model.train()
    model[1].eval()
    before = modes(model)
    try:
        with evaluation_mode(model) as same:
            assert same is model and not any(modes(model))
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert modes(model) == before == [True, True, False, False, False]
