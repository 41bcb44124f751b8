import { plot, roundUp, roundUpBytes, sparkline } from '../graph.ts';
import { span } from '../style.ts';
import { compact, compactBytes, type PaneContent, type PaneContext, type Row } from './pane.ts';

/** Exits and disk traffic over time. */
export function activityPane({ model, width, height, glyphs }: PaneContext): PaneContent {
  const { exits, read, written } = model.activity;
  const now = (series: readonly number[]) => series.at(-1) ?? 0;
  const title = `exits ${compact(now(exits))}/s · disks ${compactBytes(now(read))} in, ${compactBytes(now(written))} out /s`;
  const io = read.map((value, index) => value + written[index]);
  const cells = width * (glyphs === 'braille' ? 2 : 1);
  const most = (series: readonly number[]) => Math.max(...series.slice(-cells), 1);
  const exitScale = roundUp(most(exits));
  const ioScale = roundUpBytes(most(io));
  if (height < 4) {
    const half = Math.floor(width / 2) - 1;
    const small: Row = {
      line: [
        span(sparkline(exits, half, exitScale, glyphs), 'graph'),
        span('  '),
        span(sparkline(io, width - half - 2, ioScale, glyphs), 'accent'),
      ],
    };
    return { title, rows: [small] };
  }
  const exitRows = Math.ceil((height - 2) / 2);
  const rows = (
    series: readonly number[],
    scale: number,
    count: number,
    style: 'graph' | 'accent',
    caption: string,
  ): Row[] => [
    { line: [span(caption, 'dim')] },
    ...plot(series, width, count, scale, glyphs).map((text) => ({ line: [span(text, style)] })),
  ];
  return {
    title,
    rows: [
      ...rows(exits, exitScale, exitRows, 'graph', `exits a second, up to ${compact(exitScale)}`),
      ...rows(io, ioScale, height - 2 - exitRows, 'accent', `disk bytes a second, up to ${compactBytes(ioScale)}`),
    ],
  };
}
