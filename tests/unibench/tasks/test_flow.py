"""Flow in the report's and the viewer's pictures."""

import numpy as np

from openuni.modalities.flow import Flow
from unibench.tasks import Setup
from unibench.tasks.drawing import UNKNOWN
from unibench.tasks.flow import FlowTask


def test_a_pair_without_prediction_is_drawn_as_it_is_scored() -> None:
    """A pair that repeats a frame is NaN, which counts as no motion: where nothing moves that is not an error."""
    true = np.zeros((2, 8, 8, 2), np.float32)
    true[:, :, 4:, 0] = 2
    true[:, 0] = np.nan
    missing, still = Flow(np.full_like(true, np.nan)), Flow(np.zeros_like(true))
    shown, expected = (FlowTask().panels(found, Flow(true), 0, Setup())[-1].image for found in (missing, still))
    np.testing.assert_array_equal(shown, expected)
    assert not shown[1:, :4].any()
    assert (shown[0] == UNKNOWN).all()
