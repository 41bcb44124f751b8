/** Which colours of a guest a terminal can show, and those that stand in for the others. */
import type { WriteStream } from 'node:tty';

/** `few`: the sixteen that every terminal with colours has. */
export type Colours = 'none' | 'few' | 'all';

/** Bits of colour of a terminal that has more than sixteen. */
const MORE_THAN_16 = 8;

/** What a terminal takes, by what its environment says of it; NO_COLOR is another's business. */
export function coloursOf(output: Pick<WriteStream, 'getColorDepth'>, environment: NodeJS.ProcessEnv): Colours {
  return output.getColorDepth({ ...environment, NO_COLOR: undefined }) < MORE_THAN_16 ? 'few' : 'all';
}

type Rgb = readonly [red: number, green: number, blue: number];

/** XTerm's, which others are close to. */
const SIXTEEN: readonly Rgb[] = [
  [0, 0, 0],
  [205, 0, 0],
  [0, 205, 0],
  [205, 205, 0],
  [0, 0, 238],
  [205, 0, 205],
  [0, 205, 205],
  [229, 229, 229],
  [127, 127, 127],
  [255, 0, 0],
  [0, 255, 0],
  [255, 255, 0],
  [92, 92, 255],
  [255, 0, 255],
  [0, 255, 255],
  [255, 255, 255],
];

/** The nearest of the sixteen to a colour. @param value 0xRRGGBB */
export function nearestOf16(value: number): number {
  const wanted: Rgb = [(value >> 16) & 0xff, (value >> 8) & 0xff, value & 0xff];
  let [nearest, least] = [0, Number.POSITIVE_INFINITY];
  for (const [index, colour] of SIXTEEN.entries()) {
    const [red, green, blue] = colour.map((part, at) => (part - wanted[at]) ** 2);
    // The eye sees green best, and blue worst.
    const distance = 2 * red + 4 * green + 3 * blue;
    if (distance < least) [nearest, least] = [index, distance];
  }
  return nearest;
}

const CUBE = [0, 95, 135, 175, 215, 255] as const;

/** A colour of the palette of 256, as XTerm has it: a cube of 6×6×6 from 16 on, greys from 232 on. @returns 0xRRGGBB */
export function rgbOfPalette(index: number): number {
  if (index < 16) return SIXTEEN[index].reduce((all, part) => (all << 8) | part, 0);
  if (index >= 232) return (8 + (index - 232) * 10) * 0x010101;
  const at = index - 16;
  return (CUBE[Math.floor(at / 36)] << 16) | (CUBE[Math.floor(at / 6) % 6] << 8) | CUBE[at % 6];
}
