import numpy as np
import pytest


@pytest.fixture
def rng():
    """Fresh random numbers; a failing test shows the seed that they came from."""
    seed = np.random.SeedSequence().entropy
    print(f"np.random.default_rng({seed})")
    return np.random.default_rng(seed)
