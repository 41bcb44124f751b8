/** How numbers look in messages about boot. */

export const hex = (value: number | bigint): string => `0x${value.toString(16)}`;

/** First and last address of a range. */
export const range = (gpa: number, size: number): string => `${hex(gpa)}–${hex(gpa + Math.max(size, 1) - 1)}`;

/** Bytes for people: `812 bytes`, `61.2 MiB`. */
export function bytesText(count: number): string {
  if (count < 2 ** 10) return `${count} bytes`;
  const [unit, name] = count < 2 ** 20 ? [2 ** 10, 'KiB'] : count < 2 ** 30 ? [2 ** 20, 'MiB'] : [2 ** 30, 'GiB'];
  return `${Number((count / unit).toFixed(1))} ${name}`;
}
