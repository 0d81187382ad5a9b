"""Keeps the chapters in order: `python tools/notebooks.py {setup,strip,run,check} [CHAPTER ...]`.

setup   writes the first code cell, the same in every chapter (see `setup_cell`)
strip   removes outputs, execution counts and editor's metadata, except from the compared cells
run     executes a chapter and stores the outputs of its compared cells, and of no others
check   says what is not in order; `make test` fails on it

The compared cells are those tagged `nbval-check-output`: nbval runs every cell and compares the
output of these with what is stored. A stored output elsewhere would only go stale, and a compared
cell without one would pass whatever it computes: so exactly the compared cells hold outputs.
"""
import argparse
import os
import re
import sys
import time
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parents[1]
COMPARED = 'nbval-check-output'
MIN_COMPARED = 5        # compared cells a chapter
SAID = '**You will learn**', '**You need**', '**Time**', '## Summary'   # in every chapter
# A cell that shows a figure, which then needs a number and a caption.
FIGURE = re.compile(r'^(style\.(show|describe)|figures\.\w+|comparison\.frontiers)\(', re.M)
SETUP = 'setup'
SETUP_SOURCE = """\
# Runs anywhere: installs boardlaw where it is missing, uses a GPU where there is one.
import importlib.util

if importlib.util.find_spec('boardlaw') is None:
    %pip install -q git+{url}@{branch}
import torch

device = 'cuda' if torch.cuda.is_available() else 'cpu'"""
METADATA = {'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
            'language_info': {'name': 'python'}}


def pages(root=ROOT):
    """The book's pages in order, as _toc.yml names them: paths without their extension."""
    def files(entry):
        if isinstance(entry, dict):
            yield from (entry[key] for key in ('root', 'file') if key in entry)
            for key in ('parts', 'chapters', 'sections'):
                yield from files(entry.get(key, []))
        else:
            for child in entry:
                yield from files(child)
    toc = yaml.safe_load((Path(root) / '_toc.yml').read_text('utf-8'))
    return [str(Path(page).with_suffix('')) if page.endswith(('.ipynb', '.md')) else page
            for page in files(toc)]


def chapters(root=ROOT):
    """The paths of the pages that are notebooks."""
    paths = [Path(root) / f'{page}.ipynb' for page in pages(root)]
    return [path for path in paths if path.exists()]


def setup_cell(root=ROOT):
    """The text of the first code cell, with the repository that _config.yml names."""
    repository = yaml.safe_load((Path(root) / '_config.yml').read_text('utf-8'))['repository']
    return SETUP_SOURCE.format(url=repository['url'], branch=repository['branch'])


def tags(cell):
    return cell.metadata.get('tags', [])


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def figure_names(notebook):
    """The names of its numbered figures, by which any chapter may refer to them."""
    figures = [cell.metadata.get('mystnb', {}).get('figure', {}) for cell in code(notebook)]
    return [figure['name'] for figure in figures if figure.get('name')]


def read(path):
    return nbformat.read(path, as_version=4)


def write(notebook, path):
    """Writes a notebook in place of the old one, or not at all."""
    temporary = path.with_name(path.name + '.new')
    nbformat.write(notebook, temporary)
    os.replace(temporary, path)


def set_up(notebook, source):
    """Gives `notebook` the setup cell `source`: in place of its old one, else below the title."""
    cell = next((cell for cell in code(notebook) if SETUP in tags(cell)), None)
    if cell is None:
        cell = nbformat.v4.new_code_cell()
        notebook.cells.insert(min(1, len(notebook.cells)), cell)
    cell.source = source
    cell.metadata = nbformat.from_dict({
        'tags': [SETUP, 'hide-input'],
        'mystnb': {'code_prompt_show': 'Set up', 'code_prompt_hide': 'Set up'}})


def strip(notebook):
    """Removes all that a run leaves behind, but for the outputs of the compared cells."""
    kept = {key: notebook.metadata[key] for key in ('accelerator',) if key in notebook.metadata}
    notebook.metadata = nbformat.from_dict(METADATA | kept)
    for cell in notebook.cells:
        for key in ('execution', 'collapsed', 'scrolled', 'jupyter', 'id', 'outputId', 'colab'):
            cell.metadata.pop(key, None)
    for cell in code(notebook):
        if COMPARED not in tags(cell):
            cell.outputs, cell.execution_count = [], None


def execute(notebook, folder, timeout=600):
    """Runs every cell of `notebook` in `folder`; an error in one ends it with an exception."""
    from nbclient import NotebookClient
    NotebookClient(notebook, timeout=timeout, kernel_name='python3',
                   resources={'metadata': {'path': str(folder)}}).execute()


def problems(notebook, source, min_compared=MIN_COMPARED):
    """What is not in order in `notebook`, whose first code cell should read `source`."""
    cells = code(notebook)
    if not cells or SETUP not in tags(cells[0]) or cells[0].source != source:
        yield 'the first code cell is not the setup cell: run `tools/notebooks.py setup`'
    prose = ''.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
    for words in SAID:
        if words not in prose:
            yield f'it does not say {words!r}'
    compared = [cell for cell in cells if COMPARED in tags(cell)]
    if len(compared) < min_compared:
        yield f'{len(compared)} cells are compared (tag {COMPARED}), fewer than {min_compared}'
    for cell in cells:
        name = repr(cell.source.partition('\n')[0])
        figure = cell.metadata.get('mystnb', {}).get('figure', {})
        if FIGURE.search(cell.source) and not (figure.get('name') and figure.get('caption')):
            yield f'{name} shows a figure that has no caption and name (metadata: mystnb, figure)'
        if cell in compared:
            if not cell.outputs or cell.execution_count is None:
                yield f'{name} is compared but has no stored output: run `tools/notebooks.py run`'
            if any(output.output_type == 'error' or 'image/' in str(output.get('data', {}).keys())
                   for output in cell.outputs):
                yield f'{name} is compared, but its output is an error or a picture, not text'
        elif cell.outputs or cell.execution_count is not None:
            yield f'{name} holds an output or a count: run `tools/notebooks.py strip`'
    if set(notebook.metadata) - {*METADATA, 'accelerator'}:
        yield 'its metadata is an editor\'s: run `tools/notebooks.py strip`'


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('command', choices=['setup', 'strip', 'run', 'check'])
    parser.add_argument('chapter', nargs='*', type=Path, help='default: all of _toc.yml')
    args = parser.parse_args(argv)
    failed, figures = False, {}
    if args.command == 'check' and not args.chapter:
        for path in sorted(set(ROOT.glob('book/*.ipynb')) - set(chapters())):
            print(f'{path.name}: is not in _toc.yml, so the book leaves it out')
            failed = True
    for path in args.chapter or chapters():
        notebook = read(path)
        if args.command == 'check':
            found = list(problems(notebook, setup_cell()))
            for name in figure_names(notebook):
                if name in figures:
                    found.append(f'the figure {name} has the name of one in {figures[name]}')
                figures[name] = path.name
            for problem in found:
                print(f'{path.name}: {problem}')
            failed = failed or bool(found)
            continue
        if args.command == 'setup':
            set_up(notebook, setup_cell())
        start = time.monotonic()
        if args.command == 'run':
            execute(notebook, path.parent)
        strip(notebook)
        write(notebook, path)
        print(f'{path.name}: {args.command} ({time.monotonic() - start:.0f} s)')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
