/** A whole screen as lines of spans: header, panes in their frames, what stands in front of them, footer. */
import { ramSize } from '../client/live.ts';
import { formatSize } from '../client/sizes.ts';
import { timeOfDay } from '../console/time_of_day.ts';
import { TAKE_OVER } from './actions/looking.ts';
import { actionsIn } from './actions.ts';
import { ascii, asciiLine } from './ascii.ts';
import { COPY_KEYS } from './copy_mode.ts';
import { keyLabel } from './keys.ts';
import { type Layout, layOut, MIN_COLUMNS, MIN_ROWS, PANES, type PaneName, type Rect } from './layout.ts';
import type { MachineModel } from './model.ts';
import { CURSOR, endOf, type Overlay, type OverlayView } from './overlays/overlay.ts';
import { activityPane } from './panes/activity.ts';
import { eventsPane } from './panes/events.ts';
import { memoryPane } from './panes/memory.ts';
import { compact, type PaneContent, type PaneContext } from './panes/pane.ts';
import { pciPane } from './panes/pci.ts';
import { vcpusPane } from './panes/vcpus.ts';
import { withShortPath } from './path_text.ts';
import type { Station } from './station.ts';
import { type Line, line, lineWidth, plainText, type Style, shortened, span, toWidth, widthOf } from './style.ts';
import { type Tab, tabsWithin } from './tabs.ts';
import type { TerminalPane } from './terminal_pane.ts';
import { type BufferCell, terminalLines, topRow } from './terminal_view.ts';

export interface Box {
  readonly rect: Rect;
  /** Frame and contents, `rect.height` lines of `rect.width` cells. */
  readonly lines: readonly Line[];
}

/** Cells of a row of the screen. */
interface Cells {
  readonly row: number;
  readonly from: number;
  readonly to: number;
}

export interface Frame {
  readonly header: Line;
  /** Panes in columns, as the layout has them. */
  readonly columns: readonly (readonly Box[])[];
  readonly overlay: (Box & Pick<OverlayView, 'presses'> & { readonly of: Overlay }) | undefined;
  readonly footer: Line;
  /** Instead of all that, on a screen without room for it. */
  readonly tooSmall?: readonly string[];
  readonly layout: Layout | undefined;
  /** What a click on the footer does, by column. */
  readonly buttons: readonly (Cells & { readonly key: string })[];
  /** Which console a click on the title of their pane shows. */
  readonly tabs: readonly (Cells & { readonly console: number })[];
  /** Keys of the rows of lists, by pane, from the first line inside the frame on. */
  readonly rows: Readonly<Partial<Record<PaneName, readonly (string | undefined)[]>>>;
}

const LISTS: Readonly<Partial<Record<PaneName, (context: PaneContext) => PaneContent>>> = {
  vcpus: vcpusPane,
  pci: pciPane,
  memory: memoryPane,
  activity: activityPane,
  events: eventsPane,
};

/** @param rows of the terminal; the frame takes one less, or Ink would clear the screen at each one. */
export function frameOf(station: Station, columns: number, rows: number): Frame {
  const frame = fullFrame(station, columns, rows);
  station.unseen = frame.tooSmall !== undefined;
  return station.unicode ? frame : asciiFrame(frame);
}

function asciiFrame(frame: Frame): Frame {
  const ofBox = <T extends Box>(box: T): T => ({ ...box, lines: box.lines.map(asciiLine) });
  return {
    ...frame,
    header: asciiLine(frame.header),
    columns: frame.columns.map((boxes) => boxes.map((box) => ofBox(box))),
    overlay: frame.overlay && ofBox(frame.overlay),
    footer: asciiLine(frame.footer),
    ...(frame.tooSmall && { tooSmall: frame.tooSmall.map(ascii) }),
  };
}

/** With characters that not every terminal shows. */
function fullFrame(station: Station, columns: number, rows: number): Frame {
  const height = rows - 1;
  const area = { width: columns, height: height - 2, top: 1 };
  const layout = layOut(area, station.layout, station.focus, station.bottom);
  const none = { header: [], columns: [], overlay: undefined, footer: [], layout, buttons: [], tabs: [], rows: {} };
  if (!layout || rows < MIN_ROWS) {
    const text = `NEMU needs ${MIN_COLUMNS}×${MIN_ROWS}; this is ${columns}×${rows}.`;
    return {
      ...none,
      layout: undefined,
      // A question is read all the same: keys answer it.
      tooSmall: (station.overlay
        ? station.overlay.view(columns, height).lines.map((each) => plainText(toWidth(each, columns)).trimEnd())
        : [text, 'Make the window larger, or q.']
      ).slice(0, Math.max(1, height)),
    };
  }
  const keys: Partial<Record<PaneName, readonly (string | undefined)[]>> = {};
  const tabs: Frame['tabs'][number][] = [];
  const boxes = layout.columns.map((column) =>
    column.map(({ pane, rect }): Box => {
      const content = paneLines(station, pane, rect.width - 2, rect.height - 2);
      keys[pane] = content.keys;
      for (const { console, from, to } of content.tabs ?? []) {
        const left = rect.left + BORDER_CELLS + NUMBER_CELLS;
        tabs.push({ console, row: rect.top, from: left + from, to: left + to });
      }
      return { rect, lines: framed(station, pane, rect, content) };
    }),
  );
  const footer = footerOf(station, columns);
  return {
    header: toWidth(headerOf(station, columns), columns),
    columns: boxes,
    overlay: overlayOf(station, columns, height),
    footer: footer.line,
    layout,
    buttons: footer.buttons.map((button) => ({ row: height - 1, ...button })),
    tabs,
    rows: keys,
  };
}

const STATES: Readonly<Record<string, Style>> = { running: 'good', paused: 'warn', ended: 'bad', closed: 'bad' };

function headerOf(station: Station, width: number): Line {
  const { machine, model, place } = station;
  const { description, state, end } = machine;
  const minutes = Math.floor((model.clock.wall() - model.startedAt) / 60_000);
  const hours = `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')} h`;
  const up = minutes === 0 ? '' : minutes < 60 ? `${minutes} min` : hours;
  const memory = model.plugged ? ramSize(model.plugged.memory) : description.memory.size;
  const rate = model.activity.exits.at(-1);
  const parts: Line[] = [
    [span(' NEMU ', 'selected'), span(` ${description.name} `, 'bold')],
    [span('● ', STATES[state] ?? 'dim'), span(state, STATES[state] ?? 'dim')],
    line(`${description.machine}, ${formatSize(memory)}`),
    line(place, 'dim'),
    ...(rate === undefined ? [] : [line(`${compact(rate)} exits/s`, 'dim')]),
    ...(up === '' ? [] : [line(up, 'dim')]),
    ...(station.readonly ? [line('read-only', 'warn')] : []),
    ...(end ? [line(end.detail, end.reason === 'poweroff' ? 'dim' : 'bad')] : []),
    ...(model.trouble === undefined ? [] : [line(model.trouble, 'bad')]),
  ];
  const spans: Line[number][] = [];
  for (const part of parts) {
    if (lineWidth(spans) + lineWidth(part) + 2 > width && spans.length > 0) break;
    spans.push(...part, span('  '));
  }
  return spans;
}

interface PaneLines {
  readonly title: string;
  readonly lines: readonly Line[];
  readonly keys: readonly (string | undefined)[];
  /** Consoles in the title. */
  readonly tabs?: readonly Tab[];
}

function paneLines(station: Station, pane: PaneName, width: number, height: number): PaneLines {
  const list = LISTS[pane];
  if (!list) return terminalContent(station, pane, width, height);
  const { title, rows } = list({ model: station.model, width, height, glyphs: station.glyphs });
  const state = station.lists[pane];
  const { rows: shown } = state.window(rows, height);
  const lines = shown.map(({ line: each, key }) =>
    station.focus === pane && key !== undefined && key === state.selected
      ? toWidth(
          each.map(({ text }) => span(text, 'selected')),
          width,
        )
      : each,
  );
  if (shown.length === 0 && rows.length > 0) lines.push(line('Nothing matches; Esc drops the filter.', 'dim'));
  const filter = state.filter === '' && station.filtering !== pane ? '' : ` /${state.filter}`;
  return { title: title + filter, lines, keys: shown.map(({ key }) => key) };
}

function terminalContent(station: Station, pane: PaneName, width: number, height: number): PaneLines {
  const terminal = station.terminalOf(pane);
  if (!terminal) return { title: pane, lines: [line('This machine has no console.', 'dim')], keys: [] };
  const gutter = terminal.timestamps ? TIME_CELLS : 0;
  terminal.room = height;
  // A guest is not told of a console that is folded for as long as another pane is looked at: it is shown in part.
  const aside = pane === 'console' && station.layout === 'half' && station.focus !== pane;
  // One that has the whole terminal has its size.
  if (station.zoomed !== terminal && !aside) terminal.resize(width - gutter, height);
  const lines = terminalLines(terminal.terminal, {
    width: width - gutter,
    height,
    scrolledBack: terminal.scrolledBack,
    cursor: station.typingInto === terminal && terminal.scrolledBack === 0,
    colours: station.theme.name === 'plain' ? 'none' : station.colours,
    selection: station.selectionIn(terminal),
  });
  const shown = gutter > 0 ? withTimes(terminal, lines, height) : lines;
  if (terminal.silent && pane === 'console')
    shown[height > 2 ? 1 : 0] = line(`  ${silenceOf(station, terminal)}`, 'dim');
  return { ...terminalTitle(station, pane, terminal, width), lines: shown, keys: [] };
}

/** Why a console is empty: a guest that boots takes its time, and is not broken. */
function silenceOf({ machine, model }: Station, { name }: TerminalPane): string {
  if (machine.end) return `${name} printed nothing.`;
  if (machine.state !== 'running') return `${name} has printed nothing yet; the machine is ${machine.state}.`;
  return `${name} has printed nothing yet (${Math.floor((model.clock.wall() - model.startedAt) / 1000)} s).`;
}

/** `15:04:05.678 ` */
const TIME_CELLS = 13;

/**
 * The cell of a terminal's buffer at a place of the screen; of a place outside the pane, the nearest one inside.
 * @param inside only of a place that is in it.
 */
export function terminalCellAt(
  terminal: TerminalPane,
  { left, top, width, height }: Rect,
  column: number,
  row: number,
  inside: boolean,
): BufferCell | undefined {
  const gutter = terminal.timestamps ? TIME_CELLS : 0;
  const [x, y] = [column - left - 1 - gutter, row - top - 1];
  const [columns, rows] = [width - 2 - gutter, height - 2];
  if (inside && (x < 0 || y < 0 || x >= columns || y >= rows)) return undefined;
  const first = topRow(terminal.terminal, { height: rows, scrolledBack: terminal.scrolledBack });
  return { row: first + Math.max(0, Math.min(rows - 1, y)), column: Math.max(0, Math.min(columns - 1, x)) };
}

/** Rows with the time when they were begun, in front of those that a program wrote as lines. */
function withTimes({ terminal, scrolledBack, times }: TerminalPane, lines: readonly Line[], height: number): Line[] {
  const top = topRow(terminal, { height, scrolledBack });
  const buffer = terminal.buffer.active;
  const end = buffer.baseY + buffer.cursorY;
  return lines.map((each, index) => {
    const row = top + index;
    const at = row > end || buffer.getLine(row)?.isWrapped ? undefined : times.of(row);
    return [span((at === undefined ? '' : timeOfDay(at)).padEnd(TIME_CELLS), 'dim'), ...each];
  });
}

/** What the names of consoles stand behind. */
const TABS_HEAD = 'console ';

/** @param width inside the frame. */
function terminalTitle(
  station: Station,
  pane: PaneName,
  terminal: TerminalPane,
  width: number,
): Pick<PaneLines, 'title' | 'tabs'> {
  const state = terminalState(station, pane, terminal);
  if (pane !== 'console') return { title: terminal.name + state };
  const room = width - BORDER_CELLS - NUMBER_CELLS - 1 - TABS_HEAD.length;
  const names = station.consoles.map(({ name }) => name);
  const { text, tabs } = tabsWithin(names, station.console, room - widthOf(firstPart(state)));
  const head = TABS_HEAD.length;
  return {
    title: TABS_HEAD + text + state,
    tabs: tabs.map(({ console, from, to }) => ({ console, from: head + from, to: head + to })),
  };
}

/** What is to be read of a terminal's state in any case: the rest may be cut off (`titleWithin`). */
const firstPart = (state: string): string => /^.*?(?: · .*?)?(?=, | · |$)/.exec(state)?.[0] ?? '';

/** What there is to know of a terminal now, behind its name. */
function terminalState(station: Station, pane: PaneName, terminal: TerminalPane): string {
  const filter = station.filtering === pane ? ` /${station.filterOf(pane)}` : '';
  return [
    filter,
    terminal.watching ? ` · ${watchingNote(station, terminal)}` : '',
    station.typingInto === terminal ? ` · ${terminal.watching ? '' : 'typing, '}Ctrl-] leaves` : '',
    station.copying?.pane === terminal ? ' · copying' : '',
    terminal.scrolledBack > 0 ? ` · ${terminal.scrolledBack} lines back` : '',
    ...station.files.of(terminal).map((kind) => ` · ${kind}`),
    terminal.skipped > 0 ? ` · ${compact(terminal.skipped)} bytes too fast to draw` : '',
  ].join('');
}

function watchingNote(station: Station, terminal: TerminalPane): string {
  if (station.readonly) return 'watching';
  if (station.typingInto === terminal) return 'watching: keys go nowhere';
  return `watching · ${keyLabel(TAKE_OVER.keys[0], station.unicode)} takes over`;
}

/** `┌─`, and the number of a pane with spaces around it, in front of its title. */
const BORDER_CELLS = 2;
const NUMBER_CELLS = 3;

/** A frame with a title around the contents. */
function framed(station: Station, pane: PaneName, { width, height }: Rect, { title, lines }: PaneLines): Line[] {
  const inFocus = station.focus === pane && !station.overlay;
  const number = PANES.indexOf(pane) + 1;
  return boxed(` ${number} ${title} `, lines, width, height, inFocus ? 'focus' : 'border', inFocus ? 'focus' : 'title');
}

function boxed(
  title: string,
  lines: readonly Line[],
  width: number,
  height: number,
  border: Style,
  titleStyle: Style,
): Line[] {
  const head = [span(titleWithin(title, width - 4), titleStyle)];
  const rest = width - 3 - lineWidth(head);
  return [
    [span('┌─', border), ...head, span(`${'─'.repeat(rest)}┐`, border)],
    ...Array.from(
      { length: height - 2 },
      (_, row): Line => [span('│', border), ...toWidth(lines[row] ?? [], width - 2), span('│', border)],
    ),
    [span(`└${'─'.repeat(width - 2)}┘`, border)],
  ];
}

/** As many of a title's parts as there is room for, the first in any case. */
function titleWithin(title: string, width: number): string {
  let text = title;
  while (widthOf(text) > width) {
    const cut = Math.max(text.lastIndexOf(', '), text.lastIndexOf(' · '));
    if (cut <= 0) return plainText(toWidth([span(text)], width));
    text = `${text.slice(0, cut)} `;
  }
  return text;
}

/** In the middle of the screen, as large as it needs to be. */
function overlayOf(station: Station, columns: number, height: number): Frame['overlay'] {
  const { overlay } = station;
  if (!overlay) return undefined;
  const view = overlay.view(columns - 6, height - 6);
  const hint: Line[] = view.hint === '' ? [] : [[], line(view.hint, 'dim')];
  const shown = view.lines.slice(0, height - 4 - hint.length);
  const lines = [...shown, ...hint];
  const width = Math.max(
    24,
    Math.min(columns - 2, Math.max(view.width, widthOf(view.hint), widthOf(view.title) + 4) + 4),
  );
  const size = { width, height: lines.length + 2 };
  const rect = {
    left: Math.floor((columns - width) / 2),
    top: Math.max(1, Math.floor((height - size.height) / 2)),
    ...size,
  };
  const padded = lines.map((each): Line => [span(' '), ...each]);
  return {
    rect,
    lines: boxed(` ${view.title} `, padded, width, size.height, 'focus', 'focus'),
    presses: view.presses.slice(0, shown.length),
    of: overlay,
  };
}

/** Keys that make sense now, or what has just happened. */
function footerOf(station: Station, width: number): { line: Line; buttons: Omit<Frame['buttons'][number], 'row'>[] } {
  const { notice, model, filtering } = station;
  if (filtering) {
    const text = ` /${endOf(station.filterOf(filtering), width - 4)}`;
    return {
      line: toWidth([span(text, 'key'), ...CURSOR, span('  Enter: keep · Esc: drop', 'dim')], width),
      buttons: [],
    };
  }
  if (station.copying) {
    return { line: toWidth([span(` ${COPY_KEYS}`, 'text')], width), buttons: [] };
  }
  if (notice) {
    const style = notice.level === 'info' ? 'text' : notice.level;
    const text = withShortPath(` ${notice.text}`, width);
    return { line: toWidth(withPending([span(text, style)], model, width), width), buttons: [] };
  }
  // The keys of the workstation are the console's for as long.
  if (station.typingInto) {
    const where = `: back from ${station.typingInto.name}`;
    const head = [span(' Ctrl-]', 'key'), span(where, 'text')];
    return { line: toWidth(withPending(head, model, width), width), buttons: [] };
  }
  const progress = progressOf(model, width - 2);
  const spans: Line[number][] = progress ? [span(` ${progress} `, 'accent')] : [];
  const buttons: { from: number; to: number; key: string }[] = [];
  for (const action of actionsIn(station.focus)) {
    if (action.footer === undefined) continue;
    const label = keyLabel(action.keys[0], station.unicode);
    const from = lineWidth(spans);
    if (from + label.length + action.footer.length + 3 > width) break;
    const usable = station.whyNot(action) === undefined;
    spans.push(span(` ${label}`, usable ? 'key' : 'dim'), span(` ${action.footer} `, usable ? 'text' : 'dim'));
    buttons.push({ from, to: lineWidth(spans), key: action.keys[0] });
  }
  return { line: toWidth(spans, width), buttons };
}

/** How long what has settled is news. */
const PROGRESS_MS = 8000;

/** Stages of the newest request under way, and how many more there are; with none, of the last, while it is news. */
function progressOf({ pending, settled, clock }: MachineModel, width: number): string | undefined {
  const news = settled && clock.wall() - settled.at <= PROGRESS_MS ? settled.request : undefined;
  const request = [...pending.values()].at(-1) ?? news;
  if (!request) return undefined;
  const { action, device, history, reason } = request;
  const more = pending.size > 1 ? ` +${pending.size - 1} pending` : '';
  const stages = history.map(({ stage }) => stage).join(' → ');
  return shortened(`${action} ${device.id}: ${stages}${reason ? ` (${reason})` : ''}`, width - more.length) + more;
}

/** What the footer says, and behind it what is under way, as far as there is room for that. */
function withPending(head: Line, model: MachineModel, width: number): Line {
  const { size } = model.pending;
  if (size === 0) return head;
  const room = width - lineWidth(head);
  const told = [` · ${progressOf(model, width)}`, ` · ${size} pending`].find((text) => widthOf(text) <= room);
  return told === undefined ? head : [...head, span(told, 'accent')];
}
