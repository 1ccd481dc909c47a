"""Selection of the best setting from measurements."""

import pytest

from torchserve_models.loadgen import LoadStatistics
from torchserve_models.tuning import TuningError
from torchserve_models.tuning.selection import BatchSetting, Trial, list_settings, select_best


def make_trial(size, p50, rate, workers=1, errors=None, max_batch=None):
    def summary(rate, p50):
        return LoadStatistics(rate, p50, p50, p50, errors or {}, 0.0, 100, 0.0)

    return Trial(BatchSetting(size, workers, max_batch), {1: summary(50, p50), 32: summary(rate, 100)})


@pytest.mark.parametrize(
    ("trials", "selected"),
    [
        pytest.param([(1, 10, 80), (4, 10, 100), (8, 10, 90)], BatchSetting(4), id="fastest"),
        pytest.param([(2, 10, 98), (4, 10, 100), (8, 10, 99)], BatchSetting(2), id="smallest batch"),
        pytest.param([(2, 10, 92), (4, 10, 100)], BatchSetting(4), id="too slow"),
        pytest.param([(4, 10, 100, 2), (4, 10, 99)], BatchSetting(4), id="fewest workers"),
        pytest.param([(4, 10, 100, 2), (8, 10, 95)], BatchSetting(8), id="workers before batch size"),
        pytest.param(
            [(2, 20, 80), (4, 23.1, 200)], BatchSetting(2), id="lone request slower by more than 3 ms"
        ),
        pytest.param(
            [(2, 20, 80), (4, 22.9, 200)], BatchSetting(4), id="lone request slower by less than 3 ms"
        ),
        pytest.param([(8, 10, 200, 1, {"HTTP 503": 1}), (1, 10, 50)], BatchSetting(1), id="errors"),
        pytest.param([(4, 10, 100), (4, 10, 102, 1, None, 2)], BatchSetting(4), id="max_batch without gain"),
        pytest.param(
            [(4, 10, 100), (4, 10, 110, 1, None, 2)], BatchSetting(4, 1, 2), id="max_batch with gain"
        ),
    ],
)
def test_cheapest_of_the_fastest_settings_is_selected(trials, selected):
    assert select_best([make_trial(*trial) for trial in trials]).setting == selected


@pytest.mark.parametrize(("p50", "batch_size"), [(499, 4), (501, 2)])
def test_single_text_request_may_be_25_percent_slower(p50, batch_size):
    trials = [make_trial(2, 400, 80), make_trial(4, p50, 200)]
    assert select_best(trials, texts=True).setting.batch_size == batch_size


def test_failed_trial_is_not_selected():
    failed = Trial(BatchSetting(16), {}, "out of memory")
    assert select_best([failed, make_trial(1, 10, 50)]).setting == BatchSetting(1)
    with pytest.raises(TuningError, match="was not changed"):
        select_best([failed])


def test_number_of_workers_is_limited_by_cores():
    assert {setting.workers for setting in list_settings(1)} == {1}
    assert {setting.workers for setting in list_settings(2)} == {1, 2}
