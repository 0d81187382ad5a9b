// What boardlaw.rng, .hex, .networks and .mcts compute, in plain JavaScript: on the same weights,
// position and seed it grows the same tree as they do.
//
// Boards are `[S*S]` arrays in Black's frame, 0 empty, 1 Black, 2 White; seats are 0 for Black and
// 1 for White; priors and policies are in the mover's frame, as in Python.
'use strict';

// Random numbers: SplitMix64 of a key and a counter (rng.py).

const GOLDEN = 0x9E3779B97F4A7C15n;
const CHOICE = 1n << 33n;     // the counter of the draw that picks the move

const wrap = x => BigInt.asUintN(64, x);

function draw(key, counter) {
  let x = wrap(key + (BigInt(counter) + 1n)*GOLDEN);
  x = wrap((x ^ (x >> 30n))*0xBF58476D1CE4E5B9n);
  x = wrap((x ^ (x >> 27n))*0x94D049BB133111EBn);
  return x ^ (x >> 31n);
}

const uniform = (key, counter) => (Number(draw(key, counter) >> 41n) + .5)*2**-23;

const makeKey = (seed, game, move) => draw(draw(draw(wrap(BigInt(seed)), 0), game), move);

// The rules (hex/).

const NEIGHBOURS = [[-1, 0], [-1, 1], [0, -1], [0, 1], [1, -1], [1, 0]];

// The cell in Black's frame of an action of `seat`, and the other way round: White's is transposed.
const turned = (action, seat, size) =>
  seat ? action % size*size + Math.floor(action/size) : action;

const placed = (board, cell, seat) => {
  const after = board.slice();
  after[cell] = seat + 1;
  return after;
};

// A shortest chain of a seat's stones from its one edge to its other, [] if there is none.
function chain(board, seat, size) {
  const from = new Map();     // cell -> the cell before it, breadth first
  const across = cell => seat ? cell % size : Math.floor(cell/size);
  board.forEach((stone, cell) => {
    if (stone === seat + 1 && across(cell) === 0) from.set(cell, -1);
  });
  for (let cell of from.keys()) {     // a Map is walked in order, and grows while it is walked
    if (across(cell) === size - 1) {
      const path = [];
      for (; cell >= 0; cell = from.get(cell)) path.push(cell);
      return path;
    }
    const r = Math.floor(cell/size), c = cell % size;
    for (const [i, j] of NEIGHBOURS) {
      const next = (r + i)*size + c + j;
      if (r + i >= 0 && r + i < size && c + j >= 0 && c + j < size
          && board[next] === seat + 1 && !from.has(next)) from.set(next, cell);
    }
  }
  return [];
}

// The network (networks.py), from weights in base64, in the order of play.export.

// A float16 from its bits, for browsers without Float16Array: sign, exponent, fraction.
function fromHalf(bits) {
  const exponent = bits >> 10 & 31, fraction = (bits & 1023)/1024;
  const size = exponent ? 2**(exponent - 15)*(1 + fraction) : 2**-14*fraction;
  return bits >> 15 ? -size : size;
}

function makeNetwork({boardsize, width, depth, dtype, weights}) {
  const {buffer} = Uint8Array.from(atob(weights), c => c.charCodeAt(0)), n = boardsize**2;
  const all = dtype === 'float16' ? Float32Array.from(new Uint16Array(buffer), fromHalf)
    : new Float32Array(buffer);
  let read = 0;
  const take = length => all.subarray(read, read += length);
  const linear = (inputs, outputs) => ({weight: take(inputs*outputs), bias: take(outputs)});
  const product = ({weight, bias}, x) => Float64Array.from(bias, (sum, i) => {
    for (let j = 0, k = i*x.length; j < x.length; j++) sum += weight[k + j]*x[j];
    return sum;
  });
  const first = linear(2*n, width);
  const body = Array.from({length: depth}, () => ({...linear(width, width), alpha: take(1)[0]}));
  const policy = linear(width, n), value = linear(width, 1);

  // The logits of all actions, and the mover's value.
  return (board, seat) => {
    const obs = new Float64Array(2*n);
    for (let action = 0; action < n; action++) {
      const stone = board[turned(action, seat, boardsize)];
      if (stone) obs[2*action + (stone === seat + 1 ? 0 : 1)] = 1;
    }
    let x = product(first, obs);
    for (const layer of body) {
      const y = product(layer, x.map(t => Math.max(t, 0)));
      x = x.map((t, i) => t + layer.alpha*y[i]);
    }
    return {logits: product(policy, x), v: Math.tanh(product(value, x)[0])};
  };
}

// The search (mcts/kernels.py, which derives the formulas). q, v and rewards are Black's.

const SAMPLING = 1e-3, EXACT = 1e-6;      // tolerances of the sum of pi_bar
const FAINT = -75;                        // logits so far below the largest give a prior of 0

// Turns priors into shares pi/(delta + gap) that sum to 1: Newton's method on 1/sum - 1.
function solve(priors, gaps, delta, tolerance) {
  const least = Math.max(1e-36, ...priors.map((p, i) => p - gaps[i]));
  delta = Math.max(delta, least);
  for (let step = 0; step < 100; step++) {
    let total = 0, slope = 0;
    priors.forEach((p, i) => {
      const share = p/(delta + gaps[i]);
      total += share;
      slope += share/(delta + gaps[i]);
    });
    if (Math.abs(total - 1) < tolerance) break;
    const next = Math.max(least, delta + total*(total - 1)/slope);
    if (next === delta) break;
    delta = next;
  }
  return {delta, shares: priors.map((p, i) => p/(delta + gaps[i]))};
}

// pi_bar at a node: its children's shares, the newest first, then what the other actions share in
// proportion to their priors.
function regularised(node, nodes, {c_puct, rule, unvisited}, tolerance) {
  const {children, seat} = node, n = node.prior.length, sign = 1 - 2*seat;
  if (!children.length) return [1];
  const old = rule === '2021';
  const visits = old ? 2*(node.n - 1) + n - children.length : node.n - 1;
  const weight = c_puct*(old ? visits : Math.sqrt(visits))/(visits + n);
  const largest = old ? Math.max(...nodes.map(x => Math.abs(x.q))) || 1 : 1;
  const priors = children.map(child => child.p), q = children.map(child => sign*child.q);
  if (node.rest > 0) {
    priors.push(node.rest);
    q.push(unvisited === 'parent' && !old ? sign*(node.q - node.reward) : -largest);
  }
  const best = Math.max(...q);
  const solved = solve(priors, q.map(x => (best - x)/(2*largest*weight)), node.delta, tolerance);
  node.delta = solved.delta;      // where the next solution begins
  return node.rest > 0 ? solved.shares : [...solved.shares, 0];
}

// The action, and the child if there is one, where the cumulative sum of the shares passes u.
function pick(node, shares, u) {
  const k = node.children.length;
  u *= shares.reduce((a, b) => a + b);
  for (const [i, child] of node.children.entries())
    if ((u -= shares[i]) < 0) return {action: child.action, child};
  if (shares[k] <= 0) return {action: node.children[k - 1].action, child: node.children[k - 1]};
  u *= node.rest/shares[k];
  let action = -1;
  for (const [a, p] of node.prior.entries())
    if (p > 0 && (action = a, (u -= p) < 0)) break;
  return {action};
}

function search(agent, board, seat, nNodes, key) {
  const {network, boardsize: size} = agent;
  const make = (board, seat, more) => ({
    board, seat, reward: 0, terminal: false, v: 0, n: 0, q: 0, delta: 0, rest: 0, children: [],
    ...more});
  const nodes = [make(board, seat, {parent: null})];

  const evaluate = node => {
    const {logits, v} = network(node.board, node.seat);
    const open = action => !node.board[turned(action, node.seat, size)];
    const largest = Math.max(...logits.filter((_, action) => open(action)));
    const weights = logits.map((x, action) =>
      open(action) && x - largest >= FAINT ? Math.exp(x - largest) : 0);
    const total = weights.reduce((a, b) => a + b);
    node.prior = weights.map(x => x/total);     // becomes 0 where there is a child
    node.rest = 1;
    node.v = (1 - 2*node.seat)*v;
  };
  const expand = (node, action) => {
    const {seat} = node, after = placed(node.board, turned(action, seat, size), seat);
    const terminal = chain(after, seat, size).length > 0;
    const child = make(after, 1 - seat, {
      parent: node, action, p: node.prior[action], terminal, reward: terminal ? 1 - 2*seat : 0});
    node.prior[action] = 0;
    node.rest = node.prior.reduce((a, b) => a + b);
    node.children.unshift(child);
    nodes.push(child);
    return child;
  };
  const descend = simulation => {
    let node = nodes[0];
    for (let depth = 0; !node.terminal; depth++) {
      const shares = regularised(node, nodes, agent, SAMPLING);
      const {action, child} = pick(node, shares, uniform(key, 4096*simulation + depth));
      if (!child) return expand(node, action);
      node = child;
    }
    return node;
  };

  let leaf = nodes[0], prior;
  for (let simulation = 1; simulation <= nNodes; simulation++) {
    if (!leaf.terminal) evaluate(leaf);
    prior ??= leaf.prior.slice();
    let value = leaf.v;
    for (let node = leaf; node; node = node.parent) {
      value += node.reward;
      node.n++;
      node.q += (value - node.q)/node.n;
    }
    if (simulation < nNodes) leaf = descend(simulation);
  }

  const root = nodes[0], shares = regularised(root, nodes, agent, EXACT);
  const total = shares.reduce((a, b) => a + b);
  const others = root.rest > 0 ? shares[root.children.length]/(total*root.rest) : 0;
  const policy = root.prior.map(p => p*others);
  root.children.forEach((child, i) => policy[child.action] = shares[i]/total);
  return {policy, prior, value: root.q, rootValue: root.v};
}

// The action that MCTSAgent samples from such a policy.
function choose(policy, key) {
  const rounded = [...policy].map(Math.fround);     // Python keeps policies in float32
  const target = uniform(key, CHOICE)*rounded.reduce((a, b) => a + b);
  let sum = 0, action = -1;
  for (const [a, p] of rounded.entries())
    if (p > 0 && (action = a, (sum += p) >= target)) break;
  return action;
}

const makeAgent = data => ({...data, network: makeNetwork(data)});
