"""The tools that keep the book whole: each fault that they exist for is made, and must be found."""
import re
from pathlib import Path

import check_book
import nbformat
import notebooks
import pytest
import yaml
from nbformat import v4

ROOT = Path(__file__).resolve().parents[1]
SETUP = 'import torch'


def cell(source, compared=False, outputs=(), count=None, tags=()):
    tags = [*tags, notebooks.COMPARED] if compared else list(tags)
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=count,
                            metadata={'tags': tags})


def text(value):
    return v4.new_output('execute_result', {'text/plain': value}, execution_count=1)


@pytest.fixture
def chapter():
    """A chapter in order: the setup cell, a compared cell with its output, another without."""
    title = v4.new_markdown_cell('\n'.join(['# Title', *notebooks.SAID]))
    return v4.new_notebook(metadata=notebooks.METADATA, cells=[
        title, cell(SETUP, tags=[notebooks.SETUP]),
        cell('1 + 1', True, [text('2')], 2), cell('x = 3')])


def faults(chapter, min_compared=1):
    return ' '.join(notebooks.problems(chapter, SETUP, min_compared))


def test_a_chapter_in_order_has_no_problems(chapter):
    assert faults(chapter) == ''


@pytest.mark.parametrize('change, message', [
    (lambda cells: cells.pop(1), 'setup cell'),
    (lambda cells: cells[1].update(source='import numpy'), 'setup cell'),
    (lambda cells: cells[2].update(outputs=[]), 'no stored output'),
    (lambda cells: cells[2].update(execution_count=None), 'no stored output'),
    (lambda cells: cells[3].update(execution_count=4), 'holds an output'),
    (lambda cells: cells[3].update(outputs=[text('3')]), 'holds an output'),
    (lambda cells: cells[2].update(outputs=[v4.new_output('error')]), 'error or a picture'),
    (lambda cells: cells[2].update(outputs=[v4.new_output('display_data', {'image/png': ''})]),
     'error or a picture'),
    (lambda cells: cells[3].update(source="fig = 1\nstyle.show(fig, alt='words')"), 'no caption'),
    (lambda cells: cells[3].update(source='figures.frontiers(agents)'), 'no caption'),
    (lambda cells: cells[0].update(source='# Title'), "say '**Time**'"),
])
def test_every_fault_of_a_chapter_is_found(chapter, change, message):
    change(chapter.cells)
    assert message in faults(chapter)


def test_a_figure_with_a_caption_and_a_name_is_in_order(chapter):
    chapter.cells[3].update(source='figures.frontiers(agents)')
    chapter.cells[3].metadata['mystnb'] = {'figure': {'caption': 'The law.', 'name': 'fig-law'}}
    assert faults(chapter) == ''


def test_a_name_of_two_figures_is_found(chapter, tmp_path, capsys):
    chapter.cells[3].metadata['mystnb'] = {'figure': {'caption': 'The law.', 'name': 'fig-law'}}
    paths = [tmp_path/'one.ipynb', tmp_path/'two.ipynb']
    for path in paths:
        notebooks.write(chapter, path)
    assert notebooks.main(['check', *map(str, paths)]) == 1
    said = capsys.readouterr().out
    assert 'two.ipynb: the figure fig-law has the name of one in one.ipynb' in said


def test_too_few_compared_cells_and_an_editors_metadata_are_found(chapter):
    assert 'fewer than 2' in faults(chapter, min_compared=2)
    chapter.metadata['widgets'] = {}
    assert 'metadata' in faults(chapter)


def test_strip_leaves_only_what_is_compared(chapter):
    chapter.cells[3].update(outputs=[text('3')], execution_count=4)
    chapter.cells[2].metadata['execution'] = {'iopub.status.busy': 'now'}
    chapter.metadata['colab'] = {'provenance': []}
    chapter.metadata['accelerator'] = 'GPU'
    notebooks.strip(chapter)
    assert faults(chapter) == ''
    assert chapter.cells[2].outputs == [text('2')]
    assert chapter.metadata['accelerator'] == 'GPU'


def test_set_up_adds_one_cell_below_the_title_and_then_renews_it(chapter):
    del chapter.cells[1]
    for source in ('old', SETUP):
        notebooks.set_up(chapter, source)
    assert [c.source for c in chapter.cells[1:]] == [SETUP, '1 + 1', 'x = 3']
    assert faults(chapter) == ''


def test_run_stores_what_compared_cells_print(chapter, tmp_path):
    chapter.cells[1].source = 'a = 20'
    chapter.cells[2].update(source='a + 1', outputs=[], execution_count=None)
    notebooks.execute(chapter, tmp_path)
    notebooks.strip(chapter)
    assert [c.outputs[0].data['text/plain'] for c in chapter.cells[1:] if c.outputs] == ['21']
    notebooks.write(chapter, tmp_path / 'chapter.ipynb')
    assert nbformat.read(tmp_path / 'chapter.ipynb', 4).cells[2].outputs[0].data == {
        'text/plain': '21'}


def test_pages_come_in_the_order_of_the_table_of_contents(tmp_path):
    (tmp_path / '_toc.yml').write_text("""
format: jb-book
root: book/index
parts:
- caption: One
  chapters:
  - file: book/a.ipynb
    sections:
    - file: book/b
- caption: Two
  chapters:
  - file: book/c
  - url: https://example.org
""")
    assert notebooks.pages(tmp_path) == ['book/index', 'book/a', 'book/b', 'book/c']


def test_the_repository_has_one_address():
    url = yaml.safe_load((ROOT / '_config.yml').read_text())['repository']['url']
    assert f'git+{url}@' in notebooks.setup_cell()
    for name in ('pyproject.toml', 'CITATION.cff', 'README.md', 'book/index.ipynb'):
        named = re.findall(r'https://github\.com/[\w-]+/boardlaw\b', (ROOT / name).read_text())
        assert set(named) <= {url}, f'{name} names another repository than _config.yml'


PAGE = '<html><body id="top"><a href="#top">up</a>{}</body></html>'


def build(folder, body='', executed=None, page='book/a'):
    """A small finished book of one page, and a table of contents that lists it."""
    html = folder / '_build' / 'html'
    for path, content in {html / f'{page}.html': PAGE.format(body), html / 'a.css': '',
                          folder / '_toc.yml': f'format: jb-book\nroot: {page}'}.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    if executed is not None:
        nb = v4.new_notebook(cells=[executed])
        for name in (f'{page}.ipynb', f'_build/jupyter_execute/{page}.ipynb'):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(nb, folder / name)
    return check_book.problems(folder / '_build', folder)


@pytest.mark.parametrize('body', [
    '', '<a href="https://example.org">elsewhere, on a click</a>', '<img src="../a.css" alt="A">',
    '<svg aria-label="board"><g><svg></svg></g></svg>', '<svg><title>board</title></svg>',
    '<img src="data:image/png;base64,AA" alt="">', '<script>let a = "https://x.org"</script>'])
def test_a_whole_page_has_no_problems(tmp_path, body):
    assert build(tmp_path, body) == []


@pytest.mark.parametrize('body, message', [
    ('<script src="https://cdn.org/a.js"></script>', 'from elsewhere'),
    ('<script src="//cdn.org/a.js"></script>', 'from elsewhere'),
    ('<script>import("https://cdn.org/a.js")</script>', 'from elsewhere'),
    ('<script>fetch(`https://cdn.org/a.json`)</script>', 'from elsewhere'),
    ('<link rel="stylesheet" href="http://cdn.org/a.css">', 'from elsewhere'),
    ('<link rel="preconnect" href="https://fonts.org">', 'from elsewhere'),
    ('<style>@import "https://fonts.org/a.css";</style>', 'from elsewhere'),
    ('<p style="background: url(https://cdn.org/a.png)">', 'from elsewhere'),
    ('<img alt="a" src="../a.css" srcset="https://cdn.org/a.png 2x">', 'from elsewhere'),
    ('<iframe src="https://example.org"></iframe>', 'from elsewhere'),
    ('<script src="b.js"></script>', 'does not exist'),
    ('<a href="b.html">b</a>', 'does not exist'),
    ('<a href="#below">below</a>', 'no such anchor'),
    ('<img src="../a.css">', 'without alt text'),
    ('<img src="../a.css" alt="../a.css">', 'without alt text'),
    ('<svg><path/></svg>', 'without alt text'),
    ('x' * 3_000_001, 'over 3 MB'),
])
def test_every_fault_of_a_page_is_found(tmp_path, body, message):
    assert message in ' '.join(build(tmp_path, body))


def test_a_style_sheet_that_loads_from_elsewhere_is_found(tmp_path):
    build(tmp_path)
    (tmp_path / '_build/html/fonts.css').write_text('@font-face {src: url("https://f.org/a.woff")}')
    assert 'from elsewhere' in ' '.join(
        build(tmp_path, '<link rel="stylesheet" href="../fonts.css?v=1">'))


def test_a_page_that_was_not_built_is_found(tmp_path):
    build(tmp_path)
    (tmp_path / '_build/html/book/a.html').unlink()
    assert check_book.problems(tmp_path / '_build', tmp_path) == [
        'book/a: is in _toc.yml, but was not built']


def test_cells_that_failed_or_did_not_run_are_found(tmp_path):
    assert build(tmp_path, executed=cell('1 + 1', outputs=[text('2')], count=1)) == []
    assert 'did not run' in build(tmp_path, executed=cell('1 + 1'))[0]
    assert 'raised an error' in build(
        tmp_path, executed=cell('1 / 0', outputs=[v4.new_output('error')], count=1))[0]
    (tmp_path / '_build/jupyter_execute/book/a.ipynb').unlink()
    assert 'was not executed' in check_book.problems(tmp_path / '_build', tmp_path)[0]
