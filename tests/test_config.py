"The configuration as users meet it: flags, YAML, presets."
import subprocess, sys
import pytest
from hypothesis import given, settings, strategies as st
from ssd_nb.config import GROUPS, PRESETS, SSDConfig, config_from_args, make_config, make_parser, parse_yaml, to_yaml
from ssd_nb.errors import ConfigError
from ssd_nb.fields import own_fields

@pytest.mark.parametrize('name', PRESETS)
def test_yaml_restores_an_equal_configuration(name):
    cfg = SSDConfig.preset(name, lr=1e-5)
    assert make_config(parse_yaml(to_yaml(cfg))) == cfg and hash(make_config(parse_yaml(to_yaml(cfg)))) == hash(cfg)

def test_flags_go_over_yaml_over_preset(tmp_path):
    (tmp_path/'my.yaml').write_text('lr: 0.02\nbatch_size: 8\n')
    args = make_parser('x', 'y').parse_args(['--preset', 'tiny', '--config', str(tmp_path/'my.yaml'), '--lr', '0.03'])
    cfg = config_from_args(args)
    assert (cfg.image_size, cfg.batch_size, cfg.lr) == (128, 8, .03)

@pytest.mark.parametrize('flag, message', [('--bach_size=8', 'did you mean --batch_size?'),
                                           ('--learning_rte', 'unknown argument')])
def test_misspelt_flags_are_refused(flag, message, capsys):
    with pytest.raises(SystemExit) as e: make_parser('x', 'y').parse_args([flag])
    assert e.value.code == 2 and message in capsys.readouterr().err

@pytest.mark.parametrize('text, message', [('bach_size: 8', 'did you mean batch_size?'), ('- 1', 'name: value'),
                                           ('a: [', 'not YAML'), ('lr: fast', 'lr:')])
def test_bad_yaml_is_refused_with_the_file(text, message, tmp_path):
    (tmp_path/'my.yaml').write_text(text)
    args = make_parser('x', 'y').parse_args(['--config', str(tmp_path/'my.yaml')])
    with pytest.raises(ConfigError, match=message.replace('?', r'\?')): config_from_args(args)

NAMES = ['lr', 'batch_size', 'steps', 'classes', 'run_eval', 'image_shape', 'min_score', 'aspect_ratios', 'bipartite']
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
                   st.lists(st.integers(), max_size=7))

@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_any_value_is_taken_or_refused_by_name(values):
    try: cfg = make_config(values)
    except ConfigError as e: assert str(e).split(':')[0] in {*values, 'class_num'}
    else: assert make_config(parse_yaml(to_yaml(cfg))) == cfg

@pytest.mark.parametrize('module', ['train', 'eval'])
def test_help_teaches_what_matters_to_a_command(module):
    command = [sys.executable, '-m', f'ssd_nb.{module}', '--help']
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ('--coco_root', '--batch_size', '--protocol', '--backend'): assert name in out
    for name in ('--lr ', '--class_num '): assert (name in out) == (module == 'train') # a checkpoint knows its classes

def parsed(*flags):
    return config_from_args(make_parser('x', 'y').parse_args(list(flags)))

def test_a_rule_follows_the_protocol_until_it_is_given():
    assert parsed().bipartite is None and parsed().rules.bipartite is True
    assert parsed('--protocol', 'reference').rules.bipartite is False
    assert parsed('--bipartite', 'false').rules.bipartite is False
    assert parsed('--protocol', 'reference', '--bipartite', 'true').rules.bipartite is True
    assert parsed('--bipartite').rules.bipartite is True # a switch by itself means true
    assert parsed('--bipartite', 'none', '--protocol', 'reference').rules.bipartite is False

def test_min_score_none_follows_the_protocol(tmp_path):
    standard, reference = SSDConfig().rules.min_score, SSDConfig(protocol='reference').rules.min_score
    assert parsed('--min_score', '.3').rules.min_score == .3
    assert parsed('--min_score', 'none').rules.min_score == standard != reference
    assert parsed('--min_score', 'none', '--protocol', 'reference').rules.min_score == reference
    (tmp_path/'my.yaml').write_text('min_score: 0.3\nbipartite: false\n')
    assert parsed('--config', str(tmp_path/'my.yaml'), '--min_score', 'none').rules.min_score == standard

RULES = [f for group in GROUPS for f in own_fields(group) if 'standard' in f.metadata]

@pytest.mark.parametrize('field', RULES, ids=lambda f: f.name)
def test_yaml_and_flags_restore_every_rule(field):
    for value in (None, field.metadata['standard'], field.metadata['reference']):
        cfg = SSDConfig(**{field.name: value})
        assert make_config(parse_yaml(to_yaml(cfg))) == cfg == parsed(f'--{field.name}', str(value))

@pytest.mark.parametrize('value', ['maybe', '2', ''])
def test_a_rule_that_is_neither_true_nor_false_is_refused(value):
    with pytest.raises(ConfigError, match='bipartite'): parsed('--bipartite', value)

def test_presets_of_other_sizes_differ_in_size_alone():
    for name, size in (('ssd320_mobilenet_v2', 320), ('ssd512_mobilenet_v2', 512)):
        cfg = SSDConfig.preset(name)
        assert cfg == SSDConfig(image_shape=(size, size), steps=())
        assert [m.step for m in cfg.maps][0] == 16

def test_steps_are_emptied_on_the_command_line():
    assert parsed('--image_shape', '512,512', '--steps', '').maps[-1].step == 512
