/** A terminal that a guest has used, put back for the shell or for another drawing. */

/** Private modes that are off at first (XTerm's ctlseqs, DECRST), and leave the cursor where it is. */
const OFF = [1, 5, 9, 45, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026];

/**
 * Colours, characters, cursor, keypad, mouse, focus and paste as they are at first, with the cursor where it is. CAN
 * comes before: a sequence of which the guest had written a part would take the next character with it (ECMA-48,
 * 8.3.6). There is nothing here that a terminal prints because it does not know it.
 */
export const RESET_MODES = [
  '\x18\x1b[0m\x0f\x1b(B\x1b)B\x1b[4l\x1b[20l\x1b>',
  ...OFF.map((mode) => `\x1b[?${mode}l`),
  '\x1b[?25h\x1b[?7h',
  // The scroll region, which takes the cursor home.
  '\x1b7\x1b[r\x1b8',
].join('');

/** Makes of any terminal an empty one: the normal screen, no modes, rows counted from the top, nothing saved. */
export const BEFORE_DRAWING = `\x18\x1b[?1049l${RESET_MODES}\x1b[?6l\x1b[H\x1b7\x1b[2J`;

/** The bottom of any screen: what a shell prints next is below what is there. */
const BOTTOM = '\x1b[999;1H';

/**
 * DECSET and DECRST with all their parameters, DECSCUSR, XTMODKEYS, the keyboard protocol of kitty, hyperlinks (OSC 8),
 * colours (OSC 4, 10 to 19), DECSTR and RIS.
 * Sources: XTerm's ctlseqs, https://sw.kovidgoyal.net/kitty/keyboard-protocol/.
 */
const SEQUENCE =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control sequences
  /\x1b\[\?([\d;]*)([hl])|\x1b\[\d* (q)|\x1b\[>4(?:;\d*)?(m)|\x1b\[[>=<][\d;]*(u)|\x1b\](8);|\x1b\](?:(1[0-9]);|(4);\d+;)(?=[^?])|\x1b\[!(p)|\x1b(c)/g;
/** No sequence of these is longer. */
const LONGEST = 64;

const ALTERNATE: ReadonlySet<string> = new Set(['47', '1047', '1049']);
const ORIGIN = '6';
/** Reports of the theme and of the size that a terminal sends by itself. */
const REPORTS = ['2031', '2048'] as const;
/** kitty has a stack of them for each screen; more than were pushed takes all. */
const KITTY_OFF = '\x1b[<99u';

/**
 * Knows what a guest has done to its terminal that is undone only where it was done: to leave the alternate screen or
 * origin mode moves the cursor, and terminals that do not know a newer sequence may print it.
 */
export class GuestModes {
  #alternate = false;
  #origin = false;
  #kitty = false;
  readonly #newer = new Set<string>();
  /** A sequence that has begun: it may come in pieces. */
  #begun = '';

  /** What goes to the terminal. */
  saw(bytes: Uint8Array): void {
    const text = this.#begun + Buffer.from(bytes).toString('latin1');
    for (const [, parameters = '', set, shape, keys, kitty, link, dynamic, palette, soft, hard] of text.matchAll(
      SEQUENCE,
    )) {
      if (set) this.#mode(parameters.split(';'), set === 'h');
      if (shape) this.#newer.add('\x1b[0 q');
      if (keys) this.#newer.add('\x1b[>4m');
      if (kitty) this.#kitty = true;
      if (link) this.#newer.add('\x1b]8;;\x1b\\');
      const colour = dynamic ?? palette;
      if (colour) this.#newer.add(`\x1b]1${colour.padStart(2, '0')}\x1b\\`);
      if (soft || hard) this.#origin = false;
      if (hard) {
        this.#alternate = false;
        this.#kitty = false;
        this.#newer.clear();
      }
    }
    const start = text.lastIndexOf('\x1b');
    this.#begun = start >= 0 && text.length - start < LONGEST ? text.slice(start) : '';
  }

  #mode(parameters: readonly string[], on: boolean): void {
    if (parameters.some((each) => ALTERNATE.has(each))) this.#alternate = on;
    if (parameters.includes(ORIGIN)) this.#origin = on;
    for (const mode of REPORTS) if (on && parameters.includes(mode)) this.#newer.add(`\x1b[?${mode}l`);
  }

  /** The alternate screen is shown. */
  get alternate(): boolean {
    return this.#alternate;
  }

  /** What makes the terminal the shell's again. */
  undo(): string {
    const kitty = this.#kitty ? KITTY_OFF : '';
    const alternate = this.#alternate ? `\x1b[?1049l${kitty}` : '';
    const origin = this.#origin ? `\x1b[r\x1b[?6l${BOTTOM}` : '';
    // CAN comes first: of a sequence that has begun none of these is to be a part.
    return `\x18${[...this.#newer].join('')}${kitty}${alternate}${origin}${RESET_MODES}`;
  }
}
