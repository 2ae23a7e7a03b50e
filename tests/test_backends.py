"The contract of a backend, options included, for each framework."
import pytest
from ssd_nb.backend import check_options, check_session
from ssd_nb.config import SSDConfig

SMALL = SSDConfig.preset('tiny', image_shape=(64, 64), class_num=4, features_1=((1,8,1,1), (6,16,1,2), (6,24,1,2)), features_2=((6,32,1,2),), last_channels=64,
                         extra_channels=(32,), extra_ratios=(.5,), steps=(8, 16, 32), aspect_ratios=((2,), (2,3), (2,3)), loss_scale=64.)

@pytest.mark.parametrize('check', [check_session, check_options])
@pytest.mark.parametrize('backend', ['torch', 'mindspore'])
def test_contract(backend, check):
    pytest.importorskip(backend)
    check(backend, SMALL)
