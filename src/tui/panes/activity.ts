import { plot, roundUp, sparkline } from '../graph.ts';
import { span } from '../style.ts';
import { compact, compactBytes, type PaneContent, type PaneContext, type Row } from './pane.ts';

/** Exits and disk traffic over time. */
export function activityPane({ model, width, height, glyphs }: PaneContext): PaneContent {
  const { exits, read, written } = model.activity;
  const now = (series: readonly number[]) => series.at(-1) ?? 0;
  const title = `exits ${compact(now(exits))}/s · disks ${compactBytes(now(read))} in, ${compactBytes(now(written))} out /s`;
  const io = read.map((value, index) => value + written[index]);
  const cells = width * (glyphs === 'braille' ? 2 : 1);
  const scale = (series: readonly number[]) => roundUp(Math.max(...series.slice(-cells), 1));
  if (height < 4) {
    const half = Math.floor(width / 2) - 1;
    const small: Row = {
      line: [
        span(sparkline(exits, half, scale(exits), glyphs), 'graph'),
        span('  '),
        span(sparkline(io, width - half - 2, scale(io), glyphs), 'accent'),
      ],
    };
    return { title, rows: [small] };
  }
  const exitRows = Math.ceil((height - 2) / 2);
  const rows = (series: readonly number[], count: number, style: 'graph' | 'accent', caption: string): Row[] => [
    { line: [span(caption, 'dim')] },
    ...plot(series, width, count, scale(series), glyphs).map((text) => ({ line: [span(text, style)] })),
  ];
  return {
    title,
    rows: [
      ...rows(exits, exitRows, 'graph', `exits a second, up to ${compact(scale(exits))}`),
      ...rows(io, height - 2 - exitRows, 'accent', `disk bytes a second, up to ${compactBytes(scale(io))}`),
    ],
  };
}
