/** Keys by name: `a`, `G`, `ctrl-r`, `shift-tab`, `pageup`. */
import type { Key } from 'ink';

const NAMED = [
  ['upArrow', 'up'],
  ['downArrow', 'down'],
  ['leftArrow', 'left'],
  ['rightArrow', 'right'],
  ['pageUp', 'pageup'],
  ['pageDown', 'pagedown'],
  ['home', 'home'],
  ['end', 'end'],
  ['return', 'enter'],
  ['escape', 'esc'],
  ['backspace', 'backspace'],
  ['delete', 'delete'],
] as const satisfies readonly (readonly [keyof Key, string])[];

/** The name of what Ink says was pressed; text that is more than one character has none. */
export function keyName(input: string, key: Key): string {
  if (key.tab) return key.shift ? 'shift-tab' : 'tab';
  for (const [field, name] of NAMED) if (key[field]) return name;
  if (key.ctrl && input !== '') return `ctrl-${input.toLowerCase()}`;
  if (key.meta && input !== '') return `alt-${input}`;
  return input === ' ' ? 'space' : input;
}

const CONTROLS: Readonly<Record<string, string>> = {
  '\r': 'enter',
  '\n': 'enter',
  '\t': 'tab',
  '\x7f': 'backspace',
  '\b': 'backspace',
  ' ': 'space',
};

/** The key of one character, and what it types. */
export function keyOf(character: string): readonly [name: string, text: string] {
  const named = CONTROLS[character];
  if (named !== undefined) return [named, named === 'space' ? ' ' : ''];
  if (character >= ' ') return [character, character];
  const code = character.charCodeAt(0);
  // Ctrl-a to Ctrl-z, and those behind it: Ctrl-].
  return [`ctrl-${String.fromCharCode(code + (code <= 26 ? 0x60 : 0x40))}`, ''];
}

/**
 * The keys in what Ink says was pressed, with what each types: who types fast, or a terminal that is slow, brings several
 * at once.
 */
export function* keysOf(input: string, key: Key): Generator<readonly [name: string, text: string]> {
  const characters = [...input];
  const special = key.ctrl || key.meta || NAMED.some(([field]) => key[field]);
  if (special || characters.length <= 1) {
    yield [keyName(input, key), input];
    return;
  }
  for (const character of characters) yield keyOf(character);
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
