import { sparkline } from '../graph.ts';
import { type Line, line, span } from '../style.ts';
import { compact, type PaneContent, type PaneContext, rowWithParts, stageOf } from './pane.ts';

const STATE = { running: 'good', paused: 'warn', created: 'dim', ended: 'bad' } as const;

/** One row a vCPU: load, exits, what they are about, thread and pinning. */
export function vcpusPane({ model, width, glyphs }: PaneContext): PaneContent {
  const present = model.counters?.vcpus ?? [];
  const { cpus } = model.vm.machine.description;
  const { max } = model.plugged?.cpus ?? {};
  const load = [...model.vcpus.values()].reduce((all, { utilisation }) => all + (utilisation.at(-1) ?? 0), 0);
  const room = max !== undefined && max > present.length ? `/${max}` : '';
  const title = `vCPUs ${present.length || cpus.count}${room} · ${Math.round(load * 100)}%`;
  // A third or so is left for what the exits are about.
  const graph = Math.min(24, Math.max(4, Math.floor((width - 26) * 0.6)));
  const rows = present.map(({ index, state, threadId }) => {
    const history = model.vcpus.get(index);
    const share = history?.utilisation.at(-1) ?? 0;
    const cells: Line = [
      span(String(index).padStart(3), state === 'running' ? 'text' : STATE[state]),
      span(`${Math.round(share * 100)}%`.padStart(5), share > 0.9 ? 'warn' : 'text'),
      span(' '),
      span(sparkline(history?.utilisation ?? [], graph, 1, glyphs), 'graph'),
      span(`${compact(history?.exits.at(-1) ?? 0).padStart(5)}/s`),
    ];
    const pinned = cpus.pin?.[index];
    const key = `cpu${index}`;
    const parts = [
      ...stageOf(model, key),
      ...(state === 'running' ? [] : [span(state, STATE[state])]),
      ...Object.entries(history?.reasons ?? {})
        .slice(0, 3)
        .map(([reason, rate]) => span(`${reason.toLowerCase()} ${compact(rate)}`, 'dim')),
      span(`tid ${threadId}`, 'dim'),
      ...(pinned ? [span(`on CPU ${pinned.join(',')}`, 'dim')] : []),
    ];
    return rowWithParts(key, cells, parts, width);
  });
  return { title, rows: rows.length > 0 ? rows : [{ line: line('Waiting for the machine.', 'dim') }] };
}
