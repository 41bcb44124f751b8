/** Consoles in the title of their pane. */
import { widthOf } from './style.ts';

/** Where the name of a console stands in a text, in cells. */
export interface Tab {
  readonly console: number;
  readonly from: number;
  readonly to: number;
}

/** Names of consoles, the one that is shown marked: those around it, where there is no room for all. */
export function tabsWithin(
  names: readonly string[],
  shown: number,
  width: number,
): { readonly text: string; readonly tabs: readonly Tab[] } {
  const labels = names.map((name, index) => (index === shown && names.length > 1 ? `[${name}]` : name));
  const parts = (from: number, to: number) => [
    ...(from > 0 ? ['…'] : []),
    ...labels.slice(from, to),
    ...(to < labels.length ? ['…'] : []),
  ];
  const fits = (from: number, to: number) =>
    from >= 0 && to <= labels.length && widthOf(parts(from, to).join(' ')) <= width;
  let [from, to] = [shown, shown + 1];
  while (fits(from, to + 1) || fits(from - 1, to)) {
    if (fits(from, to + 1)) to++;
    if (fits(from - 1, to)) from--;
  }
  let at = from > 0 ? 2 : 0;
  const tabs = labels.slice(from, to).map((label, index): Tab => {
    const tab = { console: from + index, from: at, to: at + widthOf(label) };
    at = tab.to + 1;
    return tab;
  });
  return { text: parts(from, to).join(' '), tabs };
}
