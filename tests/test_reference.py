"""The reference: what is public is on a page and names its arguments; the examples run."""
import doctest
import importlib
import inspect
import pkgutil
import re
from functools import cached_property
from pathlib import Path

import notebooks
import pytest
import reference
import yaml

import boardlaw

ROOT = Path(__file__).resolve().parents[1]
PAGES = {page: (ROOT / f'{page}.md').read_text('utf-8') for page in notebooks.pages()
         if page.startswith('book/reference/')}

#: Modules that are no part of the interface, and why not.
INTERNAL = {
    'boardlaw': 'holds no names',
    'boardlaw.main': 'the command line: its help is on the page itself',
    'boardlaw.arena.evaluation': 'boardlaw.arena has its names',
    'boardlaw.arena.matches': 'boardlaw.arena has its names',
    'boardlaw.sweep.noise': 'boardlaw.sweep has its names',
    'boardlaw.sweep.state': 'boardlaw.sweep has its names',
    'boardlaw.sweep.training': 'boardlaw.sweep has its names',
    'boardlaw.arena.pipes': 'processes, for boardlaw.arena.gtp',
    'boardlaw.backup.keys': 'b2sdk, for boardlaw.backup',
    'boardlaw.elos.design': 'boardlaw.elos has its names',
    'boardlaw.elos.games': 'boardlaw.elos has its names',
    'boardlaw.elos.kernels': 'compiled, for boardlaw.elos',
    'boardlaw.elos.newton': 'linear algebra, for boardlaw.elos',
    'boardlaw.hex.worlds': 'boardlaw.hex has its names',
    'boardlaw.hex.solver_kernels': 'compiled, for boardlaw.hex.solver',
    'boardlaw.hex.solver_patterns': 'compiled, for boardlaw.hex.solver',
    'boardlaw.hex.kernels': 'compiled, for boardlaw.hex',
    'boardlaw.hex.gpu_kernels': 'compiled, for boardlaw.hex',
    'boardlaw.mcts.agent': 'boardlaw.mcts has its names',
    'boardlaw.mcts.search': 'boardlaw.mcts has its names',
    'boardlaw.mcts.batched': 'products of matrices, for boardlaw.mcts',
    'boardlaw.mcts.evaluation': 'compiled, for boardlaw.mcts',
    'boardlaw.mcts.fused': 'compiled, for boardlaw.mcts',
    'boardlaw.mcts.generic': 'compiled, for boardlaw.mcts',
    'boardlaw.mcts.kernels': 'compiled, for boardlaw.mcts',
    'boardlaw.mcts.gpu': 'compiled, for boardlaw.mcts',
    'boardlaw.mcts.gpu_kernels': 'compiled, for boardlaw.mcts',
    'boardlaw.mcts.gpu_network': 'compiled, for boardlaw.mcts',
    'boardlaw.pavlov.disk': 'boardlaw.pavlov has its names',
    'boardlaw.pavlov.live': 'boardlaw.pavlov has its names',
    'boardlaw.pavlov.kinds': 'formulas, for boardlaw.pavlov.stats',
    'boardlaw.pavlov.npr': 'the file format, for boardlaw.pavlov.stats',
    'boardlaw.pavlov.pickles': 'a check, for boardlaw.pavlov.storage',
    'boardlaw.pavlov.reading': 'boardlaw.pavlov.stats has its names',
    'boardlaw.pavlov.writing': 'boardlaw.pavlov.stats has its names',
    'boardlaw.sql.database': 'boardlaw.sql has its names',
    'boardlaw.sql.merging': 'boardlaw.sql has its names',
    'boardlaw.sql.queries': 'boardlaw.sql has its names',
    'boardlaw.sql.tables': 'boardlaw.sql has its names; the chapter on the schema its tables',
    'boardlaw.sql.writers': 'boardlaw.sql has its names',
    'boardlaw.notebook': 'what the live views share',
    'boardlaw.widgets.games': 'boardlaw.widgets has its names',
    'boardlaw.widgets.ratings': 'boardlaw.widgets has its names',
    'boardlaw.widgets.searches': 'boardlaw.widgets has its names',
    'boardlaw.widgets.views': 'what the widgets share',
    'boardlaw.bits': 'machine instructions, for the kernels',
    'boardlaw.lanes': 'vectors of float32, for the kernels',
    'boardlaw.tiles': 'products in bfloat16, for the kernels',
    'boardlaw.gpu': 'a switch, for the kernels',
    'boardlaw.gpu_rng': 'compiled, for the kernels',
    'boardlaw.progress': 'the bar of a training',
    'boardlaw.threads': 'a pool of threads, for the kernels',
}

#: Properties without a docstring: `full` buffers, `n_flops` of a training.
SELF_EXPLANATORY = ['boardlaw.selfplay.Buffer.full', 'boardlaw.selfplay.Trainer.n_flops']


def conventions(page):
    """The arguments that a page explains once for all of its functions, in a table."""
    rows = re.findall(r'^\| (`.*?`) \| .* \|$', PAGES.get(page, ''), re.M)
    return set(re.findall(r'`(\w+)`', ' '.join(rows)))



def modules():
    """The names of all modules of the package, but for those that are run and not imported."""
    found = pkgutil.walk_packages(boardlaw.__path__, 'boardlaw.')
    return {'boardlaw'} | {m.name for m in found if not m.name.endswith('__main__')}


DIRECTIVES = re.findall(r'^\.\. automodule:: (\S+)((?:\n   :.*)*)', '\n'.join(PAGES.values()), re.M)
PUBLIC = [name for name, _ in DIRECTIVES]
#: For each module the arguments that its page, or the reference's front page, explains.
CONVENTIONS = {name: conventions(page) | conventions('book/reference/index')
               for page, text in PAGES.items()
               for name in re.findall(r'automodule:: (\S+)', text)}


def public_names(module):
    """What a module offers: `__all__`, else what it defines without an underscore."""
    names = getattr(module, '__all__', None)
    if names is None:
        names = [n for n, x in vars(module).items() if not n.startswith('_')
                 and getattr(x, '__module__', None) == module.__name__]
    return {n: getattr(module, n) for n in names if not inspect.ismodule(getattr(module, n))}


def callables():
    """(name, (module, docstrings that speak of it, function)) of all public functions and methods.
    """
    for module in PUBLIC:
        for name, x in public_names(importlib.import_module(module)).items():
            if inspect.isclass(x):
                about = inspect.getdoc(x) if x.__doc__ else ''
                for n, method in vars(x).items():
                    method = getattr(method, '__func__', method)
                    if inspect.isfunction(method) and (not n.startswith('_') or n in (
                            '__init__', '__call__')) and method.__module__.startswith('boardlaw'):
                        own = method.__doc__ or ''
                        yield f'{module}.{name}.{n}', (module, f'{own}\n{about}', method)
            elif inspect.isfunction(x):
                yield f'{module}.{name}', (module, x.__doc__ or '', x)


CALLABLES = dict(callables())


def test_every_module_is_on_one_page_or_internal_for_a_reason():
    assert len(PUBLIC) == len(set(PUBLIC))
    assert set(PUBLIC) | set(INTERNAL) == modules()
    assert not set(PUBLIC) & set(INTERNAL)
    assert len(PAGES) > 8 and len(CALLABLES) > 200


def test_every_public_name_has_a_docstring_and_is_rendered():
    documented = {}     # by identity: a name may be offered by several modules
    for module, options in DIRECTIVES:
        excluded = re.findall(r'\w+', ''.join(re.findall(':exclude-members:(.*)', options)))
        if ':members:' in options:
            for name, x in public_names(importlib.import_module(module)).items():
                if name not in excluded:
                    documented.setdefault(id(x), []).append(f'{module}.{name}')
    data = re.findall(r'^\.\. autodata:: (\S+)', '\n'.join(PAGES.values()), re.M)
    documented |= {id(reference.find(name)[0]): [name] for name in data}
    missing, bare = [], []
    for module in PUBLIC:
        for name, x in public_names(importlib.import_module(module)).items():
            if id(x) not in documented:
                missing.append(f'{module}.{name}')
            if (inspect.isclass(x) or callable(x)) and not (x.__doc__ or '').strip():
                bare.append(f'{module}.{name}')
    assert not missing, f'on no page of the reference: {missing}'
    assert not bare, f'without a docstring: {bare}'
    twice = [names for names in documented.values() if len(names) > 1]
    assert not twice, f'on the reference twice: {twice}'


def test_every_public_method_has_a_docstring():
    # What a constructor and a call take may stand in the class's docstring, and torch has given
    # these names their meaning; `do_NAME` answers the GTP command of that name.
    known = ('__init__', '__call__', 'forward', 'extra_repr', 'state_dict', 'load_state_dict')
    bare = [name for name, (_, _, f) in CALLABLES.items() if not (f.__doc__ or '').strip()
            and not name.endswith(known) and '.do_' not in name]
    for module in PUBLIC:
        for name, x in public_names(importlib.import_module(module)).items():
            if inspect.isclass(x):
                bare += [f'{module}.{name}.{n}' for n, member in vars(x).items()
                         if isinstance(member, (property, cached_property))
                         and not n.startswith('_') and not member.__doc__]
    assert set(bare) == set(SELF_EXPLANATORY)


def named(argument, text):
    """Whether a docstring speaks of an argument: by its name, or by all words of it in a line."""
    if re.search(rf'(?<![\w.]){re.escape(argument)}(?!\w)', text):
        return True
    words = [w.rstrip('s') for w in argument.strip('_').split('_') if len(w) > 1]
    return any(all(re.search(rf'\b{re.escape(w)}', line, re.I) for w in words)
               for line in text.splitlines()) if words else False


def silent_arguments(name):
    """The arguments of a public function of which neither its docstrings nor the conventions speak.

    What a docstring refers to speaks for it ("The other arguments are those of :func:`svg`"), and
    the methods of a class for each other.
    """
    module, about, function = CALLABLES[name]
    texts = [about]
    for role, ticks in re.findall(r':(?:func|class|meth):`~?\.?([\w.]+)`|\b[Aa]s `(\w+)`', about):
        for scope in (function.__module__ + '.' + function.__qualname__.rpartition('.')[0],
                      function.__module__):
            try:
                texts.append(reference.find(role or ticks, scope.strip('.'))[0].__doc__ or '')
            except LookupError:
                pass
    arguments = [p for p in inspect.signature(function).parameters if p not in ('self', 'cls')]
    return [a for a in arguments if a not in CONVENTIONS[module] and not named(a, '\n'.join(texts))]


def test_every_argument_is_named_in_the_docstring_or_is_a_convention():
    silent = {}
    for name in CALLABLES:
        home, _, last = name.rpartition('.')
        found = reference.find(home)[0]
        # exceptions are made by the package itself, `forward` is called by torch
        if not (inspect.isclass(found) and issubclass(found, Exception)) and not (
                last.startswith('do_') or last in ('forward', 'load_state_dict')):
            silent[name] = silent_arguments(name)
    silent = {name: arguments for name, arguments in silent.items() if arguments}
    assert not silent, '\n'.join(f'{name}: {", ".join(a)}' for name, a in silent.items())


def test_what_explains_a_module_is_a_page_of_the_book():
    pages = set(notebooks.pages())
    explained = {name: reference.chapters_of(importlib.import_module(name).__doc__)
                 for name in PUBLIC}
    for name, chapters in explained.items():
        assert set(chapters) <= pages, f'{name} is explained in {chapters}'
        package = name.rpartition('.')[0]
        assert chapters or explained.get(package), f'no chapter explains {name}'


def examples():
    finder = doctest.DocTestFinder()
    return [example for name in PUBLIC for x in public_names(importlib.import_module(name)).values()
            if callable(x) for example in finder.find(x) if example.examples]


EXAMPLES = {example.name: example for example in examples()}


def test_there_are_examples():
    assert len(EXAMPLES) >= 12


@pytest.mark.parametrize('name', EXAMPLES)
def test_the_examples_of_the_docstrings_give_what_they_say(name, capsys):
    found = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(EXAMPLES[name])
    assert found.attempted and not found.failed, capsys.readouterr().out


def test_docstrings_become_restructuredtext():
    def rst(text, **kwargs):
        return '\n'.join(reference.to_rst(text.split('\n'), 'boardlaw.elos', **kwargs))

    solve = ':py:obj:`solve <boardlaw.elos.solve>`'
    assert rst('`[n_envs, 2]` of `solve`') == f'``[n_envs, 2]`` of {solve}'
    assert rst(':func:`solve`, `x`') == ':func:`solve <boardlaw.elos.solve>`, ``x``'
    assert rst('`solve` games', own={'solve'}) == '``solve`` games'
    assert rst('see ``a`` and :func:`nobody`') == 'see ``a`` and :func:`nobody`'
    assert rst('as\n\n    x = `y`\n\nand `y`') == (
        'as\n\n.. code-block:: text\n\n    x = `y`\n\nand ``y``')
    assert rst('as\n\n    x = y') == 'as\n\n.. code-block:: python\n\n    x = y'
    assert rst('Args:\n    x: `y`') == 'Args:\n    x: ``y``'
    assert rst('>>> f("`y`")') == '>>> f("`y`")'
    explained = 'Explained in the chapters book/hex.ipynb and book/elo.ipynb.'
    assert reference.chapters_of(explained) == ['book/hex', 'book/elo']
    assert rst(explained) == explained
    assert rst(explained, pages={'book/elo', 'book/hex'}) == (
        'Explained in the chapters :doc:`/book/hex` and :doc:`/book/elo`.')


def test_names_are_found_as_a_reader_of_the_module_means_them():
    assert reference.find('solve', 'boardlaw.elos') == (boardlaw.elos.solve, 'boardlaw.elos.solve')
    assert reference.find('boardlaw.mcts.search')[0] is boardlaw.mcts.search
    found = reference.find('data.frontier', 'boardlaw.paper.fits')[1]
    assert found == 'boardlaw.paper.data.frontier'
    for unknown in ('nothing', 'boardlaw.nothing', 'boardlaw.elos.nothing', 'antigravity'):
        with pytest.raises(LookupError):
            reference.find(unknown, 'boardlaw.elos')


def test_how_to_cite_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text('utf-8'))
    book, paper = reference.bibtex(citation)
    project = (ROOT / 'pyproject.toml').read_text('utf-8')
    project = dict(re.findall(r'^(\w+) = "(.*)"', project, re.M))
    assert f'version = {{{project["version"]}}}' in book
    assert citation['license'] == project['license']
    assert citation['repository-code'] == project['Repository']
    config = yaml.safe_load((ROOT / '_config.yml').read_text('utf-8'))
    assert citation['repository-code'] == config['repository']['url']
    bib = (ROOT / 'book/references.bib').read_text('utf-8')
    entry = re.search(r'@article\{jones2021scaling,.*?\n\}', bib, re.S)[0]

    def fields(text):
        return {k: v.strip('{}') for k, v in re.findall(r'(\w+)\s*= (\{.*\}),?$', text, re.M)}

    assert fields(paper) == fields(entry)


def test_the_glossary_is_in_order():
    text = (ROOT / 'book/glossary.md').read_text('utf-8')
    terms = re.findall(r'^(\S.*)\n  \S', text, re.M)
    assert len(terms) == len({t.lower() for t in terms}) > 50
    for page in re.findall(r'\]\((\w+)\.ipynb\)', text):
        assert f'book/{page}' in notebooks.pages()
    for term, body in re.findall(r'^(\S.*)\n((?:  \S.*\n)+)', text, re.M):
        assert '.ipynb)' in body, f'{term} links to no chapter'
