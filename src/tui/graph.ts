/** Pictures of numbers over time, in cells of text. */

/** Which characters a picture may use: braille dots, eighths of blocks, or plain ASCII. */
export const GLYPHS = ['braille', 'block', 'plain'] as const;
export type Glyphs = (typeof GLYPHS)[number];

const BLOCKS = ' ▁▂▃▄▅▆▇█';
const PLAIN = ' .:-=+*#%@';
/** Bits of the dots of a braille cell (U+2800), by column, from the lowest row up. */
const DOTS = [
  [0x40, 0x04, 0x02, 0x01],
  [0x80, 0x20, 0x10, 0x08],
] as const;

const share = (value: number, most: number): number =>
  most > 0 && Number.isFinite(value) ? Math.min(1, Math.max(0, value / most)) : 0;

/** The newest `count` values, older ones missing as zeros, the newest at the end. */
function newest(values: readonly number[], count: number): number[] {
  const last = values.slice(-count);
  return [...Array<number>(Math.max(0, count - last.length)).fill(0), ...last];
}

/** One row of `width` cells. Anything above zero is seen. */
export function sparkline(values: readonly number[], width: number, most: number, glyphs: Glyphs): string {
  return plot(values, width, 1, most, glyphs)[0] ?? '';
}

/**
 * A filled plot, the newest value at the right edge.
 * @param most the value that fills the height
 * @returns `height` rows of `width` cells, the top one first.
 */
export function plot(values: readonly number[], width: number, height: number, most: number, glyphs: Glyphs): string[] {
  if (glyphs === 'braille') return braille(values, width, height, most);
  const levels = glyphs === 'block' ? BLOCKS : PLAIN;
  const steps = levels.length - 1;
  const filled = newest(values, width).map((value) => {
    const amount = share(value, most) * height * steps;
    return value > 0 ? Math.max(1, Math.round(amount)) : 0;
  });
  return Array.from({ length: height }, (_, row) => {
    const below = (height - 1 - row) * steps;
    return filled.map((amount) => levels[Math.min(steps, Math.max(0, amount - below))]).join('');
  });
}

function braille(values: readonly number[], width: number, height: number, most: number): string[] {
  const filled = newest(values, width * 2).map((value) =>
    value > 0 ? Math.max(1, Math.round(share(value, most) * height * 4)) : 0,
  );
  return Array.from({ length: height }, (_, row) => {
    const below = (height - 1 - row) * 4;
    let text = '';
    for (let cell = 0; cell < width; cell++) {
      let bits = 0;
      for (const column of [0, 1] as const) {
        const amount = Math.min(4, Math.max(0, filled[cell * 2 + column] - below));
        for (let dot = 0; dot < amount; dot++) bits |= DOTS[column][dot];
      }
      text += bits === 0 ? ' ' : String.fromCharCode(0x2800 + bits);
    }
    return text;
  });
}

/** A round number at or above: 1, 2 or 5 times a power of ten. So a scale changes seldom. */
export function roundUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? value;
}

/** The same for bytes, which are counted in binary units: a power of two. */
export const roundUpBytes = (value: number): number => (value <= 1 ? 1 : 2 ** Math.ceil(Math.log2(value)));
