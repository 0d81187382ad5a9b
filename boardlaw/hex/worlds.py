"""Many games of Hex side by side, as one immutable bundle of tensors.

Seat 0 is Black: it moves first and joins top to bottom. Seat 1 is White and joins left to right.
Observations, valid actions and actions are in the *mover's frame*: when White is to move the board
is transposed and the colours swapped, so that the mover always plays top to bottom and a network
needs to learn one side only. Action ``a`` is row ``a // S``, column ``a % S`` of that frame.

Explained in the chapter book/hex.ipynb.
"""
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch

from .. import gpu, threads
from . import kernels

#: The character of each board label: empty, black, white, black joined to the top, black joined
#: to the bottom, white joined to the left, white joined to the right.
LABELS = '.bwTBLR'

#: The players by seat.
PLAYERS = ('Black', 'White')

#: The board sizes that the bitboards and their tests cover.
BOARDSIZES = range(1, 20)

_SLICE = 256   # the fewest games worth a second thread


class BadAction(ValueError):
    """An action that the rules do not allow; the world it was meant for is unchanged.

    What to do: choose one of the actions that `world.valid` allows in the environment that the
    message names.
    """


class BadBoard(ValueError):
    """A board of a size that is not supported, or a text that is not one.

    What to do: use a size from 1 to 19, or write the text as `world.text()` does.
    """


@cache
def neighbours(boardsize):
    """`[S*S, n_words]` uint64: the neighbours of each cell as bitboards, computed once for each
    board size."""
    return kernels.neighbours(boardsize)


def _gpu_kernels():
    from . import gpu_kernels  # needs triton
    return gpu_kernels


def _first(mask):
    """The index of a mask's first True; -1 if there is none."""
    where = mask.nonzero()
    return int(where[0]) if len(where) else -1


@dataclass(frozen=True)
class Transition:
    """The results of a step.

    Attributes:
        rewards: `[n_envs, n_seats]` float32, +1 for the winner and -1 for the loser on the move
            that ends a game, else 0.
        terminal: `[n_envs]` bool, whether this move ended the game.
    """
    rewards: torch.Tensor
    terminal: torch.Tensor


@dataclass(frozen=True, eq=False)
class Hex:
    """A batch of Hex games; every method returns a new world.

    Make one with :meth:`Hex.initial` or :meth:`Hex.parse`.

    Attributes:
        bits: `[n_envs, 2, 4, n_words]` int64, the bitboards of :mod:`boardlaw.hex.kernels`.
        seats: `[n_envs]` int64, whose turn it is: 0 Black, 1 White.
        boardsize: S, cells along an edge.
    """
    bits: torch.Tensor
    seats: torch.Tensor
    boardsize: int

    n_seats = 2

    @classmethod
    def initial(cls, n_envs, boardsize=11, device='cpu'):
        """Empty boards with Black to move."""
        if not hasattr(boardsize, '__index__') or boardsize not in BOARDSIZES:
            raise BadBoard(f'boardsize {boardsize!r} is not supported: choose a whole number from '
                           f'{BOARDSIZES[0]} to {BOARDSIZES[-1]}')
        if not hasattr(n_envs, '__index__') or n_envs < 0:
            raise ValueError(f'n_envs must be a whole number of games, got {n_envs!r}')
        shape = (int(n_envs), 2, 4, kernels.n_words(int(boardsize)))
        return cls(torch.zeros(shape, dtype=torch.int64, device=device),
                   torch.zeros(shape[0], dtype=torch.int64, device=device), int(boardsize))

    @property
    def n_envs(self):
        """The number of games."""
        return len(self.seats)

    @property
    def n_actions(self):
        """A = S*S, the number of cells."""
        return self.boardsize**2

    @property
    def device(self):
        """The torch.device that holds the games."""
        return self.seats.device

    @cached_property
    def obs(self):
        """`[n_envs, S, S, 2]` float32 in the mover's frame: its stones, then the opponent's."""
        if self._on_gpu:
            return _gpu_kernels().observations(self.bits, self.seats, self.boardsize)
        obs = torch.empty((self.n_envs, 2*self.n_actions))
        self._over_games(kernels.observations, self._bits, self._seats,
                         after=[obs.numpy().view(np.uint64)])
        return obs.view(self.n_envs, self.boardsize, self.boardsize, 2).to(self.device)

    @cached_property
    def valid(self):
        """`[n_envs, S*S]` bool in the mover's frame: True where a stone may be placed."""
        if self._on_gpu:
            return ~self.obs.bool().any(-1).flatten(1)
        valid = torch.empty((self.n_envs, self.n_actions), dtype=torch.bool)
        self._over_games(kernels.validity, self._bits, self._seats, after=[valid.numpy()])
        return valid.to(self.device)

    @cached_property
    def board(self):
        """`[n_envs, S, S]` uint8 labels, indices into :data:`LABELS`, as Black sees the board.

        On a finished board (a step with ``reset=False``) only the colours are specified.
        """
        board = torch.empty((self.n_envs, self.boardsize, self.boardsize), dtype=torch.uint8)
        self._over_games(kernels.labels, self._bits, after=[board.numpy()])
        return board.to(self.device)

    @cached_property
    def winner(self):
        """`[n_envs]` int64: the seat that has joined its edges, or -1 while the game is open.

        Stepping with resets clears a board as soon as it is won, so a winner is seen only after
        ``reset=False`` and on boards that were parsed.
        """
        joined = (self.bits[:, :, kernels.TOP] & self.bits[:, :, kernels.BOTTOM]).any(-1).long()
        return joined[:, 0] + 2*joined[:, 1] - 1

    def step(self, actions, reset=True):
        """Places a stone of the mover in every game.

        Args:
            actions: `[n_envs]` ints in the mover's frame.
            reset: whether a game that ends starts again from the empty board, Black to move. If
                not, stones may still be placed on the won board: that gives no rewards.

        Returns:
            The new world and a :class:`Transition`.

        Raises:
            BadAction: the shape or dtype is wrong, or a cell is taken or off the board, or a game
                was over before and ``reset`` is on. The message names the environment and the cell.

        >>> world = Hex.parse('''
        ...     b w .
        ...      b . w
        ...       . . .''')
        >>> _, transition = world.step(torch.tensor([6]), reset=False)
        >>> transition.rewards.tolist(), transition.terminal.tolist()
        ([[1.0, -1.0]], [True])
        """
        actions = self._check(actions)
        if reset:
            self._check_open()
        if self._on_gpu:
            bits, seats, *transition = _gpu_kernels().step(self.bits, self.seats, actions, reset,
                                                           self.boardsize)
            return Hex(bits, seats, self.boardsize), Transition(*transition)
        bits, seats = self._bits.copy(), self._seats.copy()
        rewards = torch.empty((self.n_envs, 2))
        terminal = torch.empty(self.n_envs, dtype=torch.bool)
        self._over_games(kernels.step, bits, seats, actions.numpy(),
                         after=[reset, self.boardsize, neighbours(self.boardsize),
                                rewards.numpy(), terminal.numpy()])
        transition = Transition(rewards.to(self.device), terminal.to(self.device))
        return self._like(bits, seats), transition

    def random_actions(self, keys):
        """`[n_envs]` int64: a uniformly random valid action for each game.

        Args:
            keys: `[n_envs]` uint64 from :func:`boardlaw.rng.keys`.

        Raises:
            BadAction: a board is full.
        """
        keys = self._check_keys(keys)
        if self._on_gpu:
            keys = torch.from_numpy(keys.view(np.int64)).to(self.device)
            actions = _gpu_kernels().random_actions(self.bits, self.seats, keys, self.boardsize)
        else:
            actions = torch.empty(self.n_envs, dtype=torch.int64)
            self._over_games(kernels.random_actions, self._bits, self._seats, keys,
                             after=[self.n_actions, actions.numpy()])
        if (full := actions == self.n_actions).any():
            raise BadAction(f'environment {int(full.long().argmax())}: the board is full')
        return actions.to(self.device)

    def random_steps(self, n_steps, keys):
        """Plays ``n_steps`` uniformly random moves in every game, with resets.

        The compiled loop builds every observation on the way, as an agent would see it, and keeps
        the last.

        Args:
            keys: `[n_envs]` uint64 from :func:`boardlaw.rng.keys`; move t takes the t-th draw.

        Returns:
            The new world and `[n_envs, 2]` int64, the games that each seat won meanwhile.

        Raises:
            BadAction: a game is over already.
        """
        self._check_open()
        keys = self._check_keys(keys)
        bits, seats = self._bits.copy(), self._seats.copy()
        wins = torch.zeros((self.n_envs, 2), dtype=torch.int64)
        scratch = np.empty((max(1, self.n_envs), self.n_actions), np.uint64)
        self._over_games(kernels.random_steps, bits, seats, keys, n_steps,
                         after=[self.boardsize, neighbours(self.boardsize), scratch, wins.numpy()])
        return self._like(bits, seats), wins

    def __getitem__(self, index):
        """The games at ``index``: an int (a batch of one), a slice, a mask, or several ints."""
        if isinstance(index, (int, np.integer)) and not -self.n_envs <= index < self.n_envs:
            raise IndexError(f'game {index} of a world that has {self.n_envs}')
        if isinstance(index, slice) and (index.step or 1) < 0:   # torch knows no backward slices
            index = list(range(self.n_envs)[index])
        if not isinstance(index, slice):
            index = self._game_index(index)
        return Hex(self.bits[index], self.seats[index], self.boardsize)

    def __len__(self):
        return self.n_envs

    @classmethod
    def cat(cls, worlds):
        """One world with the games of all `worlds` in order; they must have one board size."""
        worlds = list(worlds)
        if len({w.boardsize for w in worlds}) != 1:
            raise BadBoard('cat needs at least one world, and all of the same board size; got '
                           f'sizes {[w.boardsize for w in worlds]}')
        return cls(torch.cat([w.bits for w in worlds]), torch.cat([w.seats for w in worlds]),
                   worlds[0].boardsize)

    def to(self, device):
        """The same games on another device."""
        return Hex(self.bits.to(device), self.seats.to(device), self.boardsize)

    def clone(self):
        """A copy that shares no memory."""
        return Hex(self.bits.clone(), self.seats.clone(), self.boardsize)

    @classmethod
    def parse(cls, text, seat=None, device='cpu'):
        """Reads one board from text.

        Rows are lines; '.' is empty, 'b', 'T' and 'B' are black, 'w', 'L' and 'R' white (which
        stones are joined to an edge is worked out anew). Spaces are ignored, so the slanted
        drawing of :meth:`text` can be read back.

        Args:
            text: S lines of S characters.
            seat: whose turn it is, 0 Black or 1 White; by default Black's if the colours have
                equally many stones, White's if Black has one more.

        Raises:
            BadBoard: the text is not a board, or whose turn it is does not follow from it.

        >>> world = Hex.parse('''
        ...     b w .
        ...      b . .
        ...       . w .''')
        >>> world.seats.tolist(), int(world.valid.sum())
        ([0], 5)
        """
        if seat not in (None, 0, 1):
            raise BadBoard(f'seat must be 0 (Black) or 1 (White), got {seat!r}')
        rows = [''.join(line.split()) for line in text.strip().splitlines()]
        rows = [row for row in rows if row]
        size = len(rows)
        if size not in BOARDSIZES:
            raise BadBoard(f'a board has {BOARDSIZES[0]} to {BOARDSIZES[-1]} rows, got {size}')
        for r, row in enumerate(rows):
            if len(row) != size:
                raise BadBoard(f'row {r} has {len(row)} cells on a board of {size} rows: {row!r}')
            if (odd := set(row) - set(LABELS)):
                raise BadBoard(f'row {r} holds {sorted(odd)}: a cell is one of {LABELS!r}')
        black = [r*size + c for r, row in enumerate(rows) for c, x in enumerate(row) if x in 'bTB']
        white = [c*size + r for r, row in enumerate(rows) for c, x in enumerate(row) if x in 'wLR']
        if seat is None:
            if len(black) - len(white) not in (0, 1):
                raise BadBoard(f'{len(black)} black and {len(white)} white stones: whose turn it '
                               'is does not follow from the counts; pass seat=0 or seat=1')
            seat = len(black) - len(white)
        world = cls.initial(1, size)
        for mover, cells in enumerate((black, white)):
            kernels.place_all(world._bits[0], mover, np.array(cells, np.int64), size,
                              neighbours(size))
        world.seats[0] = seat
        return world.to(device)

    def text(self, i=0):
        """Game ``i`` as text, each row shifted half a cell, for the eye and for :meth:`parse`."""
        board = self[i].board[0].tolist()
        return '\n'.join(' '*r + ' '.join(LABELS[x] for x in row) for r, row in enumerate(board))

    def __repr__(self):
        return f'Hex(n_envs={self.n_envs}, boardsize={self.boardsize}, device={str(self.device)!r})'

    def _repr_html_(self):
        from . import drawing
        return drawing.gallery(self)

    @property
    def _on_gpu(self):
        return gpu.usable(self.device, self.boardsize)

    @property
    def _bits(self):
        return self.bits.cpu().contiguous().numpy().view(np.uint64)

    @property
    def _seats(self):
        return self.seats.cpu().contiguous().numpy()

    def _like(self, bits, seats):
        bits = torch.from_numpy(bits.view(np.int64)).to(self.device)
        return Hex(bits, torch.from_numpy(seats).to(self.device), self.boardsize)

    def _over_games(self, kernel, *before, after):
        threads.split(lambda start, stop: kernel(*before, start, stop, *after), self.n_envs, _SLICE)

    def _game_index(self, index):
        """``index`` as a tensor of ints or a mask."""
        try:
            if isinstance(index, tuple):
                raise TypeError('games have one dimension')
            tensor = torch.as_tensor(index, device=self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError('games are indexed by an int, a slice, a mask or several ints, not by '
                            f'{index!r}') from error
        if tensor.dtype == torch.bool:
            if tensor.shape != (self.n_envs,):
                raise IndexError(f'a mask needs shape [{self.n_envs}], one bool a game; got '
                                 f'{list(tensor.shape)}')
            return tensor
        if tensor.dim() > 1 or (tensor.is_floating_point() and tensor.numel()):
            raise IndexError(f'games are indexed by one row of ints, got shape {list(tensor.shape)}'
                             f' and dtype {tensor.dtype}')
        return tensor.reshape(-1).long()

    def _check_keys(self, keys):
        keys = np.asarray(keys)
        if keys.shape != (self.n_envs,) or keys.dtype != np.uint64:
            raise ValueError(f'keys must be [{self.n_envs}] uint64, as boardlaw.rng.keys gives; '
                             f'got {list(keys.shape)} {keys.dtype}')
        return keys

    def first_over(self):
        """The first game that is over; -1 if there is none."""
        return _first(self.winner >= 0) if self._on_gpu else kernels.first_over(self._bits)

    def _check_open(self):
        if (e := self.first_over()) >= 0:
            raise BadAction(f'environment {e}: the game is over, {PLAYERS[self.winner[e]]} has '
                            'won; step with reset=False to place further stones')

    def _check(self, actions):
        try:
            actions = torch.as_tensor(actions)
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadAction(f'actions must be [{self.n_envs}] whole numbers: {error}') from error
        if actions.numel() == 0:
            actions = actions.long()   # an empty list has no dtype of its own
        if actions.dtype == torch.bool or actions.is_floating_point() or actions.is_complex():
            raise BadAction(f'actions must be whole numbers, got dtype {actions.dtype}')
        if tuple(actions.shape) != (self.n_envs,):
            raise BadAction(f'actions must have shape [{self.n_envs}], one for each game; got '
                            f'{list(actions.shape)}')
        if self._on_gpu:
            actions = actions.to(self.device, torch.int64)
            bad = _first(~((actions >= 0) & (actions < self.n_actions) & self.valid.gather(
                1, actions.clamp(0, self.n_actions - 1)[:, None])[:, 0]))
        else:
            actions = actions.to('cpu', torch.int64).contiguous()
            bad = kernels.first_bad(self._bits, self._seats, actions.numpy(), self.n_actions)
        if bad >= 0:
            a, size = int(actions[bad]), self.boardsize
            mover = PLAYERS[self.seats[bad]]
            if not 0 <= a < size**2:
                raise BadAction(f'environment {bad}: action {a} of {mover} names no cell of the '
                                f'{size}x{size} board; cells are 0 to {size**2 - 1}')
            r, c = divmod(a, size)
            if mover == 'White':
                r, c = c, r
            raise BadAction(f'environment {bad}: action {a} of {mover}, cell (row {r}, column {c}) '
                            'of the board, already holds a stone')
        return actions
