"""Sphinx extension: the reference, rendered from the package's docstrings, and how to cite.

Docstrings are written to be read as text. Before Sphinx reads them as reStructuredText:

- single backticks become code, and a link where they name a documented function or class;
- an indented block after a blank line becomes a block of code;
- "Explained in the chapter book/search.ipynb." becomes a link, and the chapter's summary gets one
  back to each page of the reference that so names it.

A reference to something of the package that no page documents is set as code; one to something that
does not exist is left for Sphinx to warn of.
"""
import ast
import importlib
import inspect
import itertools
import re
import sys
import textwrap
from functools import lru_cache, partial

from docutils import nodes
from notebooks import ROOT
from sphinx.util.docutils import SphinxDirective

SECTION = re.compile(r'(Args|Arguments|Attributes|Returns|Raises|Yields):$')
MARKS = re.compile(r'``[^`]+``|:(?P<role>\w+):`(?P<target>[^`]+)`|`(?P<code>[^`]+)`(?!_)')
NAME = re.compile(r'[A-Za-z_]\w*(\.\w+)*(?=(\(\))?$)')
EXPLAINED = re.compile(r'Explained in the chapters?((?:,?\s+(?:and\s+)?book/\w+\.ipynb)+)\.')
CHAPTER = re.compile(r'(book/\w+)\.ipynb')


@lru_cache(None)
def find(name, module=None):
    """The object that `name` means in a module of the package, and its full name.

    Looked for among the module's own names, then in the packages around it.

    Raises:
        LookupError: there is none.
    """
    scopes = [module.rsplit('.', i)[0] for i in range(module.count('.') + 1)] if module else []
    for scope in [*dict.fromkeys(scopes), 'boardlaw', '']:
        parts = (f'{scope}.' if scope else '').split('.')[:-1] + name.lstrip('.').split('.')
        # the shortest module first: boardlaw.mcts.search is a function before it is a module
        for i in range(1, len(parts)):
            found = _module('.'.join(parts[:i]))
            for part in parts[i:]:
                found = getattr(found, part, None)
            if found is not None:
                return found, '.'.join(parts)
        found = _module('.'.join(parts))
        if found is not None:
            return found, '.'.join(parts)
    raise LookupError(name)


def _module(name):
    """A module that is there; of others than the package's only those that are loaded."""
    if name.split('.')[0] != 'boardlaw' or '__main__' in name:
        return sys.modules.get(name)
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def unwrapped(found):
    """The function of a property, a class or static method; anything else itself."""
    for name in ('fget', 'func', '__func__'):
        found = getattr(found, name, found)
    return found


def is_ours(found):
    """Whether an object is a module, class, function or method of the package."""
    found = unwrapped(found)
    home = found.__name__ if inspect.ismodule(found) else getattr(found, '__module__', None)
    return (inspect.ismodule(found) or callable(found)) and str(home).split('.')[0] == 'boardlaw'


def chapters_of(doc):
    """The chapters that a docstring says explain its subject, as Sphinx names pages."""
    match = EXPLAINED.search(doc or '')
    return CHAPTER.findall(match[1]) if match else []


def own_names(found):
    """The names that a docstring uses for arguments and fields, which are no references."""
    names = set(getattr(found, '__annotations__', {}))
    try:
        names |= set(inspect.signature(found).parameters)
    except (TypeError, ValueError):
        pass
    return names


def language(lines, indent):
    """'python' if the block that begins with these lines, so far indented, is that, else 'text'."""
    inside = itertools.takewhile(lambda line: not line.strip() or line[:indent].isspace(), lines)
    try:
        ast.parse(textwrap.dedent('\n'.join(inside)))
    except SyntaxError:
        return 'text'
    return 'python'


def to_rst(lines, module=None, own=(), pages=()):
    """The lines of a docstring of a `module`, as reStructuredText.

    Args:
        lines: a list of strings.
        module: its name, in which names are looked up.
        own: names that are no references: arguments, fields.
        pages: the book's pages; what explains the module is linked if it is one of them.
    """
    def full(name):
        try:
            found, name = find(name, module)
        except LookupError:
            return None
        return name if is_ours(found) else None

    def mark(match):
        role, target, code = match['role'], match['target'], match['code']
        if code:
            name = NAME.match(code)
            name = name and name[0] not in own and full(name[0])
            return f':py:obj:`{code} <{name}>`' if name else f'``{code}``'
        if role in ('class', 'data', 'func', 'mod') and '<' not in target:
            title = re.sub(r'^(~.*)?\.', '', target)
            try:
                return f':{role}:`{title} <{find(target.lstrip("~."), module)[1]}>`'
            except LookupError:
                pass    # Sphinx knows the class that it stands in, or warns
        return match[0]

    def link(match):
        links = [f':doc:`/{page}`' for page in chapters_of(match[0]) if page in pages]
        chapters = 'chapters' if len(links) > 1 else 'chapter'
        return f'Explained in the {chapters} {" and ".join(links)}.' if links else match[0]

    made, section, verbatim = [], False, None
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if verbatim is not None and line.strip() and indent < verbatim:
            verbatim = None
        if SECTION.match(line.strip()):
            section = True
        elif line.strip() and indent == 0:
            section = False
        before = next((x for x in reversed(lines[:i]) if x.strip()), '')
        parent = len(before) - len(before.lstrip())
        if (verbatim is None and not section and i and not lines[i - 1].strip()
                and line.strip() and indent >= parent + 4 and before):
            made += [f'{" " * parent}.. code-block:: {language(lines[i:], indent)}', '']
            verbatim = indent
        if verbatim is None and not line.lstrip().startswith('>>>'):
            line = MARKS.sub(mark, line)
            line = re.sub(r'\|(\w+)\|', r'\\|\1\\|', line)
        made.append(line)
    return EXPLAINED.sub(link, '\n'.join(made)).split('\n')


def process_docstring(app, what, name, found, options, lines):
    module = name if what == 'module' else (getattr(found, '__module__', None)
                                            or app.env.temp_data.get('autodoc:module'))
    lines[:] = to_rst(lines, module, own_names(found), app.env.found_docs)
    if what in ('attribute', 'data', 'property'):
        # An empty comment first: else napoleon takes what precedes a colon for the type.
        lines[:0] = ['..', '']


def skip_member(app, what, name, member, skip, options):
    # The fields of a named tuple: its docstring has them, these say "Alias for field number 0".
    # What matplotlib or torch gave a class of ours has their docstring.
    home = getattr(unwrapped(member), '__module__', None)
    theirs = inspect.isroutine(unwrapped(member)) and str(home).split('.')[0] != 'boardlaw'
    return True if type(member).__name__ == '_tuplegetter' or theirs else None


def documented(env):
    """Where each documented object of the package stands: {id(object): its documented name}."""
    if not hasattr(env, 'boardlaw_documented'):
        env.boardlaw_documented = {}
        for name in env.get_domain('py').objects:
            try:
                env.boardlaw_documented.setdefault(id(find(name)[0]), name)
            except LookupError:
                pass
    return env.boardlaw_documented


def missing_reference(app, env, node, content):
    """A reference by another name than the documented one; what is not ours stays code."""
    if node.get('refdomain') != 'py':
        return None
    try:
        found, target = find(node['reftarget'], node.get('py:module'))
    except LookupError:
        return None
    name = documented(env).get(id(found), '')
    if name.rpartition('.')[2] != target.rpartition('.')[2]:
        return content
    domain = env.get_domain('py')
    return domain.resolve_xref(env, node['refdoc'], app.builder, 'obj', name, node, content)


def explainers(env):
    """{chapter: the pages of the reference whose modules it explains, each once}."""
    found = {}
    for name, entry in sorted(env.get_domain('py').modules.items()):
        for chapter in chapters_of(sys.modules[name].__doc__):
            pages = found.setdefault(chapter, [])
            if entry.docname not in pages:
                pages.append(entry.docname)
    return found


def short_title(env, page):
    return env.titles[page].astext().removeprefix('Reference: ')


def link_back(app, tree, page):
    """Ends a chapter's summary with links to the reference of what it explains."""
    targets = explainers(app.env).get(page)
    if not targets:
        return
    sections = [s for s in tree.findall(nodes.section) if s.next_node(nodes.title)]
    place = next((s for s in sections if s.next_node(nodes.title).astext() == 'Summary'),
                 sections[0])
    line = nodes.paragraph(classes=['reference-links'])
    line += nodes.Text('In the reference, with all arguments: ')
    for i, target in enumerate(targets):
        line += nodes.Text(', ' if i else '')
        line += nodes.reference('', short_title(app.env, target), internal=True,
                                refuri=app.builder.get_relative_uri(page, target))
    line += nodes.Text('.')
    place += line


def bibtex(citation):
    """BibTeX entries from the contents of CITATION.cff: what it describes, then its references."""
    def names(work):
        return ' and '.join(f'{a["family-names"]}, {a["given-names"]}' if 'family-names' in a
                            else f'{{{a["name"]}}}' for a in work['authors'])

    def entry(kind, key, work, **fields):
        fields = {'author': names(work), 'title': f'{{{work["title"]}}}', **fields}
        body = ',\n'.join(f'  {name:7} = {{{value}}}' for name, value in fields.items() if value)
        return f'@{kind}{{{key},\n{body}\n}}'

    made = [entry('software', 'boardlaw', citation, version=citation['version'],
                  url=citation['repository-code'])]
    for work in citation['references']:
        key = work['authors'][0]['family-names'].lower() + str(work['year'])
        number = next((i['value'] for i in work.get('identifiers', ())), None)
        made.append(entry('article', key, work, year=work['year'],
                          journal=number and f'arXiv preprint {number}', url=work['url']))
    return made


class Citation(SphinxDirective):
    """What to paste into a bibliography, from CITATION.cff; the argument says of which work."""
    required_arguments = 1

    def run(self):
        import yaml
        path = ROOT / 'CITATION.cff'
        self.env.note_dependency(str(path))
        entries = bibtex(yaml.safe_load(path.read_text('utf-8')))
        text = entries[['book', 'paper'].index(self.arguments[0])]
        return [nodes.literal_block(text, text, language='bibtex')]


class CommandLine(SphinxDirective):
    """The help of `python -m boardlaw` and of each of its commands.

    Its columns are lost where a line wraps, so lines are as long as a page on a screen has them; on
    a phone the block scrolls (book/assets/boardlaw.css, by the class `columns`).
    """

    def run(self):
        from boardlaw.main import parser
        whole = parser()
        commands, = (a.choices for a in whole._subparsers._group_actions)
        made = []
        for name, command in commands.items():
            command.prog = f'python -m boardlaw {name}'
            command.formatter_class = partial(command.formatter_class, width=68)
            section = nodes.section('', nodes.title('', f'boardlaw {name}'),
                                    ids=[f'command-{name}'])
            text = command.format_help().rstrip()
            section += nodes.literal_block(text, text, language='text', classes=['columns'])
            made.append(section)
        return made


def setup(app):
    for extension in ('sphinx.ext.autodoc', 'sphinx.ext.napoleon'):
        app.setup_extension(extension)
    app.add_directive('citation', Citation)
    app.add_directive('command-line', CommandLine)
    # 400: before napoleon, which reads the sections of a docstring
    app.connect('autodoc-process-docstring', process_docstring, priority=400)
    app.connect('autodoc-skip-member', skip_member)
    app.connect('missing-reference', missing_reference)
    app.connect('doctree-resolved', link_back)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
