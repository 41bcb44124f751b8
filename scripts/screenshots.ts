/**
 * Makes the pictures of the README: runs the workstation in a real terminal (tmux), presses keys, and draws what
 * is on the screen as SVG. `node_modules/.bin/node scripts/screenshots.ts` writes docs/images/*.svg.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import headless from '@xterm/headless';
import { Terminal as Tmux } from '../test/support/tmux.ts';

const COLUMNS = 150;
const ROWS = 42;
const CELL = { width: 8, height: 17, baseline: 13 };
const PAPER = '#11151c';
const INK = '#c9d1d9';
/** The sixteen colours, as most dark terminals have them. */
const PALETTE = [
  ...['#484f58', '#ff7b72', '#3fb950', '#d29922', '#58a6ff', '#bc8cff', '#39c5cf', '#b1bac4'],
  ...['#6e7681', '#ffa198', '#56d364', '#e3b341', '#79c0ff', '#d2a8ff', '#56d4dd', '#f0f6fc'],
];

const folder = fileURLToPath(new URL('../docs/images/', import.meta.url));
const nemu = fileURLToPath(new URL('../bin/nemu', import.meta.url));

/** A piece of a row whose cells look the same. */
interface Run {
  text: string;
  readonly column: number;
  width: number;
  readonly ink: string;
  readonly paper: string | undefined;
  readonly style: string;
}

type Cell = NonNullable<ReturnType<NonNullable<ReturnType<headless.IBuffer['getLine']>>['getCell']>>;

function colour(cell: Cell, side: 'Fg' | 'Bg'): string | undefined {
  const number = cell[`get${side}Color`]();
  if (cell[`is${side}RGB`]()) return `#${number.toString(16).padStart(6, '0')}`;
  if (!cell[`is${side}Palette`]()) return undefined;
  if (number < 16) return PALETTE[number];
  if (number > 231) return `#${(8 + 10 * (number - 232)).toString(16).padStart(2, '0').repeat(3)}`;
  const level = (index: number) => (index === 0 ? 0 : 55 + 40 * index);
  const cube = number - 16;
  const parts = [Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level);
  return `#${parts.map((part) => part.toString(16).padStart(2, '0')).join('')}`;
}

function runsOf(line: NonNullable<ReturnType<headless.IBuffer['getLine']>>): Run[] {
  const runs: Run[] = [];
  for (let column = 0; column < line.length; ) {
    const cell = line.getCell(column) as Cell;
    const [fg, bg] = [colour(cell, 'Fg') ?? INK, colour(cell, 'Bg')];
    const [ink, paper] = cell.isInverse() ? [bg ?? PAPER, fg] : [fg, bg];
    const style = [
      ...(cell.isBold() ? ['font-weight="bold"'] : []),
      ...(cell.isDim() ? ['opacity="0.6"'] : []),
      ...(cell.isUnderline() ? ['text-decoration="underline"'] : []),
    ].join(' ');
    const text = cell.getChars() || ' ';
    const last = runs.at(-1);
    if (last && last.ink === ink && last.paper === paper && last.style === style) {
      last.text += text;
      last.width += cell.getWidth();
    } else {
      runs.push({ text, column, width: cell.getWidth(), ink, paper, style });
    }
    column += Math.max(1, cell.getWidth());
  }
  return runs;
}

const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** Bits of a braille cell (U+2800), by column and row. */
const DOTS = [
  [0, 1, 2, 6],
  [3, 4, 5, 7],
];

/** Braille as dots, since few fonts have it as wide as their letters. Their path, or nothing. */
function dots(text: string, x: number, y: number): string {
  const moves = [...text].flatMap((character, cell) => {
    const bits = character.charCodeAt(0) - 0x2800;
    if (bits <= 0 || bits > 0xff) return [];
    return DOTS.flatMap((column, across) =>
      column.flatMap((bit, down) =>
        bits & (1 << bit) ? [`M${x + cell * CELL.width + 2 + 4 * across} ${y + 2.5 + 4 * down}h0`] : [],
      ),
    );
  });
  return moves.join('');
}

/** @param screen rows of text with SGR sequences, as tmux captures them. */
async function draw(screen: string, title: string): Promise<string> {
  const terminal = new headless.Terminal({ cols: COLUMNS, rows: ROWS, allowProposedApi: true });
  await new Promise<void>((resolve) => {
    terminal.write(screen.trimEnd().split('\n').slice(-ROWS).join('\r\n'), resolve);
  });
  const [width, height] = [COLUMNS * CELL.width + 24, ROWS * CELL.height + 24];
  const shapes: string[] = [];
  for (let row = 0; row < ROWS; row++) {
    const line = terminal.buffer.active.getLine(row);
    for (const { text: whole, column, width: cells, ink, paper, style } of line ? runsOf(line) : []) {
      const y = 12 + row * CELL.height;
      if (paper) {
        const size = `width="${cells * CELL.width}" height="${CELL.height}"`;
        shapes.push(`<rect x="${12 + column * CELL.width}" y="${y}" ${size} fill="${paper}"/>`);
      }
      const drawn = dots(whole, 12 + column * CELL.width, y);
      if (drawn !== '') shapes.push(`<path d="${drawn}" stroke="${ink}" stroke-width="2" stroke-linecap="round"/>`);
      const letters = whole.replaceAll(/[\u2800-\u28ff]/g, ' ');
      const text = letters.trim();
      if (text === '') continue;
      const before = letters.length - letters.trimStart().length;
      const x = 12 + (column + before) * CELL.width;
      // The length is said, so that columns stay columns whatever font there is; blanks at the ends do not count in it.
      const long = (cells - before - (letters.length - letters.trimEnd().length)) * CELL.width;
      shapes.push(
        `<text x="${x}" y="${y + CELL.baseline}" textLength="${long}" lengthAdjust="spacingAndGlyphs" fill="${ink}"${style ? ` ${style}` : ''}>${escaped(text)}</text>`,
      );
    }
  }
  terminal.dispose();
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" rx="8" fill="${PAPER}"/>`,
    `<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13.29" xml:space="preserve">`,
    ...shapes,
    '</g>',
    '</svg>',
    '',
  ].join('\n');
}

const tmux = new Tmux(COLUMNS, ROWS, { LC_ALL: 'C.UTF-8', TERM: 'xterm-256color' });
const picture = async (name: string, title: string) => {
  writeFileSync(`${folder}${name}.svg`, await draw(tmux.colours, title));
  console.error(`docs/images/${name}.svg: ${title}`);
};
try {
  mkdirSync(folder, { recursive: true });
  tmux.line(`${nemu} workstation --cpus 2,max=8 --memory 1G,max=8G --rng --device balloon --name demo`);
  await tmux.until('guest settled', 180_000);
  // The console is typed into, as a person would. The shell may lose what comes with the terminal's first answer.
  tmux.press('5', 'i', 'Enter');
  await tmux.until(/~ # [^\n]*\n.*~ # /);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  tmux.line('uname -srm; free -m | head -2');
  await tmux.until('Mem:');
  tmux.press('C-]', '2', 'Down', ':');
  tmux.line('cpu add 2');
  await tmux.until(/vCPUs 4\/8/);
  await tmux.until('[ vCPU 2, vCPU 3 ]');
  tmux.press(':');
  tmux.line('memory plug 1G');
  await tmux.until(/plug dimm0: online/);
  await tmux.until(/dimm0/);
  // The last pictures of the graphs.
  await new Promise((resolve) => setTimeout(resolve, 5000));
  await picture('workstation', 'The workstation: two CPUs and a DIMM were plugged into a running guest.');
  tmux.press('a');
  await tmux.until('virtio-blk');
  tmux.type('blk');
  tmux.press('Enter');
  await tmux.until(/^(?![\s\S]*type to narrow)/);
  await picture('plug', 'Plugging a disk: its options, what they may be, and the REPL form of the same.');
  tmux.press('Escape');
  await tmux.until(/^(?![\s\S]*virtio-blk)/);
  tmux.press('?');
  await tmux.until('type to narrow');
  tmux.type('guest');
  await tmux.until(/help guest/);
  await tmux.until(/^(?![\s\S]*to pci)/);
  await picture('help', 'Help: every key, narrowed by typing.');
  // Esc and a key at once would be Alt and that key.
  tmux.press('Escape');
  await tmux.until(/^(?![\s\S]*type to narrow)/);
  tmux.press('q');
  await tmux.until('Sure?');
  tmux.press('y');
  await tmux.until(/(host>|#) \s*$/);
} finally {
  tmux.close();
}
