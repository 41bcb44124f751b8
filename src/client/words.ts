import { NemuError } from './errors.ts';

/** Words of a line as a shell splits them: quotes hold them together. @throws NemuError USAGE */
export function splitWords(line: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (let at = 0; at < line.length; at++) {
    const character = line[at];
    if (quote !== undefined) {
      if (character === quote) quote = undefined;
      else if (character === '\\' && quote === '"' && '"\\'.includes(line[at + 1])) word += line[++at];
      else word += character;
    } else if (character === '"' || character === "'") {
      quote = character;
      word ??= '';
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + character;
  }
  if (quote !== undefined) throw new NemuError('USAGE', `A quote (${quote}) is not closed.`);
  if (word !== undefined) words.push(word);
  return words;
}
