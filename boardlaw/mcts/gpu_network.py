"""The network's forward pass on a GPU, in Triton, for the search.

Products take float16 and add up in float32; the residual stream, the biases and what comes out
are float32; activations beyond float16's range end as nan or infinity, which the search reports.
Of a network at most :data:`FUSED_WIDTH` wide a program evaluates a block of positions
from the first layer to the heads without leaving the chip. A wider one is a kernel a layer, which
reads and writes the residual stream once. The matrix units of cards before Ampere are out of
Triton's reach, and its kernels many times slower there: on these torch does the products.
"""
import torch
import torch.nn.functional as F
import triton
import triton.language as tl

#: Networks at most this wide are evaluated in one kernel.
FUSED_WIDTH = 128

#: Tiles: rows (positions), columns, inner steps and outputs at once; warps; stages of the pipeline.
FUSED = {'M': 64, 'N': FUSED_WIDTH, 'K': 64, 'H': 64, 'num_warps': 4, 'num_stages': 2}
WIDE = {'M': 128, 'N': 128, 'K': 64, 'num_warps': 8, 'num_stages': 3}


@triton.jit
def _tile(pointer, row, column, stride):
    return tl.load(pointer + row.to(tl.int64)[:, None]*stride + column[None, :])


@triton.jit
def _relu(x):
    return tl.where(x < 0., 0., x)   # nan stays nan


@triton.jit
def _perceptron(obs, first, first_bias, body, body_bias, alphas, heads, heads_bias, out,
                INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, DEPTH: tl.constexpr,
                M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, H: tl.constexpr):
    """A whole network of width ``N``, ``M`` positions a program, ``H`` outputs at a time."""
    row = tl.program_id(0)*M + tl.arange(0, M)
    column, inner, head = tl.arange(0, N), tl.arange(0, K), tl.arange(0, H)
    x = tl.zeros((M, N), tl.float32)
    for k in range(0, INPUTS, K):
        x = tl.dot(_tile(obs, row, k + inner, INPUTS),
                   tl.trans(_tile(first, column, k + inner, INPUTS)), x)
    x += tl.load(first_bias + column)[None, :]
    for layer in range(DEPTH):
        w = tl.trans(_tile(body + layer*N*N, column, column, N))
        y = tl.dot(_relu(x).to(tl.float16), w) + tl.load(body_bias + layer*N + column)[None, :]
        x += tl.load(alphas + layer)*y
    x = x.to(tl.float16)
    for h in range(0, OUTPUTS, H):
        y = tl.dot(x, tl.trans(_tile(heads, h + head, column, N)))
        y += tl.load(heads_bias + h + head)[None, :]
        tl.store(out + row.to(tl.int64)[:, None]*OUTPUTS + (h + head)[None, :], y)


@triton.jit
def _linear(x, w, bias, alpha, z, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
            RESIDUAL: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
    """``z = x w' + bias``, or with ``RESIDUAL`` ``z = x + alpha*(relu(x) w' + bias)``."""
    row = tl.program_id(1)*M + tl.arange(0, M)
    column, inner = tl.program_id(0)*N + tl.arange(0, N), tl.arange(0, K)
    total = tl.zeros((M, N), tl.float32)
    for k in range(0, INPUTS, K):
        a = _tile(x, row, k + inner, INPUTS)
        if RESIDUAL:
            a = _relu(a)
        total = tl.dot(a.to(tl.float16), tl.trans(_tile(w, column, k + inner, INPUTS)), total)
    total += tl.load(bias + column)[None, :]
    if RESIDUAL:
        total = _tile(x, row, column, OUTPUTS) + tl.load(alpha)*total
    tl.store(z + row.to(tl.int64)[:, None]*OUTPUTS + column[None, :], total)


def _tile_size(x, most):
    """A power of two that a product accepts: the least that holds ``x``, but at most ``most``."""
    return max(16, min(most, triton.next_power_of_2(x)))


def _padded(x, tile):
    return -(-x//tile)*tile


def _has_units(device):
    """Whether Triton's products run on the matrix units of a device."""
    return device.type != 'cuda' or torch.cuda.get_device_capability(device) >= (8, 0)


class Forward:
    """A network's weights and activations for `[n]` positions, in buffers made once.

    All are padded to whole tiles; what lies beyond the edges of weights and observations is 0.

    Attributes:
        obs: `[>= n, >= 2*S*S]` float16, what is evaluated.
        out: `[>= n, >= S*S + 1]` float32: the policy's logits, invalid actions included, and the
            value before its tanh, for the mover.
        by_torch: whether torch does the products.
    """

    def __init__(self, n, boardsize, width, depth, device):
        def half(*shape):
            return torch.zeros(shape, dtype=torch.float16, device=device)

        def single(*shape):
            return torch.zeros(shape, device=device)

        self.n, self.boardsize, self.depth = n, boardsize, depth
        inputs, outputs = 2*boardsize**2, boardsize**2 + 1
        self.fused, self.by_torch = width <= FUSED_WIDTH, not _has_units(device)
        self.launch = dict(FUSED if self.fused else WIDE)
        sizes = {'M': n, 'N': width, 'K': inputs, 'H': outputs}
        if not self.fused:   # widths are inner and outer dimensions alike
            sizes |= {'K': min(inputs, width), 'N': min(outputs, width)}
        self.launch |= {k: _tile_size(sizes[k], self.launch[k]) for k in sizes.keys() & self.launch}
        m, n_tile, k = (self.launch[x] for x in 'MNK')
        width = _padded(width, max(n_tile, 1 if self.fused else k))
        inputs = _padded(inputs, k)
        outputs = _padded(outputs, self.launch['H'] if self.fused else n_tile)
        n = _padded(n, m)
        self.first, self.first_bias = half(width, inputs), single(width)
        self.body, self.body_bias = half(depth, width, width), single(depth, width)
        self.alphas = single(depth)
        self.heads, self.heads_bias = half(outputs, width), single(outputs)
        self.obs, self.out = half(n, inputs), single(n, outputs)
        self.x = None if self.fused else single(2, n, width)

    @torch.no_grad()
    def load(self, network):
        """Copies the weights of a :class:`boardlaw.networks.Network`."""
        first, *layers = network.body
        policy, value = network.policy.core, network.value.core
        n_cells = self.boardsize**2
        copies = [(self.first, first.weight), (self.first_bias, first.bias),
                  (self.heads, policy.weight), (self.heads_bias, policy.bias),
                  (self.heads[n_cells:], value.weight), (self.heads_bias[n_cells:], value.bias)]
        for i, layer in enumerate(layers):
            copies += [(self.body[i], layer.weight), (self.body_bias[i], layer.bias),
                       (self.alphas[i], layer.α)]
        torch._foreach_copy_([to[tuple(slice(k) for k in source.shape)] for to, source in copies],
                             [source for _, source in copies])

    def __call__(self):
        """Evaluates ``obs`` into ``out``."""
        if self.by_torch:
            self._torch()
            return
        rows, inputs = self.obs.shape
        if self.fused:
            _perceptron[(rows//self.launch['M'],)](
                self.obs, self.first, self.first_bias, self.body, self.body_bias, self.alphas,
                self.heads, self.heads_bias, self.out, INPUTS=inputs,
                OUTPUTS=self.out.shape[1], DEPTH=self.depth, **self.launch)
            return
        a, b = self.x
        self._linear(self.obs, self.first, self.first_bias, a)
        for i in range(self.depth):
            self._linear(a, self.body[i], self.body_bias[i], b, self.alphas[i])
            a, b = b, a
        self._linear(a, self.heads, self.heads_bias, self.out)

    @torch.no_grad()
    def _torch(self):
        x = F.linear(self.obs, self.first).float() + self.first_bias
        for w, bias, alpha in zip(self.body, self.body_bias, self.alphas):
            x += alpha*(F.linear(x.relu().half(), w).float() + bias)
        torch.add(F.linear(x.half(), self.heads).float(), self.heads_bias, out=self.out)

    def _linear(self, x, w, bias, z, alpha=None):
        outputs, inputs = w.shape
        _linear[(outputs//self.launch['N'], len(x)//self.launch['M'])](
            x, w, bias, bias if alpha is None else alpha, z, INPUTS=inputs,
            OUTPUTS=outputs, RESIDUAL=alpha is not None, **self.launch)
