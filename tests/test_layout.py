"""What tools/layout.py marks in a page, and that it leaves the page's text alone."""
import html
import re

import layout
import pandas as pd
import pytest
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer


def text(page):
    return html.unescape(re.sub('<[^>]*>', '', page))


def marked(page):
    """The text of the cells with the class."""
    return [text(cell) for cell in re.findall(r'class="number"[^>]*>(.*?)</t[dh]>', page)]


def test_columns_of_numbers_are_marked_with_their_heads():
    frame = pd.DataFrame({'n': [1, -20], 'who': ['A', '7'], 'rate': ['38.7 M', '823 k'],
                          'x': [1e-9, float('nan')], 'range': ['1 to 8', '5']})
    page = frame.to_html()
    found = layout.mark_numbers(page)
    assert marked(found) == ['n', 'rate', 'x', '1', '38.7 M', '1.000000e-09', '-20', '823 k', 'NaN']
    assert text(found) == text(page)


def test_columns_are_counted_past_an_index_that_spans_rows():
    frame = pd.DataFrame({'a': list('wxyz'), 'b': range(4)},
                         pd.MultiIndex.from_product([[3, 4], ['p', 'q']], names=['size', 'name']))
    assert marked(layout.mark_numbers(frame.to_html()))[-4:] == ['0', '1', '2', '3']
    wide = frame.rename(columns={'a': 'word'})
    wide.columns = pd.MultiIndex.from_tuples([('top', 'word'), ('top', 'b')])
    found = marked(layout.mark_numbers(wide.to_html()))
    assert 'b' in found and not {'top', 'word', 'p'} & set(found)


@pytest.mark.parametrize('rows', ['', '<tbody><tr><th>1</th></tr></tbody>'])
def test_a_table_without_cells_stays(rows):
    page = f'<table class="dataframe">{rows}</table>'
    assert layout.mark_numbers(page) == page


def test_long_lines_of_code_are_marked_and_nothing_is_lost():
    code = '\n'.join(['x = 1', '    y = ' + '1 + '*15 + '1', 'z = """' + 'word '*10,
                      ' '*30 + 'more <words> & "signs" than fit"""', ''])
    page = f'<p>{highlight(code, PythonLexer(), HtmlFormatter())}</p>'
    context = {'body': page}
    layout.mark_page(None, None, None, context, None)
    assert text(context['body']) == text(page)
    indents = re.findall(r'<span class="line" style="--indent:(\d+)">', context['body'])
    assert indents == ['4', '0', str(layout.DEEPEST)]


def test_a_page_without_a_body_is_left_out():
    context = {}
    layout.mark_page(None, 'search', None, context, None)
    assert context == {}
