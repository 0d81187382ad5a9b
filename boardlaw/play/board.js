// The board in the page: it draws, listens and asks the search. Its functions stand in search.js,
// which goes before it into one scope.

const PLAYERS = ['Black', 'White'];
const PAUSE = 350;      // milliseconds before the agent answers: a stone at once is easily missed

const element = (name, attributes = {}, ...content) => {
  const made = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...content);
  return made;
};
const shape = (name, attributes, parent) => {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  return parent.appendChild(made);
};
const percent = p => `${Math.round(100*p)}%`;

function mount(root) {
  const {boards, strengths, colours, ...data} =
    JSON.parse(root.querySelector('script[type="application/json"]').textContent);
  const agents = data.agents.map(makeAgent), largest = agents[agents.length - 1];
  const state = {agent: null, seat: 0, nNodes: largest.n_nodes, moves: [], seed: 0, hint: false};
  let size, board, winner, path, cells, stones, drawnPath, waiting, cursor, note;

  const id = Math.random().toString(36).slice(2);     // radio buttons are grouped by name

  // A row of buttons of which one is down.
  const choice = (title, name, options, chosen, onchange) => {
    const group = element('fieldset', {}, element('legend', {}, title));
    for (const [value, text] of options) {
      const input = element('input', {type: 'radio', name: `${name}-${id}`, value});
      input.checked = value === chosen;
      input.onchange = () => onchange(value);
      group.append(element('label', {}, input, element('span', {}, text)));
    }
    return group;
  };
  const button = (text, onclick) => {
    const made = element('button', {type: 'button'}, text);
    made.onclick = onclick;
    return made;
  };
  const controls = element('div', {class: 'choices'},
    choice('Board', 'board', agents.map((a, i) => [i, `${a.boardsize}×${a.boardsize}`]),
           agents.length - 1, i => start(agents[i])),
    choice('You play', 'seat', [[0, 'Black'], [1, 'White']], 0,
           seat => { state.seat = seat; refresh(); }),
    choice('Strength', 'nodes', strengths.map(n => [n, n]), state.nNodes,
           n => { state.nNodes = n; refresh(); }));
  const status = element('p', {class: 'status', role: 'status', 'aria-live': 'polite'});
  const place = element('div', {class: 'board'});
  const again = button('New game', () => start(state.agent)), back = button('Undo', undo);
  const hint = button('Hint', () => { state.hint = !state.hint; refresh(); });
  const shares = element('div', {class: 'shares', role: 'img'}, element('b'), element('b'));
  const meaning = element('small', {}, 'Green cells: how often, in %, the agent would play there. '
    + 'The bar: how likely it thinks each side is to win.');
  const value = element('div', {class: 'value'}, shares, meaning);
  const about = element('p', {class: 'about'});
  [shares.firstChild, shares.lastChild].forEach((bar, seat) => {
    Object.assign(bar.style, {background: colours.stone[seat], color: colours.stone[1 - seat],
                              borderColor: colours.rim[seat]});
  });
  root.querySelector('.stage').replaceChildren(
    controls, status, place, element('div', {class: 'buttons'}, again, back, hint), value, about);
  root.dataset.ready = '';
  root.dataset.lmSuppressShortcuts = 'true';      // JupyterLab's, while the board has the focus

  const name = cell => `${String.fromCharCode(97 + cell % size)}${Math.floor(cell/size) + 1}`;
  const turn = () => state.moves.length % 2;
  const key = () => makeKey(state.seed, 0, state.moves.length);
  const think = () => search(state.agent, board, turn(), state.nNodes, key());

  function start(agent) {
    const fresh = agent !== state.agent;
    state.agent = agent;
    size = agent.boardsize;
    state.moves = [];
    state.seed = Number(root.dataset.seed ?? Math.floor(Math.random()*2**31));
    if (fresh) build();
    refresh();
  }

  function undo() {
    do state.moves.pop(); while (turn() !== state.seat);
    refresh();
    if (back.disabled) focus(cursor);     // else the focus would be lost with the button
  }

  function put(cell) {
    if (winner !== null || turn() !== state.seat) return;
    if (board[cell]) note = `${name(cell)} is taken: choose an empty cell.`;
    else state.moves.push(cell);
    refresh();
  }

  function answer() {
    state.moves.push(turned(choose(think().policy, key()), turn(), size));
    refresh();
  }

  // Draws the empty board of the package, with cells that can be reached in place of its own.
  function build() {
    place.innerHTML = boards[size];
    const svg = place.firstElementChild, side = 1/Math.sqrt(3);
    const centre = cell => [cell % size + Math.floor(cell/size)/2,
                            Math.floor(cell/size)*Math.sqrt(3)/2];
    const hexagon = (cell, scale) => 'M' + [0, 1, 2, 3, 4, 5].map(k => {
      const [x, y] = centre(cell), angle = Math.PI*(k/3 - .5);
      return `${x + scale*side*Math.cos(angle)} ${y + scale*side*Math.sin(angle)}`;
    }).join('L') + 'z';
    svg.querySelectorAll('title, desc, .cells').forEach(part => part.remove());
    svg.querySelectorAll('text').forEach(text => text.setAttribute('aria-hidden', 'true'));
    svg.removeAttribute('style');
    svg.style.maxWidth = `${64*svg.viewBox.baseVal.width}px`;
    ['width', 'height'].forEach(length => svg.removeAttribute(length));
    svg.setAttribute('role', 'grid');
    svg.setAttribute('aria-label', `Hex board, ${size} by ${size}. Black joins top to bottom, `
      + 'White left to right. Arrow keys move, Enter places a stone.');
    cells = [];
    for (let r = 0; r < size; r++) {
      const row = shape('g', {role: 'row'}, svg);
      for (let c = 0; c < size; c++) {
        const cell = r*size + c, made = shape('g', {role: 'gridcell', class: 'cell'}, row);
        shape('path', {d: hexagon(cell, 1), fill: colours.cell, stroke: colours.grid,
                       'stroke-width': .04}, made);
        shape('path', {d: hexagon(cell, .96), fill: colours.heat, class: 'heat'}, made);
        const [cx, cy] = centre(cell);
        shape('circle', {cx, cy, r: .37, class: 'ghost'}, made);
        shape('path', {d: hexagon(cell, .8), class: 'ring'}, made);
        made.onclick = () => { focus(cell); put(cell); };
        cells.push(made);
      }
    }
    drawnPath = shape('path', {fill: 'none', 'stroke-width': .26, 'stroke-linejoin': 'round',
                               'stroke-linecap': 'round', class: 'over'}, svg);
    stones = cells.map((_, cell) => {
      const [x, y] = centre(cell), over = shape('g', {class: 'over', 'aria-hidden': true}, svg);
      const stone = shape('circle', {cx: x, cy: y, r: .37, 'stroke-width': .09}, over);
      const mark = shape('circle', {cx: x, cy: y, r: .12}, over);
      const text = shape('text', {x, y, dy: '.35em', 'font-size': .36, 'text-anchor': 'middle'},
                         over);
      return {stone, mark, text, centre: [x, y]};
    });
    svg.onkeydown = event => {
      const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0],
                    Enter: [0, 0], ' ': [0, 0]}[event.key];
      if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const r = Math.floor(cursor/size) + step[0], c = cursor % size + step[1];
      if (step[0] || step[1]) {
        if (r >= 0 && r < size && c >= 0 && c < size) focus(r*size + c);
      } else put(cursor);
    };
    cursor = Math.floor(size*size/2);
  }

  // One cell at a time can be reached by Tab, the arrow keys lead to the others.
  function focus(cell) {
    cells[cursor].setAttribute('tabindex', -1);
    cursor = cell;
    cells[cell].setAttribute('tabindex', 0);
    cells[cell].focus();
  }

  // Everything that is shown follows from the moves and the choices.
  function refresh() {
    clearTimeout(waiting);
    board = new Uint8Array(size*size);
    state.moves.forEach((cell, k) => board[cell] = 1 + k % 2);
    const last = state.moves[state.moves.length - 1];
    path = state.moves.length ? chain(board, 1 - turn(), size) : [];
    winner = path.length ? 1 - turn() : null;
    const mine = winner === null && turn() === state.seat;
    const advice = state.hint && mine ? think() : null;
    draw(last, mine, advice);
    report(last, mine, advice);
    if (winner === null && !mine) waiting = setTimeout(answer, PAUSE);
  }

  function draw(last, mine, advice) {
    const {stone: fill, rim} = colours, highest = advice && Math.max(...advice.policy);
    stones.forEach(({stone, mark, text}, cell) => {
      const owner = board[cell] - 1, p = advice?.policy[turned(cell, turn(), size)] ?? 0;
      const seat = Math.max(owner, 0), strength = p && p/highest;
      const made = cells[cell];
      made.querySelector('.ghost').setAttribute('fill', fill[state.seat]);
      stone.style.display = owner < 0 ? 'none' : '';
      stone.setAttribute('fill', fill[seat]);
      stone.setAttribute('stroke', rim[seat]);
      mark.setAttribute('fill', fill[1 - seat]);
      mark.style.display = cell === last ? '' : 'none';
      text.textContent = p >= .005 ? Math.round(100*p) : '';
      text.setAttribute('fill', fill[strength > .65 ? 1 : 0]);
      made.querySelector('.heat').setAttribute('fill-opacity', strength);
      made.classList.toggle('open', mine && owner < 0);
      made.setAttribute('tabindex', cell === cursor ? 0 : -1);
      made.setAttribute('aria-label', [name(cell), PLAYERS[owner] ?? 'empty',
        ...(cell === last ? ['last move'] : []), ...(advice && owner < 0 ? [percent(p)] : [])]
        .join(', '));
    });
    drawnPath.setAttribute('d', path.length
      ? 'M' + path.map(cell => stones[cell].centre.join(' ')).join('L') : '');
    if (path.length) drawnPath.setAttribute('stroke', rim[winner]);
  }

  function report(last, mine, advice) {
    const said = last === undefined || turn() !== state.seat ? '' : `The agent plays ${name(last)}. `;
    const task = said ? '' : `: join ${state.seat ? 'left to right' : 'top to bottom'}`;
    const won = [...path].reverse().map(name).join(' ');
    status.textContent = note ?? (
      winner === state.seat ? `You have won: ${won}.`
      : winner !== null ? `The agent has won: ${won}.`
      : mine ? `${said}Your move${task}.` : 'The agent is thinking.');
    note = null;
    back.disabled = state.moves.length <= state.seat;
    hint.setAttribute('aria-pressed', state.hint);
    value.hidden = !state.hint;
    const black = winner !== null ? 1 - winner : advice ? (1 + advice.value)/2 : null;
    if (black !== null) {
      [black, 1 - black].forEach((share, seat) => {
        const bar = shares.children[seat];
        bar.style.flexGrow = Math.max(share, .001);
        bar.textContent = share >= .2 ? `${PLAYERS[seat]} ${percent(share)}` : '';
      });
      shares.setAttribute('aria-label', `The agent expects Black to win with ${percent(black)}, `
        + `White with ${percent(1 - black)}.`);
    }
    const {width, depth, params, samples} = state.agent;
    const learnt = samples ? `, which learnt from ${Math.round(samples).toLocaleString('en')} `
      + 'positions of its own play' : '';
    const nodes = state.nNodes === 1 ? 'It plays what the network says, without a search. '
      : `It searches a tree of ${state.nNodes} nodes for each move. `;
    about.textContent = `The agent: a network of ${params.toLocaleString('en')} weights `
      + `(${depth} layers of ${width})${learnt}. ${nodes}Seed ${state.seed}, `
      + `moves ${state.moves.map(name).join(' ') || '-'}.`;
  }

  start(largest);
}

document.querySelectorAll('.boardlaw-play:not([data-ready])').forEach(mount);
