"The command that compares starts of a training: its flags are flags, and what is in the table is not measured again."
from __future__ import annotations
import runpy
import sys
from pathlib import Path
import pytest
from ssd_nb.config import config_from_args
from ssd_nb.train import train_parser

SCRIPT = Path(__file__).resolve().parent.parent/'scripts'/'transfer.py'

@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent)) # as for a command, whose folder is searched first
    return runpy.run_path(str(SCRIPT))

def test_every_start_is_a_configuration(script):
    for flags, rate in script['STARTS'].values():
        line = [*script['SAME'].split(), '--voc_root', 'BCCD', *flags.split(), '--lr', rate]
        cfg = config_from_args(train_parser().parse_args(line))
        assert cfg.network == 'mobilenet_v2_openimages' and cfg.class_num == 4 and not cfg.run_eval

def test_rows_of_the_table_are_not_measured_again(script, tmp_path, monkeypatch, capsys):
    "And test is looked at unless a choice is to be made."
    asked, table = [], tmp_path/'rows.csv'
    def measured(flags, splits):
        asked.append((flags, splits))
        return {name: dict(AP=.25, AP50=.5) for name in ('standard', 'reference')}
    monkeypatch.setitem(script['main'].__globals__, 'measure', measured)
    command = ['transfer.py', '--voc_root', 'BCCD', '--seeds', '1,2', '--table', str(table), '--lr', '.02']
    for more, trainings in ([], 6), ([], 0), (['--choose', '--only', 'openimages'], 2):
        asked.clear()
        monkeypatch.setattr(sys, 'argv', [*command, *more])
        script['main']()
        assert len(asked) == trainings
    assert asked[0][1] == ('train', 'val') and asked[0][0][-2:] == ['--lr', '.02']
    rows = script['rows_of'](table)
    assert len(rows) == 2*8 and {row['judged'] for row in rows} == {'test', 'val'}
