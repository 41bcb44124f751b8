import type { EventLevel, TimelineEvent } from '../model.ts';
import { type Line, type Style, span } from '../style.ts';
import type { PaneContent, PaneContext } from './pane.ts';

const LEVEL: Readonly<Record<EventLevel, Style>> = { info: 'text', good: 'good', warn: 'warn', bad: 'bad' };

/** What a filter is about, too. */
export const eventLine = ({ at, kind, level, text }: TimelineEvent): Line => [
  span(`${at.toTimeString().slice(0, 8)} `, 'dim'),
  span(`${kind.padEnd(7)} `, 'accent'),
  span(text, LEVEL[level]),
];

/** The timeline, oldest first; it stands at its end until somebody moves in it. */
export function eventsPane({ model }: PaneContext): PaneContent {
  const { events, forgotten } = model;
  const rows = events.map((event, index) => ({ key: String(forgotten + index), line: eventLine(event) }));
  return { title: `events ${events.length}${forgotten > 0 ? `, ${forgotten} older ones forgotten` : ''}`, rows };
}
