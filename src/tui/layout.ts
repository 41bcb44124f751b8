/** Where each pane is. Everything here is pure: sizes in, rectangles out. */

export const PANES = ['vcpus', 'pci', 'memory', 'activity', 'console', 'repl', 'events'] as const;
export type PaneName = (typeof PANES)[number];

/** `normal` shows all, `half` gives the focused pane half of the screen, `full` all of it. */
export const LAYOUTS = ['normal', 'half', 'full'] as const;
export type LayoutName = (typeof LAYOUTS)[number];

export interface Rect {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface Placed {
  readonly pane: PaneName;
  readonly rect: Rect;
}

/** Columns of panes from left to right, each from top to bottom. */
export interface Layout {
  readonly columns: readonly (readonly Placed[])[];
}

export const MIN_COLUMNS = 56;
export const MIN_ROWS = 14;
/** Of the screen: header, footer, and the one that Ink must not have. */
const OTHER_ROWS = 3;
/** Rows of a pane that is not in focus where there is not enough room: its frame and one line. */
const FOLDED = 3;
/** Share of the height that the console has, whatever is in focus: a guest's program draws afresh at each new size. */
const CONSOLE_SHARE = 0.68;
const LEFT: readonly PaneName[] = ['vcpus', 'pci', 'memory', 'activity'];

/**
 * Places the panes in an area of `width` × `height`, whose top left cell is at (0, `top`).
 * @param bottom which of `repl` and `events` is shown below the console
 * @returns undefined for an area that is too small.
 */
export function layOut(
  { width, height, top }: { readonly width: number; readonly height: number; readonly top: number },
  layout: LayoutName,
  focus: PaneName,
  bottom: 'repl' | 'events',
): Layout | undefined {
  if (width < MIN_COLUMNS || height < MIN_ROWS - OTHER_ROWS) return undefined;
  if (layout === 'full') return { columns: [[{ pane: focus, rect: { left: 0, top, width, height } }]] };
  const right: readonly PaneName[] = ['console', bottom];
  if (layout === 'half') {
    const others = [...LEFT, ...right].filter((pane) => pane !== focus);
    const half = Math.floor(width / 2);
    const main = { left: half, top, width: width - half, height };
    return {
      columns: [stack(others, undefined, { left: 0, top, width: half, height }), [{ pane: focus, rect: main }]],
    };
  }
  const leftWidth = Math.min(Math.max(28, Math.floor(width * 0.4)), 88);
  const left = { left: 0, top, width: leftWidth, height };
  const rest = { left: leftWidth, top, width: width - leftWidth, height };
  const upper = Math.max(FOLDED, Math.round(height * CONSOLE_SHARE));
  return {
    columns: [
      stack(LEFT, focus, left),
      [
        { pane: 'console', rect: { ...rest, height: upper } },
        { pane: bottom, rect: { ...rest, top: top + upper, height: height - upper } },
      ],
    ],
  };
}

/** How much of the height each pane would like, beside the others. */
const WEIGHT: Readonly<Record<PaneName, number>> = {
  vcpus: 3,
  pci: 4,
  memory: 3,
  activity: 3,
  console: 6,
  repl: 3,
  events: 3,
};

/** Which panes give way first where not even folded ones fit. */
const SPARABLE: readonly PaneName[] = ['activity', 'events', 'repl', 'memory', 'pci', 'vcpus', 'console'];

/** Panes below each other. Where there is little room, all but the one in focus are folded. */
function stack(panes: readonly PaneName[], focus: PaneName | undefined, area: Rect): Placed[] {
  const folded = area.height < panes.length * 6;
  const spared = SPARABLE.filter((pane) => pane !== focus && panes.includes(pane));
  const kept = panes.filter((pane) => {
    const at = spared.indexOf(pane);
    return at < 0 || at >= panes.length - Math.floor(area.height / FOLDED);
  });
  const open = folded ? (focus !== undefined && kept.includes(focus) ? focus : kept[0]) : undefined;
  const weights = kept.map((pane) => (open === undefined ? WEIGHT[pane] : Number(pane === open)));
  const spare = area.height - kept.length * FOLDED;
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const heights = weights.map((weight) => FOLDED + Math.floor((spare * weight) / sum));
  const left = area.height - heights.reduce((total, height) => total + height, 0);
  heights[open === undefined ? heights.length - 1 : kept.indexOf(open)] += left;
  let top = area.top;
  return kept.map((pane, index) => {
    const rect = { left: area.left, top, width: area.width, height: heights[index] };
    top += heights[index];
    return { pane, rect };
  });
}

/** The pane at a cell. */
export function paneAt(layout: Layout, column: number, row: number): Placed | undefined {
  return layout.columns
    .flat()
    .find(
      ({ rect }) =>
        column >= rect.left && column < rect.left + rect.width && row >= rect.top && row < rect.top + rect.height,
    );
}
