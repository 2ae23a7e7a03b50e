"Learning rates: whatever the epochs and steps, they rise, then fall, and stay between their ends."
import numpy as np
from hypothesis import given, settings, strategies as st
from ssd_nb.config import SSDConfig
from ssd_nb.learning.schedule import learning_rates

@settings(deadline=None, max_examples=50)
@given(st.integers(1, 20), st.integers(1, 30), st.floats(0, 5))
def test_rates_stay_between_their_ends(epochs, steps, warmup):
    cfg = SSDConfig(epoch_size=epochs, warmup_epochs=warmup)
    rates = learning_rates(cfg, steps)
    assert len(rates) == epochs*steps and rates.min() >= cfg.lr*cfg.lr_end_rate*.999 and rates.max() <= cfg.lr*1.001
    top = min(int(warmup*steps), epochs*steps)
    assert (np.diff(rates[:top]) >= 0).all() and (np.diff(rates[top:]) <= 0).all()
