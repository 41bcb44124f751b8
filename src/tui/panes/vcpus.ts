import { sparkline } from '../graph.ts';
import { type Line, line, span } from '../style.ts';
import { compact, type PaneContent, type PaneContext } from './pane.ts';

const STATE = { running: 'good', paused: 'warn', created: 'dim', ended: 'bad' } as const;

/** One row a vCPU: load, exits, what they are about, thread and pinning. */
export function vcpusPane({ model, width, glyphs }: PaneContext): PaneContent {
  const present = model.counters?.vcpus ?? [];
  const { cpus } = model.vm.machine.description;
  const { max } = model.plugged?.cpus ?? {};
  const load = [...model.vcpus.values()].reduce((all, { utilisation }) => all + (utilisation.at(-1) ?? 0), 0);
  const room = max !== undefined && max > present.length ? `/${max}` : '';
  const title = `vCPUs ${present.length || cpus.count}${room} · ${Math.round(load * 100)}%`;
  const graph = Math.min(24, Math.max(4, width - 26));
  const rows = present.map(({ index, state, threadId }) => {
    const history = model.vcpus.get(index);
    const share = history?.utilisation.at(-1) ?? 0;
    const top = Object.entries(history?.reasons ?? {}).slice(0, 3);
    const cells: Line = [
      span(String(index).padStart(3), state === 'running' ? 'text' : STATE[state]),
      span(`${Math.round(share * 100)}%`.padStart(5), share > 0.9 ? 'warn' : 'text'),
      span(' '),
      span(sparkline(history?.utilisation ?? [], graph, 1, glyphs), 'graph'),
      span(`${compact(history?.exits.at(-1) ?? 0).padStart(5)}/s `),
      ...(state === 'running' ? [] : [span(`${state} `, STATE[state])]),
      span(top.map(([reason, rate]) => `${reason.toLowerCase()} ${compact(rate)}`).join(' '), 'dim'),
      span(`  tid ${threadId}${pinOf(cpus.pin, index)}`, 'dim'),
    ];
    return { key: `cpu${index}`, line: cells };
  });
  return { title, rows: rows.length > 0 ? rows : [{ line: line('Waiting for the machine.', 'dim') }] };
}

const pinOf = (pin: readonly (readonly number[])[] | undefined, index: number): string =>
  pin?.[index] === undefined ? '' : ` on CPU ${pin[index].join(',')}`;
