/** Puts tiles on a terminal: keys, mouse, frames, and the terminal as it was when all is over. */
import type { ReadStream, WriteStream } from 'node:tty';
import { copyText } from './clipboard.ts';
import { coloursOf } from './colours.ts';
import { Drawing } from './drawing.ts';
import { DRAG_OFF, DRAG_ON, type MouseEvent, TerminalInput } from './input.ts';
import { SegmentScreen } from './segment_screen.ts';
import { type ThemeName, themeNamed, visible } from './style.ts';
import { type Tile, Tiles } from './tiles.ts';

const ALTERNATE_ON = '\x1b[?1049h\x1b[?7l';
const ALTERNATE_OFF = '\x1b[?7h\x1b[?25h\x1b[?1049l';
const KEYS = 'Ctrl-] and: q leave · n next · b type to all · / search · [ scroll · z zoom · t take over · arrows';
const SCROLLING = 'PgUp PgDn ↑ ↓ scroll · / search upwards · N downwards · q or Esc comes back';
const NOTICE_MS = 4000;
const WHEEL_ROWS = 3;
const ESCAPE = '\x1b';
/** Ctrl-], as it is sent to a guest. */
const LITERAL = Buffer.of(0x1d);

export interface TileScreenOptions {
  readonly input: ReadStream;
  readonly output: WriteStream;
  readonly unicode: boolean;
  readonly theme?: ThemeName;
  readonly mouse?: boolean;
  /** What is typed goes to all from the start. */
  readonly broadcast?: boolean;
  /** Every machine has ended. */
  readonly allEnded: Promise<unknown>;
}

/** Tiles that are shown. `changed` has them drawn; `left` settles when the user leaves or every machine has ended. */
export interface TileScreen {
  changed(): void;
  say(text: string): void;
  readonly left: Promise<void>;
}

/** Shows tiles until the user leaves. Machines are not touched. */
export function showTiles(list: readonly Tile[], options: TileScreenOptions): TileScreen {
  const { input, output } = options;
  const themeName = process.env.NO_COLOR ? 'plain' : (options.theme ?? 'dark');
  const tiles = new Tiles(list, {
    unicode: options.unicode,
    colours: themeName === 'plain' ? 'none' : coloursOf(output, process.env),
  });
  tiles.broadcast = options.broadcast ?? false;
  tiles.footer = options.unicode ? KEYS : KEYS.replaceAll('·', '|');
  const screen = new SegmentScreen(themeNamed(themeName));
  const drawing = new Drawing();
  const keyboard = new TerminalInput();
  const left = Promise.withResolvers<void>();
  let full = false;
  let noticeTimer: NodeJS.Timeout | undefined;

  const draw = () => {
    // What the terminal has not taken yet is to be seen before the next frame is made.
    if (full) return;
    const began = performance.now();
    const text = screen.update(tiles.frame(output.columns, output.rows));
    if (text !== '') full = !output.write(text);
    drawing.took(performance.now() - began);
  };
  drawing.subscribe(draw);
  const drained = () => {
    full = false;
    drawing.request();
  };
  const say = (text: string) => {
    tiles.notice = text;
    clearTimeout(noticeTimer);
    noticeTimer = setTimeout(() => {
      tiles.notice = undefined;
      drawing.request();
    }, NOTICE_MS);
    drawing.request();
  };

  const commands = new TileCommands(tiles, { say, leave: () => left.resolve() });
  const typing = (bytes: Uint8Array) => {
    const problem = tiles.typed(bytes);
    if (problem !== undefined) say(problem);
    drawing.request();
  };
  const command = (bytes: Buffer) => {
    const keys = keysIn(bytes.toString('utf8'));
    for (const [index, { name }] of keys.entries()) {
      if (commands.take(name)) continue;
      keyboard.raw = typing;
      // What came at once with the last of our keys is a guest's.
      const rest = keys.slice(index + 1).map(({ text }) => text);
      if (rest.length > 0) typing(Buffer.from(rest.join('')));
      break;
    }
    tiles.footer = commands.footer;
    drawing.request();
  };
  keyboard.raw = typing;
  keyboard.onLeave = () => {
    if (keyboard.raw === command && commands.waits) {
      // Pressed twice: once for a guest.
      commands.end();
      keyboard.raw = typing;
      typing(LITERAL);
    } else {
      keyboard.raw = command;
      commands.begin();
    }
    tiles.footer = commands.footer;
    drawing.request();
  };
  keyboard.onMouse = (event) => {
    mouse(tiles, event, (text) => say(copyText(text, (sequence) => output.write(sequence))));
    drawing.request();
  };

  const resized = () => {
    screen.clear();
    drawing.request();
  };
  const take = (bytes: Buffer) => keyboard.take(bytes);
  const leave = () => left.resolve();
  input.setRawMode(true);
  input.resume();
  input.on('data', take);
  output.on('resize', resized);
  output.on('drain', drained);
  process.once('SIGHUP', leave);
  process.once('SIGTERM', leave);
  output.write(ALTERNATE_ON + (options.mouse === false ? '' : DRAG_ON));
  drawing.request();
  void options.allEnded.then(leave);

  const done = left.promise.then(() => {
    clearTimeout(noticeTimer);
    drawing.close();
    keyboard.close();
    input.off('data', take);
    output.off('resize', resized);
    output.off('drain', drained);
    process.off('SIGHUP', leave);
    process.off('SIGTERM', leave);
    output.write((options.mouse === false ? '' : DRAG_OFF) + ALTERNATE_OFF);
    input.setRawMode(false);
    input.pause();
  });
  return { changed: () => drawing.request(), say, left: done };
}

function mouse(tiles: Tiles, { kind, column, row }: MouseEvent, copy: (text: string) => void): void {
  if (kind === 'press') tiles.press(column, row);
  else if (kind === 'drag') tiles.drag(column, row);
  else if (kind === 'wheel-up' || kind === 'wheel-down') {
    tiles.wheel(column, row, kind === 'wheel-up' ? WHEEL_ROWS : -WHEEL_ROWS);
  } else {
    tiles.drag(column, row);
    const text = tiles.selected;
    if (text !== undefined) copy(text);
  }
}

/** Keys in what came at once: sequences that move the cursor by their names, others as they are. */
function keysIn(input: string): { readonly name: string; readonly text: string }[] {
  const names: Readonly<Record<string, string>> = {
    ...{ A: 'up', B: 'down', C: 'right', D: 'left' },
    ...{ '5~': 'page-up', '6~': 'page-down' },
  };
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  const found = input.match(/\x1b[[O][\d;]*[A-Za-z~]|[\s\S]/gu) ?? [];
  return found.map((text) => ({ text, name: text.startsWith('\x1b') ? (names[text.slice(2)] ?? text) : text }));
}

/** What follows Ctrl-]: one key, or the keys of scrolling until they are over. */
class TileCommands {
  readonly #tiles: Tiles;
  readonly #host: { readonly say: (text: string) => void; readonly leave: () => void };
  #mode: 'off' | 'command' | 'scroll' | 'search' = 'off';
  #search = '';
  #last = '';

  constructor(tiles: Tiles, host: { readonly say: (text: string) => void; readonly leave: () => void }) {
    this.#tiles = tiles;
    this.#host = host;
  }

  get footer(): string {
    if (this.#mode === 'search') return `search: ${this.#search}`;
    if (this.#mode === 'scroll') return SCROLLING;
    return this.#mode === 'command' ? `${KEYS} · Ctrl-] itself · Esc nothing` : KEYS;
  }

  begin(): void {
    this.#mode = 'command';
  }

  /** For the one key that follows. */
  get waits(): boolean {
    return this.#mode === 'command';
  }

  end(): void {
    this.#mode = 'off';
  }

  /** @returns whether the next key is for here too. */
  take(key: string): boolean {
    if (this.#mode === 'search') this.#typeSearch(key);
    else if (this.#mode === 'scroll') this.#scroll(key);
    else this.#command(key);
    return this.#mode !== 'off';
  }

  #command(key: string): void {
    const tiles = this.#tiles;
    this.#mode = 'off';
    switch (key) {
      case 'n':
      case '\t':
        tiles.step(1);
        return;
      case 'p':
        tiles.step(-1);
        return;
      case 'left':
      case 'right':
      case 'up':
      case 'down':
        tiles.move(key);
        return;
      case 'b':
        tiles.broadcast = !tiles.broadcast;
        this.#host.say(
          tiles.broadcast ? 'What you type goes to every console that you drive.' : 'Typing to one console.',
        );
        return;
      case 'z':
        tiles.zoomed = !tiles.zoomed;
        return;
      case 't':
        this.#takeOver();
        return;
      case '[':
        this.#mode = 'scroll';
        return;
      case 'page-up':
        this.#mode = 'scroll';
        tiles.page(1);
        return;
      case '/':
        this.#mode = 'search';
        this.#search = '';
        return;
      case 'q':
      case 'd':
        this.#host.leave();
        return;
      case ESCAPE:
        return;
    }
    if (/^[1-9]$/.test(key) && Number(key) <= tiles.tiles.length) tiles.focus = Number(key) - 1;
    else this.#host.say(`There is nothing on Ctrl-] ${visible(key)}. ${KEYS}`);
  }

  #takeOver(): void {
    const { focused } = this.#tiles;
    if (focused.drives()) this.#host.say('You drive it already.');
    else if (focused.pane.takeOver) focused.pane.takeOver();
  }

  #scroll(key: string): void {
    const tiles = this.#tiles;
    if (key === 'page-up' || key === 'page-down') tiles.page(key === 'page-up' ? 1 : -1);
    else if (key === 'up' || key === 'k') tiles.scroll(1);
    else if (key === 'down' || key === 'j') tiles.scroll(-1);
    else if (key === '/') {
      this.#mode = 'search';
      this.#search = '';
    } else if (key === 'N' || key === 'n') this.#find(key === 'n', true);
    else if (key === 'q' || key === ESCAPE) {
      tiles.focused.pane.toLive();
      this.#mode = 'off';
    }
  }

  #typeSearch(key: string): void {
    if (key === ESCAPE) this.#mode = 'scroll';
    else if (key === '\r' || key === '\n') {
      this.#last = this.#search;
      this.#mode = 'scroll';
      this.#find(true, false);
    } else if (key === '\x7f' || key === '\b') this.#search = this.#search.slice(0, -1);
    else if (key >= ' ' && key.length <= 2) this.#search += key;
  }

  #find(up: boolean, on: boolean): void {
    if (this.#last === '') return;
    if (this.#tiles.focused.pane.find(this.#last, { up, on })) return;
    this.#host.say(`"${this.#last}" is not ${on ? (up ? 'above' : 'below') : 'there'}.`);
  }
}
