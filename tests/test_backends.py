"The contract of a backend, options included, for each framework."
import pytest
from ssd_nb.backend import check_options, check_session

@pytest.mark.parametrize('check', [check_session, check_options])
@pytest.mark.parametrize('backend', ['torch', 'mindspore'])
def test_contract(backend, check):
    pytest.importorskip(backend)
    check(backend)
