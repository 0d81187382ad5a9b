"""The rules of Hex in plain Python, for the tests: slow, and independent of boardlaw.hex.

Black (seat 0) moves first and joins row 0 to row S-1; White (seat 1) joins column 0 to column S-1.
A game is a dict of stones and whose turn it is; everything else is worked out anew when asked for.
"""

STEPS = ((-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0))


class Game:
    def __init__(self, size, stones=(), seat=0):
        self.size, self.stones, self.seat = size, dict(stones), seat

    def cells(self):
        return [(r, c) for r in range(self.size) for c in range(self.size)]

    def flood(self, seat, edge):
        """The stones of ``seat`` that chains join to ``edge``, a set of cells."""
        reached = set()
        fresh = {cell for cell in edge if self.stones.get(cell) == seat}
        while fresh:
            reached |= fresh
            near = {(r + dr, c + dc) for r, c in fresh for dr, dc in STEPS}
            fresh = {cell for cell in near - reached if self.stones.get(cell) == seat}
        return reached

    def edges(self, seat):
        """The cells of the two edges that ``seat`` wants to join."""
        line, end = range(self.size), self.size - 1
        if seat == 0:
            return [(0, c) for c in line], [(end, c) for c in line]
        return [(r, 0) for r in line], [(r, end) for r in line]

    def winners(self):
        """Every seat that has joined its edges."""
        return [seat for seat in (0, 1)
                if self.flood(seat, self.edges(seat)[0]) & set(self.edges(seat)[1])]

    def labels(self):
        """Rows of '.bwTBLR'."""
        text = {cell: 'bw'[seat] for cell, seat in self.stones.items()}
        for seat, names in ((0, 'TB'), (1, 'LR')):
            for name, edge in zip(names, self.edges(seat)):
                text.update((cell, name) for cell in self.flood(seat, edge))
        return [''.join(text.get((r, c), '.') for c in range(self.size)) for r in range(self.size)]

    def seen(self, r, c):
        """The board's cell at row r, column c of the mover's frame."""
        return (r, c) if self.seat == 0 else (c, r)

    def obs(self):
        """Rows of columns of [mover's stone, other's stone]."""
        return [[[float(self.stones.get(self.seen(r, c)) == seat)
                  for seat in (self.seat, 1 - self.seat)]
                 for c in range(self.size)] for r in range(self.size)]

    def valid(self):
        return [self.seen(r, c) not in self.stones for r, c in self.cells()]

    def step(self, action, reset=True):
        """(the next game, rewards, terminal)."""
        cell = self.seen(action//self.size, action % self.size)
        assert 0 <= action < self.size**2 and cell not in self.stones
        won_before = bool(self.winners())
        after = Game(self.size, {**self.stones, cell: self.seat}, 1 - self.seat)
        if won_before or self.seat not in after.winners():
            return after, [0., 0.], False
        rewards = [1., -1.] if self.seat == 0 else [-1., 1.]
        return (Game(self.size) if reset else after), rewards, True
