"The glossary: every term once, in order, and found in the notebook that it names."
import re
from functools import lru_cache
from pathlib import Path
import nbformat

NBS = Path(__file__).resolve().parent.parent/'nbs'
ENTRY = re.compile(r'^- \*\*(?P<term>.+?)\*\*(?: \((?P<also>[^)]+)\))?: (?P<text>.+) → \[.+?\]\((?P<link>\S+)\)$')

@lru_cache(None)
def source(path: Path) -> str:
    "All text and code of a notebook; a term may go over the end of a line."
    return ' '.join(' '.join(c.source for c in nbformat.read(path, 4).cells).split())

def contains(path: Path, name: str) -> bool:
    "Whether a notebook has a name as a word of its own, perhaps in the plural."
    return re.search(rf'(?<!\w){re.escape(name)}(s|es)?(?!\w)', source(path), re.IGNORECASE) is not None

def lines() -> list[str]:
    "The lines of the glossary that are entries, or try to be."
    cells = nbformat.read(NBS/'99_glossary.ipynb', 4).cells
    return [line for c in cells for line in c.source.splitlines() if line.startswith('- ')]

def entries() -> list[dict]:
    "The entries by their parts: term, also, text, link."
    found = {line: ENTRY.match(line) for line in lines()}
    wrong = [line for line, entry in found.items() if not entry]
    assert not wrong, 'not of the form "- **term** (other names): text → [notebook](file)":\n' + '\n'.join(wrong)
    return [entry.groupdict() for entry in found.values()]

def names(entry: dict) -> list[str]:
    "A term and its other names."
    return [entry['term'], *(entry['also'] or '').split(', ')] if entry['also'] else [entry['term']]

def test_terms_are_sorted():
    terms = [entry['term'] for entry in entries()]
    assert len(terms) > 50
    assert terms == sorted(terms, key=str.lower)

def test_no_name_comes_twice():
    found = [name.lower() for entry in entries() for name in names(entry)]
    assert sorted(found) == sorted(set(found))

def test_each_link_leads_to_a_notebook_with_the_term():
    wrong = []
    for entry in entries():
        path = NBS/entry['link']
        if not path.exists(): wrong.append(f'{entry["term"]}: there is no {entry["link"]}')
        elif not any(contains(path, name) for name in names(entry)):
            wrong.append(f'{entry["term"]}: {entry["link"]} does not contain {" or ".join(names(entry))}')
    assert not wrong, '\n' + '\n'.join(wrong)
