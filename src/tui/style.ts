/** Styled text as data: panes make lines of spans, a theme turns them into what a terminal takes. */
import stringWidth from 'string-width';

/** What a piece of text is; the theme says how that looks. */
export type Style =
  | 'text'
  | 'dim'
  | 'bold'
  | 'title'
  | 'key'
  | 'good'
  | 'warn'
  | 'bad'
  | 'accent'
  | 'graph'
  | 'border'
  | 'focus'
  | 'selected';

export interface Span {
  readonly text: string;
  readonly style?: Style;
  /** SGR parameters of its own (ECMA-48, 8.3.117), of a guest's terminal. */
  readonly sgr?: string;
}

export type Line = readonly Span[];

export const span = (text: string, style: Style = 'text'): Span => ({ text, style });
export const line = (text: string, style: Style = 'text'): Line => [{ text, style }];

/** Control characters, which would move the cursor or worse, as pictures of themselves. */
export const visible = (text: string): string =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  text.replaceAll(/[\x00-\x1f\x7f-\x9f]/g, (char) =>
    char.charCodeAt(0) < 0x20 ? String.fromCharCode(0x2400 + char.charCodeAt(0)) : '\u2421',
  );

/** SGR parameters of each style; '' leaves the terminal's own. */
export type Theme = Readonly<Record<Style, string>> & { readonly name: string };

const THEMES_BY_NAME = {
  dark: {
    ...{ text: '', dim: '2', bold: '1', title: '1', key: '36', good: '32', warn: '33', bad: '31', accent: '36' },
    ...{ graph: '32', border: '2', focus: '1;36', selected: '7' },
  },
  light: {
    ...{ text: '', dim: '90', bold: '1', title: '1', key: '34', good: '32', warn: '35', bad: '31', accent: '34' },
    ...{ graph: '34', border: '90', focus: '1;34', selected: '7' },
  },
  contrast: {
    ...{ text: '', dim: '', bold: '1', title: '1;4', key: '1', good: '1;32', warn: '1;33', bad: '1;31', accent: '1' },
    ...{ graph: '1', border: '', focus: '1;7', selected: '7' },
  },
  /** For NO_COLOR (no-color.org) and terminals without: weight and inversion are no colours. */
  plain: {
    ...{ text: '', dim: '', bold: '1', title: '1', key: '1', good: '', warn: '1', bad: '1', accent: '', graph: '' },
    ...{ border: '', focus: '1', selected: '7' },
  },
} as const satisfies Record<string, Record<Style, string>>;

export type ThemeName = keyof typeof THEMES_BY_NAME;
export const THEMES = Object.keys(THEMES_BY_NAME) as ThemeName[];
export const themeNamed = (name: ThemeName): Theme => ({ name, ...THEMES_BY_NAME[name] });

/** Cells that a text takes. */
export const widthOf = (text: string): number => stringWidth(text);

/** What takes cells together: a character, with those that change it. */
export const GRAPHEMES = new Intl.Segmenter();

/** The first cells of a text: `width` at most. */
export function clip(text: string, width: number): string {
  if (text.length <= width && /^[\x20-\x7e]*$/.test(text)) return text;
  let taken = '';
  let used = 0;
  for (const { segment } of GRAPHEMES.segment(text)) {
    const cells = widthOf(segment);
    if (used + cells > width) break;
    taken += segment;
    used += cells;
  }
  return taken;
}

/** A text of `width` cells at most: what is too long ends in an ellipsis. */
export const shortened = (text: string, width: number): string =>
  widthOf(text) <= width ? text : `${clip(text, width - 1)}…`;

/** A text without its first cells; what is left of a wide character that is cut in two is a space. */
export function clipStart(text: string, cells: number): string {
  let left = cells;
  for (const { segment, index } of GRAPHEMES.segment(text)) {
    if (left <= 0) return ' '.repeat(-left) + text.slice(index);
    left -= widthOf(segment);
  }
  return '';
}

export const lineWidth = (spans: Line): number => spans.reduce((sum, { text }) => sum + widthOf(text), 0);

/** A line of exactly `width` cells: what is too long ends in an ellipsis. */
export function toWidth(spans: Line, width: number, ellipsis = '…'): Line {
  const length = lineWidth(spans);
  if (length === width) return spans;
  if (length < width)
    return [...spans, span(' '.repeat(width - length), spans.at(-1)?.style === 'selected' ? 'selected' : 'text')];
  if (width <= 0) return [];
  const out: Span[] = [];
  let left = width - widthOf(ellipsis);
  let last: Span = span('');
  for (const each of spans) {
    last = each;
    const text = clip(each.text, left);
    if (text !== '') out.push({ ...each, text });
    left -= widthOf(text);
    if (text.length < each.text.length) break;
  }
  return [...out, { ...last, text: `${ellipsis}${' '.repeat(Math.max(0, left))}` }];
}

/** A line with as many of the parts behind it as there is room for, each whole: half a number is worse than none. */
export function withParts(head: Line, parts: readonly Span[], width: number): Line {
  const out = [...head];
  let used = lineWidth(head);
  for (const [index, part] of parts.entries()) {
    const cells = widthOf(part.text) + 1;
    // Room is kept to say that there is more.
    if (used + cells + (index < parts.length - 1 ? 2 : 0) > width) {
      if (used + 2 <= width) out.push(span(' …', 'dim'));
      break;
    }
    out.push(span(' '), part);
    used += cells;
  }
  return out;
}

/** A line as the terminal takes it. */
export function paint(spans: Line, theme: Theme): string {
  let out = '';
  for (const { text, style = 'text', sgr } of spans) {
    const codes = sgr ?? theme[style];
    out += codes === '' ? text : `\x1b[${codes}m${text}\x1b[0m`;
  }
  return out;
}

/** The text of a line, for filters and for copying. */
export const plainText = (spans: Line): string => spans.map(({ text }) => text).join('');
