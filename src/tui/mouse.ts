/** What the mouse does to the workstation, by what was under it in the last frame. */
import { type Frame, terminalCellAt } from './frame.ts';
import type { MouseEvent } from './input.ts';
import { type Placed, paneAt, type Rect } from './layout.ts';
import type { Station } from './station.ts';

const WHEEL_ROWS = 3;

export function mouse(station: Station, frame: Frame, event: MouseEvent): void {
  // What has been read goes, and the keys that stood there come back.
  if (event.kind === 'press') station.dropNotice();
  if (station.overlay) overOverlay(station, frame, event);
  else overPanes(station, frame, event);
  station.changed();
}

const isIn = ({ left, top, width, height }: Rect, column: number, row: number): boolean =>
  column >= left && column < left + width && row >= top && row < top + height;

function overOverlay(station: Station, { overlay }: Frame, { kind, column, row }: MouseEvent): void {
  if (kind === 'wheel-up' || kind === 'wheel-down') station.key(kind === 'wheel-up' ? 'up' : 'down', '');
  // What has not been drawn yet, or has no room on the screen, is not what was pressed.
  if (kind !== 'press' || !overlay || overlay.of !== station.overlay) return;
  if (isIn(overlay.rect, column, row)) overlay.presses[row - overlay.rect.top - 1]?.();
  else station.key('esc', '');
}

function overPanes(station: Station, frame: Frame, { kind, column, row }: MouseEvent): void {
  const place = frame.layout && paneAt(frame.layout, column, row);
  if (kind === 'drag' || kind === 'release') dragTo(station, frame, column, row);
  if (kind === 'release') station.copyMarked();
  if (place && (kind === 'wheel-up' || kind === 'wheel-down'))
    station.scroll(place.pane, kind === 'wheel-up' ? -WHEEL_ROWS : WHEEL_ROWS);
  if (kind !== 'press') return;
  const tab = frame.tabs.find((each) => each.row === row && column >= each.from && column < each.to);
  // Who goes elsewhere with the mouse takes the keyboard along.
  const terminal = tab ? station.consoles[tab.console] : place && station.terminalOf(place.pane);
  if (station.typingInto && station.typingInto !== terminal) station.stopTyping();
  if (station.filtering && station.filtering !== place?.pane) station.keepFilter();
  station.unmark();
  station.stopCopying();
  if (tab) station.console = tab.console;
  if (place) {
    pressIn(station, frame, place, column, row);
    return;
  }
  const button = frame.buttons.find((each) => each.row === row && column >= each.from && column < each.to);
  if (button) station.key(button.key, button.key);
}

function pressIn(station: Station, frame: Frame, { pane, rect }: Placed, column: number, row: number): void {
  const terminal = station.terminalOf(pane);
  const cell = terminal && terminalCellAt(terminal, rect, column, row, true);
  if (cell) station.mark(terminal, cell);
  const again = station.focus === pane;
  station.focusOn(pane);
  const key = frame.rows[pane]?.[row - rect.top - 1];
  if (key === undefined) return;
  const chosen = station.lists[pane].selected === key;
  station.lists[pane].choose(key);
  if (again && chosen && !station.filtering) station.key('enter', '');
}

/** A drag that leaves its pane ends at the pane's edge. */
function dragTo(station: Station, { layout }: Frame, column: number, row: number): void {
  const { marking } = station;
  const place = layout?.columns.flat().find(({ pane }) => station.terminalOf(pane) === marking);
  const cell = marking && place && terminalCellAt(marking, place.rect, column, row, false);
  if (cell) station.markTo(cell);
}
