import { formatSize } from '../../client/sizes.ts';
import type { VirtioMemReport } from '../../client/virtio_mem.ts';
import { plot } from '../graph.ts';
import { memoryRoom } from '../memory_room.ts';
import { line, span } from '../style.ts';
import { compactBytes, hex, type PaneContent, type PaneContext, type Row, rowWithParts, stageOf } from './pane.ts';

/** RAM by range: where it is, what backs it, how much of it the host has. */
export function memoryPane({ model, width, height, glyphs }: PaneContext): PaneContent {
  const { description } = model.vm.machine;
  const { memory } = description;
  const dimms = model.plugged?.memory.dimms ?? [];
  const blocks = model.plugged?.memory.virtio ?? [];
  const plugged = [...dimms.map((dimm) => dimm.size), ...blocks.map((each) => each.plugged)];
  const size = memory.size + plugged.reduce((all, each) => all + each, 0);
  const resident = model.memory.reduce((all, range) => all + range.resident, 0);
  const { max } = model.plugged?.memory ?? {};
  const room = model.plugged && memoryRoom(model.plugged, description);
  const most = !room || max === undefined ? '' : `/${formatSize(max)}, ${room.taken}/${room.slots} slots`;
  const title = `memory ${formatSize(size)}${most} · ${compactBytes(resident)} resident`;
  const addressWidth = Math.max(3, ...model.memory.map(({ address }) => hex(address).length));
  const sizeWidth = Math.max(5, ...model.memory.map((range) => formatSize(range.size).length));
  const bar = Math.min(20, Math.max(4, Math.floor((width - addressWidth - sizeWidth - 7) / 3)));
  const rows: Row[] = model.memory.map((range) => {
    const dimm = dimms.find(({ id }) => id === range.dimm);
    const nvdimm = model.plugged?.nvdimms.find(({ id }) => id === range.dimm);
    const backend = nvdimm
      ? { path: nvdimm.file, backend: 'file' as const, hugepages: undefined }
      : (dimm ?? virtioBackend(blocks, range.dimm) ?? memory);
    const module = dimm ?? nvdimm;
    const virtio = blocks.find(({ id }) => id === range.dimm);
    const place = module ? [`slot ${module.slot}`, `node ${module.node}`] : virtio ? [`node ${virtio.node}`] : [];
    const parts = [
      span(range.dimm ?? 'boot', 'bold'),
      ...stageOf(model, range.dimm),
      ...place.map((text) => span(text, 'dim')),
      ...(virtio ? [span(`${formatSize(virtio.plugged)} of ${formatSize(virtio.requested)} plugged`, 'dim')] : []),
      ...(nvdimm ? [span(`${nvdimm.flushes} flushes`, 'dim')] : []),
      span(backend.path ?? backend.backend, 'dim'),
      ...(backend.hugepages ? [span(`${backend.hugepages} pages`, 'dim')] : []),
      ...written(model, range.address),
      ...(range.huge > 0 ? [span(`${compactBytes(range.huge)} huge`, 'dim')] : []),
    ];
    const head = [
      span(`${hex(range.address).padEnd(addressWidth)} `, 'dim'),
      span(`${formatSize(range.size).padStart(sizeWidth)} `),
      span(gauge(range.resident / range.size, bar), 'graph'),
      span(`${Math.round((range.resident / range.size) * 100)}%`.padStart(5)),
    ];
    return rowWithParts(range.dimm ?? `memory at ${hex(range.address)}`, head, parts, width);
  });
  for (const [index, node] of (description.numa?.nodes ?? []).entries()) {
    const cpus = node.cpus.length > 0 ? `, vCPUs ${node.cpus.join(',')}` : '';
    rows.push({ key: `node ${index}`, line: line(`node ${index}: ${formatSize(node.memory ?? 0)}${cpus}`, 'dim') });
  }
  if (rows.length === 0) return { title, rows: [{ line: line('Waiting for the machine.', 'dim') }] };
  const { balloon } = model;
  if (balloon) {
    const asked = balloon.target === balloon.actual ? '' : `, ${compactBytes(balloon.target)} asked for`;
    const left = balloon.statistics.availableMemory ?? balloon.statistics.freeMemory;
    const parts = left === undefined ? [] : [span(`· the guest has ${compactBytes(left)} left`, 'dim')];
    const head = [span('balloon', 'bold'), span(` ${compactBytes(balloon.actual)} in it${asked}`)];
    rows.push(rowWithParts('balloon', head, parts, width));
  }
  return { title, rows: [...rows, ...history(model, size, width, height - rows.length, glyphs)] };
}

/** Rows of a picture below its caption: fewer show nothing. */
const LEAST_PLOT = 2;

/** How fast the guest writes to a range, while that is measured. */
function written({ dirty: { last } }: PaneContext['model'], address: number) {
  const range = last?.ranges.find((each) => each.address === address);
  return last && range ? [span(`${compactBytes((range.dirty * 1000) / last.milliseconds)}/s written`, 'warn')] : [];
}

/** What the host has of the RAM, over time, where there is room for it; or how fast it is written to, where that is measured. */
function history(
  { residence: { bytes, grown }, dirty }: PaneContext['model'],
  size: number,
  width: number,
  height: number,
  glyphs: PaneContext['glyphs'],
): Row[] {
  if (height <= LEAST_PLOT) return [];
  if (dirty.on) {
    const now = dirty.rates.at(-1);
    const told = `pages written to over time, ${now === undefined ? 'measuring' : `${compactBytes(now)}/s now`}`;
    const picture = plot(dirty.rates, width, height - 1, Math.max(...dirty.rates, 1), glyphs);
    return [{ line: line(told, 'dim') }, ...picture.map((text): Row => ({ line: [span(text, 'graph')] }))];
  }
  const caption = `resident of ${compactBytes(size)} over time, +${compactBytes(grown.at(-1) ?? 0)}/s`;
  const rows = plot(bytes, width, height - 1, size, glyphs);
  return [{ line: line(caption, 'dim') }, ...rows.map((text): Row => ({ line: [span(text, 'graph')] }))];
}

function virtioBackend(blocks: readonly VirtioMemReport[], id: string | undefined) {
  const found = blocks.find((each) => each.id === id);
  return found && { path: undefined, backend: found.backend, hugepages: found.hugepages };
}

function gauge(share: number, width: number): string {
  const filled = Math.min(width, Math.max(share > 0 ? 1 : 0, Math.round(share * width)));
  return '█'.repeat(filled) + '░'.repeat(width - filled);
}
