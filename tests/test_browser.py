"""The book in a browser: the board is played on, and every built page is opened.

Needs playwright and Chromium, and for the last part a built book; skipped where they are missing.
"""
import re
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import chromium
import notebooks
import pytest
import torch
from test_play import action

from boardlaw import play
from boardlaw.hex import Hex, drawing

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT/'_build'/'html'
PAGES = sorted(path.relative_to(HTML).as_posix() for path in HTML.rglob('*.html')
               if '_static' not in path.parts)
SEED = 11


@pytest.fixture(scope='module')
def browser():
    with chromium.launch() as browser:
        yield browser


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    return play.page().save(tmp_path_factory.mktemp('page')/'hex.html').as_uri()


@contextmanager
def opened(browser, address, **settings):
    """A page; when it is closed, it must have logged no error and have asked for no address but
    those of files."""
    with browser.new_context(**settings) as context:
        page, faults = context.new_page(), []
        page.on('console', lambda message: message.type == 'error' and faults.append(message.text))
        page.on('pageerror', lambda error: faults.append(str(error)))
        page.on('requestfailed', lambda request: faults.append(f'{request.url} failed'))
        context.on('request', lambda request: faults.append(f'asks for {request.url}')
                   if urlsplit(request.url).scheme not in ('file', 'data', 'blob') else None)
        page.goto(address)
        yield page
    assert not faults


class Board:
    """What a player sees and does, by role and name, as assistive technology has it."""

    def __init__(self, page, boardsize=3, nodes=16, seed=SEED, which=0):
        self.root = page.locator('.boardlaw-play').nth(which)
        self.page, self.boardsize, self.nodes = page, boardsize, nodes
        self.root.evaluate('(root, seed) => root.dataset.seed = seed', seed)
        self.choose('Board', f'{boardsize}×{boardsize}')
        self.choose('Strength', str(nodes))
        self.press('New game')

    def choose(self, group, option):
        group = self.root.get_by_role('group', name=group, exact=True)
        group.get_by_text(option, exact=True).click()
        assert group.get_by_role('radio', name=option, exact=True).is_checked()

    def press(self, name):
        self.root.get_by_role('button', name=name).click()

    def cell(self, name):
        return self.root.get_by_role('gridcell', name=re.compile(f'^{name},'))

    def put(self, name):
        self.cell(name).click()
        self.wait()

    def wait(self):
        """Until the agent has answered."""
        self.page.wait_for_function(
            'root => !root.querySelector(".status").textContent.includes("thinking")',
            arg=self.root.element_handle())

    @property
    def status(self):
        return self.root.get_by_role('status').inner_text()

    @property
    def moves(self):
        """The names of the cells, in the order in which they were taken."""
        text = self.root.locator('.about').inner_text()
        return re.search(r'moves ([a-z0-9 -]+)\.', text)[1].replace('-', '').split()

    @property
    def free(self):
        """The names of the empty cells."""
        labels = self.root.get_by_role('gridcell').evaluate_all(
            'cells => cells.map(cell => cell.getAttribute("aria-label"))')
        return [label.split(',')[0] for label in labels if 'empty' in label]

    def finish(self):
        """Plays the first free cell until the game is over."""
        for _ in range(self.boardsize**2):
            if 'won' in self.status:
                return
            self.put(self.free[0])
        raise AssertionError(self.status)


def replay(moves, boardsize, nodes, agents_seat):
    """The world after a game's moves, each of the agent's compared with Python's; and its end."""
    agent, world, transition = play.agent(boardsize, nodes), Hex.initial(1, boardsize), None
    for k, name in enumerate(moves):
        if k % 2 == agents_seat:
            assert action(name, world) == int(agent(world, seed=SEED, move=k).actions), (k, name)
        world, transition = world.step(torch.tensor([action(name, world)]), reset=False)
    return world, transition


@pytest.mark.parametrize('seat', [0, 1])
def test_a_whole_game(browser, address, seat):
    """It ends when Python says so, won by whom Python says, and each of the agent's moves is the
    one that Python's agent makes with the same seed."""
    with opened(browser, address) as page:
        board = Board(page, 4, 64)
        board.choose('You play', ('Black', 'White')[seat])
        board.wait()
        board.finish()
        world, transition = replay(board.moves, 4, 64, 1 - seat)
        assert transition.terminal
        mine = transition.rewards[0, seat] > 0
        assert board.status.startswith('You have won' if mine else 'The agent has won')
        free = board.free
        for name in free[:1]:       # nothing more can be played
            board.cell(name).click()
        assert board.free == free
        assert world.board.count_nonzero() == 16 - len(free)


def test_the_hint_is_the_agents_opinion(browser, address):
    with opened(browser, address) as page:
        board = Board(page, 5, 64)
        board.put('c2')
        assert not board.root.locator('.value').is_visible()
        board.press('Hint')
        world, _ = replay(board.moves, 5, 64, 1)
        thought = play.agent(5, 64)(world, seed=SEED, move=len(board.moves))
        policy = drawing.to_board_frame(thought.logits[0].exp(), int(world.seats[0]))
        shown = 0
        for r in range(5):
            for c in range(5):
                name, p = drawing.cell_name(r, c), policy[r, c]
                if name in board.moves:
                    continue
                said = board.cell(name).get_attribute('aria-label')
                share = int(re.fullmatch(rf'{name}, empty, (\d+)%', said)[1])
                assert abs(share - 100*p) < .51
                fill = float(board.cell(name).locator('.heat').get_attribute('fill-opacity'))
                assert abs(fill - p/policy.max()) < 1e-3
                shown += share
        assert 90 < shown < 110
        black = 50*(1 + float(thought.v[0, 0]))
        said = board.root.get_by_role('img', name='The agent expects').get_attribute('aria-label')
        assert abs(int(re.search(r'Black to win with (\d+)%', said)[1]) - black) < .51
        board.press('Hint')
        assert not board.root.locator('.value').is_visible()
        assert 'empty' in board.cell('a1').get_attribute('aria-label')
        assert '%' not in board.cell('a1').get_attribute('aria-label')


def test_undo(browser, address):
    with opened(browser, address) as page:
        board = Board(page, 4)
        back = board.root.get_by_role('button', name='Undo')
        assert back.is_disabled()
        board.put('a1')
        board.put(board.free[-1])
        before = board.moves
        assert len(before) == 4
        board.press('Undo')
        assert board.moves == before[:2] and 'Your move' in board.status
        board.put(before[2])
        assert board.moves == before        # the same seed, the same answer
        board.finish()
        board.press('Undo')                 # a finished game goes on
        assert 'Your move' in board.status and len(board.moves) % 2 == 0
        while board.moves:
            board.press('Undo')
        assert back.is_disabled()
        board.choose('You play', 'White')
        board.wait()
        assert len(board.moves) == 1 and back.is_disabled()     # the agent's move is not ours


def test_the_keyboard_is_enough(browser, address):
    with opened(browser, address) as page:
        board = Board(page, 3)
        tabbed = board.root.locator('.cell[tabindex="0"]')
        board.root.get_by_role('radio', name='16', exact=True).focus()
        page.keyboard.press('Tab')
        assert tabbed.count() == 1 and tabbed.evaluate('x => x === document.activeElement')
        for key in ('ArrowUp', 'ArrowUp', 'ArrowLeft', 'ArrowLeft', 'ArrowRight', 'ArrowDown'):
            page.keyboard.press(key)        # edges stop it
        assert tabbed.get_attribute('aria-label') == 'b2, empty'
        assert tabbed.locator('.ring').evaluate('x => getComputedStyle(x).stroke') != 'none'
        page.keyboard.press('Enter')
        board.wait()
        assert board.moves[0] == 'b2' and len(board.moves) == 2
        page.keyboard.press('Space')
        assert board.status == 'b2 is taken: choose an empty cell.' and len(board.moves) == 2
        page.keyboard.press('Tab')
        assert page.evaluate('document.activeElement.textContent') == 'New game'
        page.keyboard.press('Tab')
        page.keyboard.press('Enter')        # Undo, which thereby ends
        assert board.moves == []
        assert tabbed.evaluate('x => x === document.activeElement')


def test_assistive_technology_finds_a_grid(browser, address):
    with opened(browser, address) as page:
        board = Board(page, 4)
        assert 'Black joins top to bottom' in board.root.get_by_role('grid').get_attribute(
            'aria-label')
        assert board.root.get_by_role('row').count() == 4
        assert len(board.free) == board.root.get_by_role('gridcell').count() == 16
        assert board.free[:5] == ['a1', 'b1', 'c1', 'd1', 'a2']
        assert board.root.get_by_role('status').get_attribute('aria-live') == 'polite'
        board.put('b2')
        assert board.cell('b2').get_attribute('aria-label') == 'b2, Black'
        answer = board.moves[1]
        assert board.cell(answer).get_attribute('aria-label') == f'{answer}, White, last move'


def test_another_board_and_colour_and_strength(browser, address):
    with opened(browser, address) as page:
        board = Board(page, 3)
        board.put('a1')
        board.choose('Strength', '1')           # the game goes on
        board.choose('You play', 'White')       # with the seats changed: the agent moves
        board.wait()
        assert len(board.moves) == 3 and board.moves[0] == 'a1'
        board.choose('Board', '5×5')
        board.wait()
        assert len(board.moves) == 1 and board.root.get_by_role('gridcell').count() == 25
        assert 'without a search' in board.root.locator('.about').inner_text()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_phone(browser, address, scheme):
    """Nothing runs over the side, and what is to be touched is large enough for a finger."""
    with opened(browser, address, viewport={'width': 375, 'height': 812}, has_touch=True,
                color_scheme=scheme) as page:
        board = Board(page, play.boardsizes()[-1])
        board.cell('a1').tap()
        board.wait()
        board.press('Hint')
        assert len(board.moves) == 2
        assert page.evaluate('document.documentElement.scrollWidth') <= 375
        # 24 pixels: success criterion 2.5.8 of WCAG 2.2.
        for place in board.root.locator('.cell .heat, button, label').all():
            box = place.bounding_box()
            assert min(box['width'], box['height']) >= 24
            assert box['x'] >= 0 and box['x'] + box['width'] <= 375


def test_without_scripts(browser, address):
    with opened(browser, address, java_script_enabled=False) as page:
        assert page.locator('figure svg').is_visible()
        assert 'agent played itself' in page.locator('figcaption').inner_text()


def test_two_boards_in_a_page(browser, tmp_path):
    path = tmp_path/'two.html'
    path.write_text(f'<meta charset="utf-8">{play.page(play.agent(3)).html()}'
                    f'{play.page(play.agent(4)).html()}', 'utf-8')
    with opened(browser, path.as_uri()) as page:
        first, second = Board(page, 3), Board(page, 4, nodes=4, which=1)
        second.put('a1')
        assert first.moves == [] and second.moves[0] == 'a1'
        assert first.root.get_by_role('radio', name='16', exact=True).is_checked()


def test_as_a_live_notebook_inserts_it(browser, tmp_path):
    """Jupyter sets an output's innerHTML, which runs no script, and then puts a new script element
    in the place of each."""
    path = tmp_path/'empty.html'
    path.write_text('<meta charset="utf-8"><div id="output"></div>', 'utf-8')
    with opened(browser, path.as_uri()) as page:
        page.evaluate('''html => {
            const output = document.querySelector('#output');
            output.innerHTML = html;
            for (const old of output.querySelectorAll('script')) {
                const script = document.createElement('script');
                for (const {name, value} of old.attributes) script.setAttribute(name, value);
                script.textContent = old.textContent;
                old.replaceWith(script);
            }
        }''', play.page().html())
        board = Board(page, 3)
        board.put('b2')
        assert len(board.moves) == 2


# The built book

@pytest.fixture(scope='module')
def built():
    """The built pages, if they are those of the chapters as they are now."""
    if not PAGES:
        pytest.skip('there is no built book: run make book')
    for name in notebooks.pages():
        page, [source] = HTML/f'{name}.html', ROOT.glob(f'{name}.*')
        if not page.exists() or page.stat().st_mtime < source.stat().st_mtime:
            pytest.skip(f'the built book is older than {source.name}: run make book')
    return HTML


@pytest.fixture(scope='module')
def book(built, browser):
    """What every built page shows as text, links to, and can be linked at."""
    found = {}
    for name in PAGES:
        with opened(browser, (HTML/name).as_uri()) as page:
            # The outermost page only leads to the first chapter.
            page.wait_for_function('!document.querySelector("meta[http-equiv=refresh]")'
                                   ' && document.readyState === "complete"')
            found[name] = page.evaluate('''async () => {
                await window.MathJax?.startup?.promise;
                return {
                  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
                  anchors: [...document.querySelectorAll('[id], a[name]')].map(x => x.id || x.name),
                  text: document.body.innerText};
            }''')
    return found


def test_pages_log_no_error_and_ask_for_nothing(book):
    assert 'book/index.html' in book and len(book) == len(PAGES)     # `opened` has watched them
    for name, page in book.items():
        assert 'Loading widget' not in page['text'], name


def test_every_internal_link_leads_somewhere(book):
    dead, followed = [], 0
    for name, page in book.items():
        for address in page['links']:
            parts = urlsplit(address)
            if parts.scheme != 'file':
                continue
            followed += 1
            path = Path(unquote(parts.path))
            there = path.relative_to(HTML).as_posix() if path.is_relative_to(HTML) else None
            anchor = unquote(parts.fragment)
            if not path.is_file() or anchor and there in book and anchor not in (
                    *book[there]['anchors'], 'top'):
                dead.append(f'{name}: {address}')
    assert not dead and followed > 10*len(book)


def test_the_first_page_plays(built, browser):
    with opened(browser, (built/'book'/'index.html').as_uri()) as page:
        board = Board(page, 3)
        board.finish()
        _, transition = replay(board.moves, 3, 16, 1)
        assert transition.terminal


def test_the_search_finds_a_chapter(built, browser):
    with opened(browser, (built/'book'/'index.html').as_uri()) as page:
        page.keyboard.press('Control+k')
        page.keyboard.type('pseudo-wins')
        page.keyboard.press('Enter')
        page.get_by_role('link', name='Why pseudo-wins').wait_for()
        page.get_by_text('Search finished').wait_for()
