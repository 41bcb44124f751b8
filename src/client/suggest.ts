/** Edit distance of two short words, in which two letters that changed places are one mistake (optimal alignment). */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) next[j] = Math.min(next[j], before[j - 2] + 1);
    }
    before = row;
    row = next;
  }
  return row[b.length];
}

/** The known word that is nearest to a mistyped one, if any is near. */
export function didYouMean(word: string, known: readonly string[]): string | undefined {
  const [best] = known.map((each) => ({ each, cost: distance(word, each) })).sort((a, b) => a.cost - b.cost);
  return best && best.cost <= Math.max(1, Math.floor(word.length / 3)) ? best.each : undefined;
}
