"""The course: what the concept path promises a reader.

The path is what stands in the index. Everything else of parts 1 to 4 is a side road, which keeps the same rules but
for the length of the text. The other wings keep two of them: names are shown at work, and exercises are solved."""
import ast, re
from collections import Counter
from functools import lru_cache
from pathlib import Path
import pytest
from test_glossary import entries, names
from test_structure import cells, code_cells, exported_cells, local, parsed

NBS = Path(__file__).resolve().parent.parent/'nbs'
WORDS = 14_000 # of the concept path
FOREIGN = r'YAML|argv|EXIF|XML|MindRecord|tokeni[sz]e' # plumbing, which the concept path does without
FOLDED = re.compile(r'<details>.*?</details>', re.DOTALL)
QUESTION = re.compile(r'^\*\*\d\. ', re.MULTILINE)
EXERCISE = re.compile(r'^\*\*(\d)\.\*\* ', re.MULTILINE)

@lru_cache(None)
def concept_path() -> list[Path]:
    "The notebooks of the path in the order of reading, from the index."
    text = next(source for _, kind, source in cells(NBS/'index.ipynb') if 'The concept path, in order' in source)
    part = text.split('The concept path, in order', 1)[1].split('\n\n', 2)[1]
    return tuple(NBS/link for link in re.findall(r'^\d+\. \[.*?\]\(([\w/]+\.ipynb)\)', part, re.MULTILINE))

def course() -> list[Path]:
    "The tour and parts 1 to 4 without the gallery of other networks, in the order of the book."
    found = [NBS/'00_tour.ipynb', *sorted(NBS.glob('[1-4]_*/*.ipynb'))]
    return [p for p in found if p.parent.name != '2_network' or p in concept_path()] # not the gallery of networks

def book() -> list[Path]:
    "The tour and every notebook of a part, in the order of the book."
    return [NBS/'00_tour.ipynb', *sorted(NBS.glob('[0-9]_*/*.ipynb'))]

def texts(path: Path) -> list[str]:
    "The text cells of a notebook."
    return [source for _, kind, source in cells(path) if kind == 'markdown']

def read_at_first(path: Path) -> str:
    "The text of a notebook, without what is folded and without the sections that say `(skip at first)`."
    kept, skipped = [], 0 # the level of the heading whose section is skipped
    for line in FOLDED.sub('', '\n\n'.join(texts(path))).splitlines():
        level = len(line) - len(line.lstrip('#')) if line.startswith('#') else 0
        if level and level <= (skipped or 9): skipped = level if '(skip at first)' in line.lower() else 0
        if not skipped: kept.append(line)
    return '\n'.join(kept)

def words(text: str) -> int:
    "Words that a person reads: a link counts by its text, a formula or a piece of code as one."
    text = re.sub(r'\]\([^)]*\)', ']', text)
    text = re.sub(r'\$\$?[^$]*\$\$?|`[^`]*`', ' x ', text)
    return sum(bool(re.search('[A-Za-z]', word)) for word in text.split())

def agree(complaints: list[str]) -> None:
    "Nothing to complain of, or everything at once."
    assert not complaints, '\n' + '\n'.join(complaints)

def test_the_concept_path_is_an_afternoon():
    counts = {local(p): words(read_at_first(p)) for p in concept_path()}
    total = sum(counts.values())
    assert total <= WORDS, f'{total} words, more than {WORDS}: {counts}'

def test_the_concept_path_goes_through_parts_1_to_4():
    path = concept_path()
    assert path[0].name == '00_tour.ipynb' and list(path) == sorted(path, key=lambda p: (p.parent != NBS, str(p)))
    assert {p.parent.name[0] for p in path[1:]} == set('1234')

def test_the_concept_path_has_no_plumbing():
    found = {local(p): re.findall(rf'\b(?:{FOREIGN})\b', source) for p in concept_path() for _, _, source in cells(p)}
    agree([f'{name}: {", ".join(words)}; leave it to the later parts' for name, words in found.items() if words])

def exported_names(path: Path) -> list[str]:
    "Public functions, classes and constants that a notebook exports."
    out = []
    for _, source in exported_cells(path):
        for node in parsed(source).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)): out.append(node.name)
            targets = node.targets if isinstance(node, ast.Assign) else []
            out += [t.id for t in targets if isinstance(t, ast.Name)]
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name): out.append(node.target.id)
    return [name for name in out if not name.startswith('_')]

def used_names(path: Path) -> set[str]:
    "Every name and attribute in the cells that a reader sees and the library does not take."
    exported, out = dict(exported_cells(path)), set()
    for k, source in code_cells(path):
        if k in exported or re.search(r'^#\|\s*hide\s*$', source, re.MULTILINE): continue
        for node in ast.walk(parsed(source)):
            if isinstance(node, ast.Name): out.add(node.id)
            if isinstance(node, ast.Attribute): out.add(node.attr)
            if isinstance(node, ast.alias): out.add(node.name)
    return out

@pytest.mark.parametrize('path', book(), ids=lambda p: p.stem)
def test_every_exported_name_is_shown_at_work(path):
    missing = sorted({*exported_names(path)} - used_names(path))
    agree([f'{local(path)}: {name} is exported and no visible cell uses it; add a small example' for name in missing])

@pytest.mark.parametrize('path', book(), ids=lambda p: p.stem)
def test_every_exercise_has_a_solution_that_runs(path):
    "At least two in the course; as many as there are elsewhere."
    text = '\n'.join(texts(path))
    numbers, announced = EXERCISE.findall(text), re.search(r'^(#+ |\*\*)Exercise', text, re.MULTILINE)
    least = 2 if path in course() else 1 if announced else 0
    solved = [n for _, source in code_cells(path) for n in re.findall(r'^# Solution (\d)', source, re.MULTILINE)]
    assert len(numbers) >= least, f'{local(path)}: {len(numbers)} exercises; each begins a line with **1.**'
    assert sorted(numbers) == sorted(solved), f'{local(path)}: exercises {numbers}, solutions that run {solved}'

def quiz(path: Path) -> list[str]:
    "The questions of a notebook with their folded answers."
    parts = QUESTION.split('\n'.join(texts(path)))
    return [part for part in parts[1:] if '(a)' in part and '(c)' in part]

@pytest.mark.parametrize('path', concept_path(), ids=lambda p: p.stem)
def test_three_questions_whose_wrong_answers_are_explained(path):
    questions = quiz(path)
    assert len(questions) >= 3, f'{local(path)}: {len(questions)} questions with answers (a) to (c)'
    for question in questions:
        answer = FOLDED.search(question)
        assert answer, f'{local(path)}: no folded answer to {question[:60]!r}'
        missing = [x for x in ('(a)', '(b)', '(c)') if x not in answer[0]]
        assert not missing, f'{local(path)}: the answer to {question[:60]!r} says nothing of {missing}'

def test_no_letter_is_right_too_often():
    "An answer begins with the letter that is right; over the path no letter is right in more than half of them."
    answers = [FOLDED.search(question)[0] for path in concept_path() for question in quiz(path)]
    letters = [re.search(r'</summary>\s*\(([abc])\)', answer) for answer in answers]
    agree([f'an answer begins without its letter: {answer}' for answer, found in zip(answers, letters) if not found])
    counts = Counter(found[1] for found in letters)
    assert max(counts.values()) <= len(letters)/2, f'right answers: {dict(counts)}; permute the choices'

PLAIN = ('negative', 'duplicate', 'class', 'label', 'detection', 'score', 'scale', 'cell', 'step', 'weight', 'crop',
         'shortcut')

def says(text: str, name: str) -> bool:
    "Whether a text has a name as a word of its own."
    return re.search(rf'(?<![\w-]){re.escape(name)}(s|es)?(?![\w-])', text, re.IGNORECASE) is not None

def test_no_term_comes_before_its_introduction():
    "But for everyday words, and where a link leads to the introduction."
    complaints = []
    for entry in entries():
        home, wanted = NBS/entry['link'], [name for name in names(entry) if name not in PLAIN]
        for path in concept_path():
            if path == home: break
            text = read_at_first(path)
            plain = re.sub(r'`[^`]*`|\]\([^)]*\)', '', text) # without code and the addresses of links
            early = [name for name in wanted if says(plain, name)]
            if early and home.name not in text:
                complaints.append(f'{local(path)}: {early[0]} is explained in {entry["link"]}; say it in other words, '
                                  'link that notebook, or let the glossary name this one')
            if early: break
    agree(complaints)

def test_the_questions_for_cold_readers_have_answers():
    "Twenty of each; an answer names notebooks of the path."
    numbers = {}
    for name in ('questions', 'answers'):
        text = (Path(__file__).parent/'reading'/f'{name}.md').read_text(encoding='utf-8')
        numbers[name] = re.findall(r'^(\d+)\. (.+)$', text, re.MULTILINE)
    assert [n for n, _ in numbers['questions']] == [n for n, _ in numbers['answers']] == [str(n) for n in range(1, 21)]
    homes = {stem for _, answer in numbers['answers'] for stem in re.search(r'\[(.+)\]$', answer)[1].split(', ')}
    assert homes <= {p.stem for p in concept_path()}
