/** Puts tiles on a terminal: keys, mouse, frames, and the terminal as it was when all is over. */
import type { ReadStream, WriteStream } from 'node:tty';
import { copyText } from './clipboard.ts';
import { coloursOf } from './colours.ts';
import { Drawing } from './drawing.ts';
import { DRAG_OFF, DRAG_ON, type MouseEvent, PASTE_OFF, PASTE_ON, type RawKeys, TerminalInput } from './input.ts';
import { edited, lineOf } from './overlays/overlay.ts';
import { SegmentScreen } from './segment_screen.ts';
import { type ThemeName, themeNamed, visible } from './style.ts';
import type { TerminalPane } from './terminal_pane.ts';
import { type Tile, Tiles } from './tiles.ts';

const ALTERNATE_ON = `\x1b[?1049h\x1b[?7l${PASTE_ON}`;
const ALTERNATE_OFF = `${PASTE_OFF}\x1b[?7h\x1b[?25h\x1b[?1049l`;
const KEYS = 'Ctrl-] and: q leave · n next · b type to all · / search · [ scroll · z zoom · t take over · arrows';
const SCROLLING = 'PgUp PgDn ↑ ↓ scroll · / search upwards · N downwards · q or Esc comes back';
const NOTICE_MS = 4000;
const WHEEL_ROWS = 3;
/** Pressed twice, once for a guest. */
const AGAIN = 'ctrl-]';
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

  const typed = (give: (pane: TerminalPane) => void) => {
    const problem = tiles.typed(give);
    if (problem !== undefined) say(problem);
    drawing.request();
  };
  const typing: RawKeys = {
    type: (bytes) => typed((pane) => pane.type(bytes)),
    paste: (bytes, first, last) => typed((pane) => pane.paste(bytes, first, last)),
  };
  const commands = new TileCommands(tiles, { say, type: typing.type, leave: () => left.resolve() });
  keyboard.raw = typing;
  keyboard.onLeave = () => {
    commands.begin();
    keyboard.raw = undefined;
    tiles.footer = commands.footer;
    drawing.request();
  };
  keyboard.onKey = (name, text) => {
    if (!commands.take(name, text)) keyboard.raw = typing;
    tiles.footer = commands.footer;
    drawing.request();
  };
  keyboard.onPaste = (text) => {
    commands.paste(lineOf(text));
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
  // A process that ends by an error gives the terminal back too.
  const restore = () => output.write((options.mouse === false ? '' : DRAG_OFF) + ALTERNATE_OFF);
  process.once('exit', restore);
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
    process.off('exit', restore);
    restore();
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

interface TileHost {
  say(text: string): void;
  /** Gives bytes to whoever gets what is typed. */
  type(bytes: Buffer): void;
  leave(): void;
}

/** What follows Ctrl-]: one key, or the keys of scrolling until they are over. */
class TileCommands {
  readonly #tiles: Tiles;
  readonly #host: TileHost;
  #mode: 'off' | 'command' | 'scroll' | 'search' = 'off';
  #search = '';
  #last = '';

  constructor(tiles: Tiles, host: TileHost) {
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

  /**
   * @param key by its name. @param text what it types.
   * @returns whether the next key is for here too.
   */
  take(key: string, text: string): boolean {
    if (key === AGAIN && this.#mode !== 'command') this.begin();
    else if (this.#mode === 'search') this.#typeSearch(key, text);
    else if (this.#mode === 'scroll') this.#scroll(key);
    else this.#command(key);
    return this.#mode !== 'off';
  }

  #command(key: string): void {
    const tiles = this.#tiles;
    this.#mode = 'off';
    switch (key) {
      case 'n':
      case 'tab':
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
      case 'pageup':
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
      case AGAIN:
        this.#host.type(LITERAL);
        return;
      case 'esc':
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
    if (key === 'pageup' || key === 'pagedown') tiles.page(key === 'pageup' ? 1 : -1);
    else if (key === 'up' || key === 'k') tiles.scroll(1);
    else if (key === 'down' || key === 'j') tiles.scroll(-1);
    else if (key === '/') {
      this.#mode = 'search';
      this.#search = '';
    } else if (key === 'N' || key === 'n') this.#find(key === 'n', true);
    else if (key === 'q' || key === 'esc') {
      tiles.focused.pane.toLive();
      this.#mode = 'off';
    }
  }

  #typeSearch(key: string, text: string): void {
    if (key === 'esc') this.#mode = 'scroll';
    else if (key === 'enter') {
      this.#last = this.#search;
      this.#mode = 'scroll';
      this.#find(true, false);
    } else this.#search = edited(this.#search, key, text) ?? this.#search;
  }

  /** @param text one line. */
  paste(text: string): void {
    if (this.#mode === 'search') this.#search += text;
  }

  #find(up: boolean, on: boolean): void {
    if (this.#last === '') return;
    if (this.#tiles.focused.pane.find(this.#last, { up, on })) return;
    this.#host.say(`"${this.#last}" is not ${on ? (up ? 'above' : 'below') : 'there'}.`);
  }
}
