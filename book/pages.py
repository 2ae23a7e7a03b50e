"""The book's pages, made from the notebooks while mkdocs builds: one for each notebook, one for each module.

Nothing is executed: the outputs are those that the notebooks hold. A new notebook needs no entry anywhere."""
import ast, re
from base64 import b64decode
from functools import lru_cache
from pathlib import Path
import nbformat
from latex2mathml.converter import convert
from mkdocs.structure.files import File
from nbconvert.filters import strip_ansi

ROOT = Path(__file__).resolve().parent.parent
NBS, LIBRARY = ROOT/'nbs', ROOT/'ssd_nb'
TABS = {'Concept path': '1234', "Engineer's path": '56789', 'Tools': '0'} # numbers of the parts, in the order of tabs
TOP = {'CONTRIBUTING.md': 'contributing.md', 'CHANGELOG.md': 'changelog.md', 'CODE_OF_CONDUCT.md': 'code_of_conduct.md'}
CODE = re.compile(r'(```.*?```)', re.S) # a block of code in markdown
SPOKEN = re.compile(r'(<mi>(?:ln|log|exp|min|max)</mi>)(?=<m[in]>)') # functions without a bracket need a space
INLINE = re.compile(r'(?<!<pre>)<code>[^<]*</code>') # code in a sentence
FLAG = re.compile(r'--\w+') # of a command
NAME = re.compile(r'(?<![\[`])`(\w+)`(?![\]`])') # a name in prose

def notebooks() -> list[Path]:
    "The notebooks in the order of the book."
    return sorted(path for path in NBS.rglob('*.ipynb') if not path.name.startswith(('.', '_')))

def page_of(path: Path) -> str:
    "The page of a notebook, e.g. 1_boxes/02_coding.md."
    return path.relative_to(NBS).with_suffix('.md').as_posix()

def directive(name: str, source: str) -> str | None:
    "What follows `#| name` in a cell."
    found = re.search(rf'^#\|\s*{name}\b *:? *(.*)', source, re.M)
    return found[1] if found else None

@lru_cache(None)
def read(path: Path) -> tuple[list, str | None, str]:
    "Cells, module and title of a notebook."
    cells = nbformat.read(path, 4).cells
    module = next(filter(None, (directive('default_exp', c.source) for c in cells)), None)
    heads = [re.search(r'^# (.+)', c.source, re.M) for c in cells if c.cell_type == 'markdown']
    return cells, module, next((h[1] for h in heads if h), path.stem)

@lru_cache(None)
def sources() -> dict[str, Path]:
    "The notebook of each module, in the order of the book."
    return {module: path for path in notebooks() if (module := read(path)[1])}

def dotted(module: str) -> str:
    "A module's name as it is imported; `__init__` is the library itself."
    return 'ssd_nb' if module == '__init__' else f'ssd_nb.{module}'

@lru_cache(None)
def public() -> dict[str, str]:
    "The place of each public name of the library in the reference."
    places = {}
    for module in sources():
        tree = ast.parse((LIBRARY/f'{module.replace(".", "/")}.py').read_text(encoding='utf-8'))
        names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        for name in names: places.setdefault(name, f'{dotted(module)}.{name}')
    commands = {module.split('.')[0] for module in sources()} # `train` in prose is the command
    return {name: place for name, place in places.items() if name[0] != '_' and name not in commands | {'main'}}

def fenced(text: str, info: str) -> str:
    "A block of code."
    return f'```` {{{info}}}\n{text.rstrip()}\n````'

def prose(text: str) -> str:
    "Markdown of a notebook as markdown of a page: links, names, folded parts."
    def linked(found): # a public name leads to the reference
        place = public().get(found[1])
        return f'[`{found[1]}`][{place}]' if place else found[0]
    def plain(part):
        lines = re.sub('^<details>', '<details markdown="1">', part, flags=re.M).split('\n')
        lines = [line if line.startswith('#') else NAME.sub(linked, line) for line in lines]
        text = re.sub(r'\]\(([\w./]+)\.ipynb\b', r'](\1.md', '\n'.join(lines))
        for file, page_name in TOP.items(): text = text.replace(f'](../{file})', f']({page_name})')
        return text
    return ''.join(part if part.startswith('```') else plain(part) for part in CODE.split(text))

def code(source: str, module: str | None) -> str:
    "A code cell; the title of one that goes into the library says where."
    if any(directive(name, source) is not None for name in ('hide', 'hide_input', 'default_exp')): return ''
    shown = '\n'.join(line for line in source.split('\n') if not line.startswith('#|'))
    exported = module and directive('exporti?', source) is not None
    block = fenced(shown, f'.python title="ssd_nb/{module.replace(".", "/")}.py"' if exported else '.python')
    folded = imports_only(shown) or directive('code-fold', source) is not None
    summary = directive('code-summary', source) or ('Imports' if imports_only(shown) else 'Code')
    return f'<details markdown="1"><summary>{summary}</summary>\n\n{block}\n\n</details>' if folded else block

def imports_only(source: str) -> bool:
    "Whether a cell does nothing but import."
    return all(re.match(r'(from|import) |\s|#|\)|$', line) for line in source.split('\n'))

def output(out: dict, stem: str, pictures: dict[str, bytes]) -> str:
    "One output; a picture goes into `pictures` by a name that starts with `stem`."
    data = out.get('data', {'text/plain': out.get('text', '')})
    if 'text/markdown' in data: return prose(data['text/markdown'])
    for kind in ('png', 'jpeg'):
        if f'image/{kind}' in data:
            name = f'{stem}.{kind}'
            pictures[name] = b64decode(data[f'image/{kind}'])
            return f'![what the cell draws]({name})'
    return fenced(strip_ansi(data['text/plain']), '.text .output') if data['text/plain'].strip() else ''

def page(path: Path) -> tuple[str, dict[str, bytes]]:
    "Markdown and pictures of a notebook."
    cells, module, _ = read(path)
    parts, pictures = [], {}
    for k, cell in enumerate(cells):
        if cell.cell_type == 'markdown': parts.append(prose(cell.source))
        if cell.cell_type != 'code' or directive('hide', cell.source) is not None: continue
        parts.append(code(cell.source, module))
        parts += [output(out, f'{path.stem}-{k}-{n}', pictures) for n, out in enumerate(cell.outputs)]
    up = '../'*(len(path.relative_to(NBS).parts) - 1)
    reference = f' · reference: [{dotted(module)}]({up}reference/{module}.md)' if module else ''
    parts.append(f'---\nNotebook: [{path.relative_to(ROOT).as_posix()}]({path.name}){reference}')
    return '\n\n'.join(filter(None, parts)) + '\n', pictures

def reference(module: str) -> str:
    "The page of a module; mkdocstrings fills it."
    path = sources()[module]
    return f'# {dotted(module)}\n\nExplained in [{read(path)[2]}](../{page_of(path)}).\n\n::: {dotted(module)}\n'

def top(name: str) -> str:
    "A file of the repository's top as a page."
    text = (ROOT/name).read_text(encoding='utf-8')
    for file in TOP: text = text.replace(f']({file})', f'](../{file})')
    return prose(text.replace('](nbs/', ']('))

def sections(paths: list[Path], entry) -> list:
    "Navigation by parts: for each folder its entries."
    folders = dict.fromkeys(path.parent for path in paths)
    return [{folder.name.replace('_', ' '): [entry(p) for p in paths if p.parent == folder]} for folder in folders]

def on_config(config):
    "Navigation: a tab for the start, for each path, for the tools, for the reference."
    def entry(path): return {read(path)[2]: page_of(path)}
    def module_entry(path): return {read(path)[1]: f'reference/{read(path)[1]}.md'}
    free = sorted([p for p in notebooks() if p.parent == NBS], key=lambda p: p.stem != 'index')
    nav = [{'Start': [entry(p) for p in free] + [TOP[name] for name in TOP if (ROOT/name).exists()]}]
    for tab, parts in TABS.items():
        chosen = [p for p in notebooks() if p.parent.name[0] in parts and p.parent != NBS]
        nav.append({tab: sections(chosen, entry)})
    config.nav = [*nav, {'Reference': sections(list(sources().values()), module_entry)}]
    return config

def on_files(files, config):
    "Every page, without a file for it."
    def add(name, content): files.append(File.generated(config, name, content=content))
    for path in notebooks():
        text, pictures = page(path)
        add(page_of(path), text)
        folder = path.relative_to(NBS).parent
        for name, picture in pictures.items(): add((folder/name).as_posix(), picture)
    for module in sources(): add(f'reference/{module}.md', reference(module))
    for name, page_name in TOP.items():
        if (ROOT/name).exists(): add(page_name, top(name))
    for name in ('book.css', 'iframe-worker.js'): add(name, (ROOT/'book'/name).read_text(encoding='utf-8'))
    return files

def formula(found: re.Match) -> str:
    "A formula as MathML, which browsers draw by themselves."
    text = found[2].replace('&lt;', '<').replace('&gt;', '>').replace('&amp;', '&')
    drawn = convert(text.strip()[2:-2], display='block' if found[1] == 'div' else 'inline')
    drawn = SPOKEN.sub(r'\1<mspace width="0.17em" />', drawn)
    return f'<span class="long">{drawn}</span>' if found[1] == 'span' and len(text) > 40 else drawn

def on_page_content(html, **kwargs):
    "Formulas, after markdown has marked them; flags, which do not break after their hyphens."
    html = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', formula, html, flags=re.S)
    return INLINE.sub(lambda found: FLAG.sub(r'<span class="flag">\g<0></span>', found[0]), html)
