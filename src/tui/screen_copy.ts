/** What draws a pane's screen on another terminal. */
import { SerializeAddon } from '@xterm/addon-serialize';
import type { Terminal } from '@xterm/headless';

/**
 * Private modes (XTerm's ctlseqs, DECSET) that a program asks for and the serializer does not know: how mouse reports
 * are written, and whether the cursor is shown.
 */
const MORE_MODES: ReadonlyMap<number, boolean> = new Map([
  [25, true],
  [1005, false],
  [1006, false],
  [1015, false],
  [1016, false],
]);

export class ScreenCopy {
  readonly #serializer = new SerializeAddon();
  readonly #modes = new Map(MORE_MODES);

  constructor(terminal: Terminal) {
    terminal.loadAddon(this.#serializer);
    for (const [final, on] of [
      ['h', true],
      ['l', false],
    ] as const) {
      terminal.parser.registerCsiHandler({ prefix: '?', final }, (parameters) => {
        for (const each of parameters.flat()) if (MORE_MODES.has(each)) this.#modes.set(each, on);
        // The terminal does what is asked.
        return false;
      });
    }
    // RIS
    terminal.parser.registerEscHandler({ final: 'c' }, () => {
      for (const [mode, on] of MORE_MODES) this.#modes.set(mode, on);
      return false;
    });
  }

  /** For an empty terminal of the same size whose modes are as they are at first. */
  get drawing(): string {
    const modes = [...this.#modes].filter(([mode, on]) => MORE_MODES.get(mode) !== on);
    const more = modes.map(([mode, on]) => `\x1b[?${mode}${on ? 'h' : 'l'}`);
    return this.#serializer.serialize({ scrollback: 0 }) + more.join('');
  }
}
