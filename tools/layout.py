"""Sphinx extension: marks in the pages what a style sheet cannot find out by itself.

- In a table of pandas, a cell of a column all of whose cells are numbers gets the class `number`,
  and so does what heads that column: numbers stand right, words left.
- A line of code that may not fit a phone gets the class `line` and its indentation, so that what
  is wrapped of it stands a little to the right of where it begins.

`book/assets/boardlaw.css` does the rest. No text of a page changes.
"""
import re
from html import unescape

TABLE = re.compile(r'<table\b[^>]*\bdataframe\b.*?</table>', re.S)
ROW = re.compile(r'<tr\b.*?</tr>', re.S)
CELL = re.compile(r'<(t[dh])\b[^>]*>(.*?)</t[dh]>', re.S)
NUMBER = re.compile(r'[-−+±]?(\d[\d,]*\.?\d*|\.\d+)(e[-+]?\d+)?\s*[%kM]?|NaN|nan|None|<NA>|-?inf|')

CODE = re.compile(r'(?<=<div class="highlight"><pre>)(?:<span></span>)?.*?(?=</pre>)', re.S)
FITS = 40      # characters that a line of code has on the smallest phones
DEEPEST = 12   # what is wrapped is indented no further: room is left for it


def mark_numbers(table):
    """A table, from '<table' to '</table>', with the class on columns of numbers."""
    head, _, body = table.partition('<tbody')
    rows = [[text for kind, text in CELL.findall(row) if kind == 'td'] for row in ROW.findall(body)]
    rows = [row for row in rows if row]
    if len(set(map(len, rows))) != 1:
        return table
    # From the right, since the columns of an index come first, and some of them span rows.
    numbers = [all(NUMBER.fullmatch(unescape(text).strip()) for text in column)
               for column in zip(*rows)][::-1]
    head = ROW.sub(lambda row: row[0] if 'colspan' in row[0] else _mark(row[0], numbers, 't'), head)
    return f'{head}<tbody{ROW.sub(lambda row: _mark(row[0], numbers, "td"), body)}'


def _mark(row, numbers, kind):
    cells = [cell for cell in CELL.finditer(row) if cell[1].startswith(kind)]
    for number, cell in zip(numbers, cells[::-1]):    # the last one first: no place moves
        if number:
            at = cell.start() + len('<td')
            row = f'{row[:at]} class="number"{row[at:]}'
    return row


def mark_lines(code):
    """Highlighted code with its long lines marked."""
    return '\n'.join(map(_mark_line, code.split('\n')))


def _mark_line(line):
    text = unescape(re.sub('<[^>]*>', '', line))
    if len(text) <= FITS or line.count('<span') != line.count('</span>'):
        return line
    indent = min(len(text) - len(text.lstrip()), DEEPEST)
    return f'<span class="line" style="--indent:{indent}">{line}</span>'


def mark_page(app, pagename, templatename, context, doctree):
    if context.get('body'):
        body = TABLE.sub(lambda table: mark_numbers(table[0]), context['body'])
        context['body'] = CODE.sub(lambda code: mark_lines(code[0]), body)


def setup(app):
    app.connect('html-page-context', mark_page)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
