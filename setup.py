"Package metadata, read from settings.ini so that it stands in one place."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='])
config.read(here/'settings.ini', encoding='utf-8')
cfg = config['DEFAULT']

def listed(key): return cfg.get(key, '').split()

EXTRAS = ('torch', 'mindspore', 'tensorboard', 'export', 'sliders', 'weights', 'demo', 'book', 'dev')
extras = {name: listed(f'{name}_requirements') for name in EXTRAS}
readme = here/'README.md'
setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=listed('keywords'),
    author=cfg['author'], author_email=cfg['author_email'] or None, url=cfg['git_url'] or None,
    license='Apache-2.0',
    long_description=readme.read_text(encoding='utf-8') if readme.exists() else '', long_description_content_type='text/markdown',
    packages=find_packages(include=['ssd_nb', 'ssd_nb.*']), package_data={'ssd_nb': ['py.typed']},
    python_requires=f'>={cfg["min_python"]},<3.13',
    install_requires=listed('requirements'), extras_require=extras, zip_safe=False,
    entry_points={'console_scripts': listed('console_scripts'),
                  'nbdev': [f'{cfg["lib_name"]}={cfg["lib_path"]}._modidx:d']},
    classifiers=['Intended Audience :: Developers', 'Intended Audience :: Education', 'Intended Audience :: Science/Research',
                 'License :: OSI Approved :: Apache Software License', 'Natural Language :: English',
                 'Operating System :: POSIX :: Linux', *(f'Programming Language :: Python :: 3.{k}' for k in (10, 11, 12)),
                 'Topic :: Scientific/Engineering :: Image Recognition', 'Typing :: Typed'],
)
