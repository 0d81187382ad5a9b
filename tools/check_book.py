"""Proves that a finished build is whole: `python tools/check_book.py _build`.

- every page of _toc.yml stands as HTML, and every code cell of its notebook ran without an error;
- no page, and no style sheet that a page loads, asks another host for anything;
- every file and every anchor that a page refers to exists;
- every picture has a text for those who cannot see it, and no page weighs over 3 MB.
"""
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from notebooks import ROOT, pages

MAX_PAGE = 3e6  # bytes
# What a browser fetches by itself, unlike the `href` of an `a`, which waits for a click.
FETCHED = {('link', 'href'), ('object', 'data'), ('video', 'poster'), ('image', 'href'),
           ('use', 'href'), ('image', 'xlink:href'), ('use', 'xlink:href')}
FETCHED |= {(tag, 'src') for tag in ('script', 'img', 'iframe', 'embed', 'audio', 'video',
                                     'source', 'track', 'input')}
REMOTE = re.compile(r'\s*(https?:)?//', re.I)
CSS_URL = re.compile(r'url\(\s*[\'"]?([^\'")]+)|@import\s+[\'"]([^\'"]+)', re.I)
SCRIPT_URL = re.compile(r'(?:import|fetch|importScripts|require|src\s*=)\s*\(?\s*'
                        r'[\'"`]((?:https?:)?//[^\'"`]+)', re.I)


class Page(HTMLParser):
    """One HTML file: the addresses it fetches, the links it offers, its anchors, its pictures."""

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.fetched, self.links, self.ids, self.unlabelled = [], [], set(), []
        self.inside = None      # 'script' or 'style' while its text is read
        self.pictures = []      # the open svg elements: [line, has a label]
        self.feed(path.read_text('utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ('id', 'name') if attrs.get(k)}
        self.fetched += [v for k, v in attrs.items() if (tag, k) in FETCHED and v and not (
            tag == 'link' and attrs.get('rel') in ('index', 'search', 'next', 'prev', 'canonical'))]
        self.fetched += [part.split()[0] for part in (attrs.get('srcset') or '').split(',') if part]
        self.fetched += css_urls(attrs.get('style') or '')
        if tag == 'a' and attrs.get('href'):
            self.links.append(attrs['href'])
        if tag == 'img':
            alt = (attrs.get('alt') or '').strip()
            if 'alt' not in attrs or alt == (attrs.get('src') or '').strip():
                self.unlabelled.append(f'line {self.getpos()[0]}: img {attrs.get("src")}')
        if tag == 'svg':
            labelled = attrs.get('aria-label') or attrs.get('aria-labelledby')
            self.pictures.append([self.getpos()[0], labelled or attrs.get('aria-hidden') == 'true'])
        if tag == 'title' and self.pictures:
            self.pictures[-1][1] = True
        self.inside = tag if tag in ('script', 'style') else None

    def handle_endtag(self, tag):
        if tag == 'svg' and self.pictures:
            line, labelled = self.pictures.pop()
            if not labelled and not any(outer for _, outer in self.pictures):
                self.unlabelled.append(f'line {line}: inline svg')
        self.inside = None

    def handle_data(self, data):
        if self.inside == 'style':
            self.fetched += css_urls(data)
        if self.inside == 'script':
            self.fetched += SCRIPT_URL.findall(data)


def css_urls(text):
    """The addresses that a style sheet's text names."""
    return [(a or b).strip() for a, b in CSS_URL.findall(text)]


def is_local(address):
    return not urlsplit(address).scheme and not REMOTE.match(address)


def target(base, address):
    """The file and the anchor that a local `address` on the page `base` means."""
    parts = urlsplit(address)
    path = (base.parent / unquote(parts.path)).resolve() if parts.path else base.resolve()
    return (path / 'index.html' if path.is_dir() else path), unquote(parts.fragment)


def check_page(page, parsed):
    """Yields what is wrong with one page; `parsed` finds every page by its resolved path."""
    where = page.path.name
    if page.path.stat().st_size > MAX_PAGE:
        yield f'{where}: {page.path.stat().st_size / 1e6:.1f} MB, over {MAX_PAGE / 1e6:.0f} MB'
    for picture in page.unlabelled:
        yield f'{where}: a picture without alt text ({picture})'
    for address in page.fetched:
        if REMOTE.match(address):
            yield f'{where}: loads {address} from elsewhere'
        elif is_local(address) and not target(page.path, address)[0].exists():
            yield f'{where}: loads {address}, which does not exist'
        elif address.split('?')[0].endswith('.css'):
            sheet = target(page.path, address)[0].read_text('utf-8')
            for url in filter(REMOTE.match, css_urls(sheet)):
                yield f'{where}: {address} loads {url} from elsewhere'
    for address in filter(is_local, page.links):
        path, anchor = target(page.path, address)
        if not path.exists():
            yield f'{where}: links to {address}, which does not exist'
        elif anchor and path in parsed and anchor not in parsed[path].ids:
            yield f'{where}: links to {address}, but that page has no such anchor'


def check_cells(notebook):
    """Yields the code cells of an executed notebook that failed or did not run."""
    if not notebook.exists():
        yield f'{notebook.name}: was not executed'
        return
    cells = json.loads(notebook.read_text('utf-8'))['cells']
    for i, cell in enumerate(cells):
        if cell['cell_type'] == 'code' and ''.join(cell['source']).strip():
            if any(output['output_type'] == 'error' for output in cell['outputs']):
                yield f'{notebook.name}: cell {i} raised an error'
            elif cell['execution_count'] is None:
                yield f'{notebook.name}: cell {i} did not run'


def problems(build, root=ROOT):
    """Every fault of the book below `build` (the folder that holds html/), one line each."""
    html = Path(build).resolve() / 'html'
    parsed = {path: Page(path) for path in sorted(html.rglob('*.html'))
              if '_static' not in path.relative_to(html).parts}
    found = []
    for page in pages(root):
        if html / f'{page}.html' not in parsed:
            found.append(f'{page}: is in _toc.yml, but was not built')
        if (Path(root) / f'{page}.ipynb').exists():
            found += check_cells(html.parent / 'jupyter_execute' / f'{page}.ipynb')
    for page in parsed.values():
        found += check_page(page, parsed)
    return found


def main(build):
    found = problems(build)
    print('\n'.join(found) or f'The book is whole: {len(pages())} pages, every cell ran, '
          'no request leaves a page.')
    return 1 if found else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else ROOT / '_build'))
