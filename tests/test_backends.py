"The contract of a backend, options included, for each framework."
import pytest
from ssd_nb.backends.contract import SMALL, check_place, check_session
from ssd_nb.backends.options import check_options
from ssd_nb.backends.session import make_session

@pytest.mark.parametrize('check', [check_session, check_options])
def test_contract(backend, check): check(backend)

class Turned:
    "A session that takes rows for columns."
    def __init__(self, session): self.session = session

    def train_step(self, batch, lr): return self.session.train_step(batch, lr)

    def predict(self, images): return self.session.predict(images.swapaxes(1, 2).copy())

def test_rows_are_not_taken_for_columns(backend):
    def turned(cfg): return Turned(make_session(backend, cfg, device='cpu'))
    with pytest.raises(AssertionError, match='rows before columns'): check_place(turned, SMALL)
