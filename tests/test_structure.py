"""The rules of the house: what imports what, how long things may be, one name for one thing.

Each test collects all that is wrong, so that one run shows the whole list; every line names place and remedy."""
import ast, re
from functools import lru_cache
from pathlib import Path
from statistics import median
import nbformat

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT/'ssd_nb'
FREE = ('00_tour', 'index') # notebooks that show everything and export nothing
WINGS = { # folder of notebooks: modules and packages that it exports
    '0_tools': 'letters errors files captions artists visualize images fields names',
    '1_boxes': 'boxes',
    '2_network': 'networks',
    '3_learning': 'learning',
    '4_detection': 'detection',
    '5_numbers': 'data_config config',
    '6_data': 'data',
    '7_frameworks': 'backends checkpoint weights',
    '8_training': 'training train report',
    '9_use': 'eval detector video predict export hub cli demo __main__ __init__'}
# functions may import these and say why
HEAVY = ('torch', 'mindspore', 'onnx', 'onnxruntime', 'tensorboardX', 'fcntl', 'msvcrt')
PAIR = ('backends.torch', 'backends.mindspore', 'backends.onnx') # backends: the same things, by the same names
DOORS = ('checkpoint', 'weights') # `load` of either opens a file; the second's takes a name, too
SEAM = ('make_session', 'join', 'launcher') # what `backends.session` asks of either
CELL, MEDIAN, MODULE, WIDTH = 30, 10, 300, 120 # lines of a cell, of the cell in the middle, of a module; characters
PRIVATE = re.compile(r'(?<![\w./])/(work|home|root|Users|tmp)/[\w.-]+') # paths of one machine

def notebooks() -> list[Path]:
    "All notebooks in the order of the book."
    return sorted((ROOT/'nbs').rglob('*.ipynb'))

@lru_cache(None)
def cells(path: Path) -> list[tuple[int, str, str]]:
    "Place, kind and source of the cells of a notebook."
    return [(k, c.cell_type, c.source) for k, c in enumerate(nbformat.read(path, 4).cells)]

def code_cells(path: Path) -> list[tuple[int, str]]:
    "Place and source of the code cells."
    return [(k, source) for k, kind, source in cells(path) if kind == 'code']

def exported_cells(path: Path) -> list[tuple[int, str]]:
    "Place and source of the cells that go into the library."
    return [(k, source) for k, source in code_cells(path) if re.search(r'^#\|\s*export', source, re.M)]

def code_lines(source: str) -> list[str]:
    "Lines of code, without blank lines and directives."
    return [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith('#|')]

def parsed(source: str) -> ast.Module:
    "A cell's code; lines for the shell and for IPython are passed over."
    return ast.parse(re.sub(r'^(\s*)[!%].*', r'\1pass', source, flags=re.M))

def module_of(path: Path) -> str | None:
    "The module that a notebook exports, e.g. boxes.coding."
    found = [re.search(r'^#\|\s*default_exp\s+(\S+)', source, re.M) for _, source in code_cells(path)]
    return next((m[1] for m in found if m), None)

def place(path: Path) -> tuple[str, str]:
    "Wing and number of a notebook: where it stands in the book."
    return path.parent.name.split('_')[0], path.name.split('_')[0]

def wing_of(module: str) -> str | None:
    "The wing that a module belongs to."
    return next((wing for wing, names in WINGS.items() if module.split('.')[0] in names.split()), None)

def book() -> list[Path]:
    "The notebooks that stand in a wing."
    return [p for p in notebooks() if p.stem not in FREE and p.parent.name in WINGS]

@lru_cache(None)
def homes() -> dict[str, Path]:
    "The notebook of each module."
    return {module: path for path in reversed(book()) if (module := module_of(path))}

def imported(tree: ast.AST, package: str = '') -> set[str]:
    "Modules of the library that a piece of code imports, such as boxes.coding; `package` is that of relative imports."
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): out |= {a.name for a in node.names}
        if isinstance(node, ast.Call) and ast.unparse(node.func) == 'later': # a module that is loaded when it is used
            out |= {a.value for a in node.args if isinstance(a, ast.Constant)}
        if not isinstance(node, ast.ImportFrom): continue
        up = package.split('.')[:len(package.split('.')) - node.level + 1] if node.level else []
        base = '.'.join([*up, *filter(None, [node.module])])
        out |= {base, *(f'{base}.{a.name}' for a in node.names)} # `from ssd_nb.data import mindrecord` names a module
    return {name.removeprefix('ssd_nb.') for name in out if name.startswith('ssd_nb.')} & set(homes())

@lru_cache(None)
def modules() -> dict[str, ast.Module]:
    "Every module of the library."
    files = [p for p in LIBRARY.rglob('*.py') if p.name not in ('__init__.py', '_modidx.py')]
    names = ['.'.join(p.relative_to(LIBRARY).with_suffix('').parts) for p in files]
    return {name: ast.parse(p.read_text(encoding='utf-8')) for name, p in zip(names, files)}

def package_of(module: str) -> str:
    "What a module's relative imports start from."
    return '.'.join(['ssd_nb', *module.split('.')[:-1]])

def local(path: Path) -> str:
    "A file's name in messages."
    return str(path.relative_to(ROOT))

def agree(complaints: list[str]) -> None:
    "Nothing to complain of, or everything at once."
    assert not complaints, '\n' + '\n'.join(complaints)

def test_notebooks_export_into_their_wing():
    wrong = {p: m for p in book() if (m := module_of(p)) and wing_of(m) != p.parent.name}
    agree([f'{local(p)}: exports {m}, which is of wing {wing_of(m)}; move the notebook, or name the module in WINGS'
           for p, m in wrong.items()])

def test_library_imports_from_wings_above():
    def wing(module): return homes()[module].parent.name
    pairs = [(name, other) for name, tree in modules().items() for other in sorted(imported(tree, package_of(name)))]
    wrong = [(a, b) for a, b in pairs if wing(b) > wing(a)]
    agree([f'ssd_nb.{a}: imports {b} of the later wing {wing(b)}; move what it needs into {wing(a)} or before'
           for a, b in wrong])

def test_notebooks_import_from_those_before():
    complaints = []
    for path in book():
        for k, source in code_cells(path):
            others = sorted(imported(parsed(source)) - {module_of(path)})
            later = [m for m in others if place(homes()[m]) >= place(path)]
            complaints += [f'{local(path)} cell {k}: imports {m} of the later {local(homes()[m])}; '
                           'use what is known so far, or move the cell' for m in later]
    agree(complaints)

def test_library_has_no_import_circle():
    needs = {name: imported(tree, package_of(name)) - {name} for name, tree in modules().items()}
    while free := [name for name, others in needs.items() if not others & set(needs)]:
        for name in free: del needs[name]
    circle = {name: ', '.join(sorted(others & set(needs))) for name, others in needs.items()}
    agree([f'ssd_nb.{name}: imports {others} in a circle; one must do without' for name, others in circle.items()])

def test_modules_are_short():
    files = [p for p in LIBRARY.rglob('*.py') if p.name != '_modidx.py']
    lengths = {p: len(p.read_text(encoding='utf-8').splitlines()) for p in files}
    agree([f'{local(p)}: {n} lines, more than {MODULE}; split its notebook' for p, n in lengths.items() if n > MODULE])

def test_exported_cells_are_short():
    lengths = {(p, k): len(code_lines(source)) for p in notebooks() for k, source in exported_cells(p)}
    agree([f'{local(p)} cell {k}: {n} lines, more than {CELL}; split it' for (p, k), n in lengths.items() if n > CELL])
    middle = median(lengths.values())
    assert middle <= MEDIAN, f'the exported cell in the middle has {middle} lines; split the long ones'

def test_lines_are_short():
    sources = {f'{local(p)} cell {k}': source for p in notebooks() for k, source in code_cells(p)}
    files = [p for folder in ('tests', 'scripts') for p in sorted((ROOT/folder).iterdir()) if p.is_file()]
    sources |= {local(p): p.read_text(encoding='utf-8') for p in files}
    complaints = []
    for where, source in sources.items():
        long = [(n, len(line)) for n, line in enumerate(source.splitlines(), 1) if len(line) > WIDTH]
        complaints += [f'{where} line {n}: {length} characters; break it, or name a part' for n, length in long]
    agree(complaints)

def blocks(tree: ast.AST) -> list[list[ast.stmt]]:
    "Every list of statements in a piece of code."
    found = [getattr(node, name, None) for node in ast.walk(tree) for name in ('body', 'orelse', 'finalbody')]
    return [part for part in found if isinstance(part, list)]

def test_one_statement_a_line():
    complaints = []
    for path in book():
        for k, source in exported_cells(path):
            pairs = [pair for block in blocks(parsed(source)) for pair in zip(block, block[1:])]
            doubled = [second.lineno for first, second in pairs if first.end_lineno == second.lineno]
            complaints += [f'{local(path)} cell {k} line {n}: two statements; give each its line' for n in doubled]
    agree(complaints)

def public(tree: ast.Module) -> list[str]:
    "Names of the functions and classes that a module shows; every command has a `main`."
    names = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    return [name for name in names if not name.startswith('_') and name != 'main']

def test_one_name_one_thing():
    where = {}
    for module, tree in modules().items():
        for name in public(tree):
            if module in PAIR and name in SEAM or module in DOORS and name == 'load': continue
            where.setdefault(name, {}).setdefault('the backends' if module in PAIR else module)
    agree([f'{name}: exported by {" and ".join(places)}; rename one, or let one take the other\'s; '
           'a new backend belongs into PAIR of this test'
           for name, places in where.items() if len(places) > 1])

def test_functions_import_nothing():
    "But what is heavy, where a comment says why; optional packages go through `errors.optional`."
    complaints = []
    for module, tree in modules().items():
        path = (LIBRARY/Path(*module.split('.'))).with_suffix('.py')
        lines = path.read_text(encoding='utf-8').splitlines()
        functions = [f for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef))]
        inside = {node for function in functions for node in ast.walk(function)}
        for node in [n for n in inside if isinstance(n, (ast.Import, ast.ImportFrom))]:
            names = [node.module or ''] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            heavy = all(set(name.split('.')) & set(HEAVY) for name in names)
            if not (heavy and '#' in lines[node.lineno - 1]):
                complaints.append(f'{local(path)} line {node.lineno}: imports {", ".join(names)} in a function; '
                                  'move it to the top, use errors.optional, or say in a comment why it is loaded here '
                                  '(a framework that is in HEAVY of this test)')
    agree(complaints)

def test_notebooks_name_no_machine():
    complaints = []
    for path in notebooks():
        for k, _, source in cells(path):
            complaints += [f'{local(path)} cell {k}: {found[0]} is on one machine only; use a path that a reader has'
                           for found in PRIVATE.finditer(source)]
    agree(complaints)

LINK = re.compile(r'\]\(((?!https?:)[^)#\s]+)') # of markdown, but for those that lead out of the book

def test_links_lead_somewhere():
    complaints = []
    for path in notebooks():
        for k, kind, source in cells(path):
            links = [found[1] for found in LINK.finditer(source)] if kind == 'markdown' else []
            complaints += [f'{local(path)} cell {k}: the link to {link} leads nowhere; name the file as it is now'
                           for link in links if not (path.parent/link).exists()]
    agree(complaints)

def test_text_files_are_opened_as_utf8():
    "Whatever the language of the machine."
    complaints = []
    for module, tree in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and opens_text(node) and 'encoding' not in {k.arg for k in node.keywords}:
                what = f'ssd_nb.{module} line {node.lineno}: {ast.unparse(node.func)}'
                complaints.append(f"{what}: give encoding='utf-8'")
    agree(complaints)

def opens_text(call: ast.Call) -> bool:
    "Whether a call is `open` in a text mode, `read_text` or `write_text`."
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, 'attr', '')
    if name in ('read_text', 'write_text'): return True
    mode = call.args[1] if len(call.args) > 1 else ast.Constant('r')
    if not (isinstance(call.func, ast.Name) and name == 'open'): return False
    return isinstance(mode, ast.Constant) and 'b' not in mode.value
