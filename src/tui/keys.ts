/** Keys by name: `a`, `G`, `ctrl-r`, `shift-tab`, `pageup`. */

/** What stands behind CSI or SS3 (XTerm's ctlseqs, "PC-Style Function Keys"; VT220 and rxvt for Home and End). */
const SEQUENCES: Readonly<Record<string, string>> = {
  ...{ A: 'up', B: 'down', C: 'right', D: 'left', H: 'home', F: 'end', Z: 'shift-tab' },
  ...{ '1~': 'home', '4~': 'end', '7~': 'home', '8~': 'end', '3~': 'delete', '5~': 'pageup', '6~': 'pagedown' },
};

const CONTROLS: Readonly<Record<string, string>> = {
  '\r': 'enter',
  '\n': 'enter',
  '\t': 'tab',
  '\x7f': 'backspace',
  '\b': 'backspace',
  '\x1b': 'esc',
  ' ': 'space',
};

/**
 * The key that a terminal sends as a character, a control character or a sequence, and what it types.
 * @returns undefined for keys with Shift, Ctrl and Alt too, and others that nobody asked for, and what is no key at all.
 */
export function namedKey(sent: string): readonly [name: string, text: string] | undefined {
  const named = CONTROLS[sent];
  if (named !== undefined) return [named, named === 'space' ? ' ' : ''];
  if (sent.startsWith('\x1b[') || sent.startsWith('\x1bO')) {
    const name = SEQUENCES[sent.slice(2)];
    return name === undefined ? undefined : [name, ''];
  }
  if (sent.startsWith('\x1b')) return [...sent].length === 2 ? [`alt-${sent.slice(1)}`, ''] : undefined;
  if (sent >= ' ') return [sent, sent];
  const code = sent.charCodeAt(0);
  // Ctrl-a to Ctrl-z, and those behind it: Ctrl-].
  return [`ctrl-${String.fromCharCode(code + (code <= 26 ? 0x60 : 0x40))}`, ''];
}

const SHOWN: Readonly<Record<string, string>> = {
  up: '↑',
  down: '↓',
  left: '←',
  right: '→',
  enter: 'Enter',
  esc: 'Esc',
  tab: 'Tab',
  space: 'Space',
  'shift-tab': 'Shift-Tab',
  pageup: 'PgUp',
  pagedown: 'PgDn',
  home: 'Home',
  end: 'End',
  delete: 'Del',
};
const PLAIN: Readonly<Record<string, string>> = { up: 'Up', down: 'Down', left: 'Left', right: 'Right' };

/** A key as people write it: `Ctrl-r`. @param unicode arrows may be drawn */
export function keyLabel(name: string, unicode = true): string {
  const known = (unicode ? undefined : PLAIN[name]) ?? SHOWN[name];
  if (known !== undefined) return known;
  return name.replace(/^(ctrl|alt)-/, (prefix) => prefix[0].toUpperCase() + prefix.slice(1));
}
