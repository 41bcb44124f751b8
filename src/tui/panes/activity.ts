import { plot, roundUp, roundUpBytes, sparkline } from '../graph.ts';
import { type Style, span } from '../style.ts';
import { compact, compactBytes, type PaneContent, type PaneContext, type Row } from './pane.ts';

/** One of the pictures. */
interface Picture {
  readonly name: string;
  readonly series: readonly number[];
  readonly scale: number;
  readonly caption: string;
  readonly style: Style;
}

/** Cells of a picture's name where it has a row. */
const NAME_CELLS = 6;

/** Exits, and what goes through disks and network cards, over time. */
export function activityPane({ model, width, height, glyphs }: PaneContext): PaneContent {
  const { exits, read, written, received, sent } = model.activity;
  const cells = width * (glyphs === 'braille' ? 2 : 1);
  const most = (series: readonly number[]) => Math.max(...series.slice(-cells), 1);
  const exitScale = roundUp(most(exits));
  const bytes = (name: string, what: string, to: readonly number[], from: readonly number[], style: Style): Picture => {
    const series = to.map((value, index) => value + from[index]);
    const scale = roundUpBytes(most(series));
    return { name, series, scale, caption: `${what} bytes a second, up to ${compactBytes(scale)}`, style };
  };
  const hasNets = model.nets.length > 0;
  const pictures: readonly Picture[] = [
    {
      ...{ name: 'exits', series: exits, scale: exitScale, style: 'graph' },
      caption: `exits a second, up to ${compact(exitScale)}`,
    },
    bytes('disks', 'disk', read, written, 'accent'),
    ...(hasNets ? [bytes('nets', 'network', received, sent, 'text')] : []),
  ];
  const now = (series: readonly number[]) => series.at(-1) ?? 0;
  const flow = (name: string, to: readonly number[], from: readonly number[]) =>
    `${name} ${compactBytes(now(to))} in, ${compactBytes(now(from))} out /s`;
  const title = [
    `exits ${compact(now(exits))}/s`,
    flow('disks', read, written),
    ...(hasNets ? [flow('nets', received, sent)] : []),
  ].join(' · ');
  return { title, rows: rowsOf(pictures, width, height, glyphs) };
}

/** Each picture below its caption where there is room for that; else in a row of its own, or all in one. */
function rowsOf(pictures: readonly Picture[], width: number, height: number, glyphs: PaneContext['glyphs']): Row[] {
  const { length } = pictures;
  if (height < length) {
    const part = Math.floor((width - 2 * (length - 1)) / length);
    return [
      {
        line: pictures.flatMap(({ series, scale, style }, index) => [
          ...(index > 0 ? [span('  ')] : []),
          span(sparkline(series, index < length - 1 ? part : width - (part + 2) * index, scale, glyphs), style),
        ]),
      },
    ];
  }
  if (height < 2 * length) {
    return pictures.map(({ name, series, scale, style }) => ({
      line: [span(name.padEnd(NAME_CELLS), 'dim'), span(sparkline(series, width - NAME_CELLS, scale, glyphs), style)],
    }));
  }
  return pictures.flatMap(({ series, scale, caption, style }, index) => {
    const count = Math.ceil((height - index) / length) - 1;
    return [
      { line: [span(caption, 'dim')] },
      ...plot(series, width, count, scale, glyphs).map((text): Row => ({ line: [span(text, style)] })),
    ];
  });
}
