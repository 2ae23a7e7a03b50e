"Write README.md from nbs/index.ipynb: its markdown, its visible code and outputs. `--check` compares only."
import re, sys
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).resolve().parent.parent

def readme() -> str:
    "The text of README.md."
    nb = nbformat.read(root/'nbs/index.ipynb', as_version=4)
    nb.metadata['language_info'] = {'name': 'python'} # cleaning strips it; it names the language of the code blocks
    nb.cells = [c for c in nb.cells if not re.match(r'#\|\s*(hide|default_exp)', c.source)]
    for cell in nb.cells: cell.source = re.sub(r'^#\|.*\n', '', cell.source, flags=re.MULTILINE) # as the book shows it
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources['outputs']: raise SystemExit('nbs/index.ipynb: pictures belong into nbs/images, linked from markdown')
    # links are relative to nbs/ there, to the top here
    text = re.sub(r'\]\((images/|[\w/]+\.ipynb)', r'](nbs/\1', text.strip())
    return text.replace('](../', '](') + '\n'

if __name__ == '__main__':
    path = root/'README.md'
    if '--check' in sys.argv:
        same = path.exists() and path.read_text(encoding='utf-8') == readme()
        sys.exit(0 if same else 'README.md is not in step with nbs/index.ipynb: make readme')
    path.write_text(readme(), encoding='utf-8')
