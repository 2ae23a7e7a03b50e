"The contract of a backend, options included, for each framework."
import pytest
from ssd_nb.backends.contract import check_options, check_session

@pytest.mark.parametrize('check', [check_session, check_options])
def test_contract(backend, check): check(backend)
