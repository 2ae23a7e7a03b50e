"The configuration as users meet it: flags, YAML, presets."
import subprocess, sys
import pytest
from hypothesis import given, settings, strategies as st
from ssd_nb.config import PRESETS, SSDConfig, config_from_args, make_config, make_parser, parse_yaml, to_yaml
from ssd_nb.errors import ConfigError

@pytest.mark.parametrize('name', PRESETS)
def test_yaml_restores_an_equal_configuration(name):
    cfg = SSDConfig.preset(name, lr=1e-5)
    assert make_config(parse_yaml(to_yaml(cfg))) == cfg and hash(make_config(parse_yaml(to_yaml(cfg)))) == hash(cfg)

def test_flags_go_over_yaml_over_preset(tmp_path):
    (tmp_path/'my.yaml').write_text('lr: 0.02\nbatch_size: 8\n')
    args = make_parser('x', 'y').parse_args(['--preset', 'tiny', '--config', str(tmp_path/'my.yaml'), '--lr', '0.03'])
    cfg = config_from_args(args)
    assert (cfg.image_size, cfg.batch_size, cfg.lr) == (128, 8, .03)

@pytest.mark.parametrize('flag, message', [('--bach_size=8', 'did you mean --batch_size?'), ('--learning_rte', 'unknown argument')])
def test_misspelt_flags_are_refused(flag, message, capsys):
    with pytest.raises(SystemExit) as e: make_parser('x', 'y').parse_args([flag])
    assert e.value.code == 2 and message in capsys.readouterr().err

@pytest.mark.parametrize('text, message', [('bach_size: 8', 'did you mean batch_size?'), ('- 1', 'name: value'), ('a: [', 'not YAML'), ('lr: fast', 'lr:')])
def test_bad_yaml_is_refused_with_the_file(text, message, tmp_path):
    (tmp_path/'my.yaml').write_text(text)
    args = make_parser('x', 'y').parse_args(['--config', str(tmp_path/'my.yaml')])
    with pytest.raises(ConfigError, match=message.replace('?', r'\?')): config_from_args(args)

@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(['lr', 'batch_size', 'steps', 'classes', 'run_eval', 'image_shape', 'min_score', 'aspect_ratios']),
                       st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=7))))
def test_any_value_is_taken_or_refused_by_name(values):
    try: cfg = make_config(values)
    except ConfigError as e: assert str(e).split(':')[0] in {*values, 'class_num'}
    else: assert make_config(parse_yaml(to_yaml(cfg))) == cfg

@pytest.mark.parametrize('module', ['train', 'eval'])
def test_help_teaches_every_parameter(module):
    out = subprocess.run([sys.executable, '-m', f'ssd_nb.{module}', '--help'], capture_output=True, text=True, check=True).stdout
    for name in ('--coco_root', '--batch_size', '--lr', '--protocol', '--class_num', '--backend'): assert name in out
