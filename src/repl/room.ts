/** Whether there is room for what a plan does, so that one that cannot end well is refused before anything is touched. */
import { DIMM_ALIGNMENT } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import type { PluggedReport } from '../client/live.ts';
import { formatSize } from '../client/sizes.ts';
import type { Step } from './plan.ts';

interface Plugged {
  readonly kind: string;
  readonly type?: string;
  readonly id?: string;
  readonly size?: number;
  readonly port?: string;
  readonly ports?: number;
  readonly node?: number;
}

/**
 * Processors are not here: more than there is room for need a new start, as the plan says.
 * @param nodes of NUMA that the machine has. @param nvdimmsOfStart stand in slots of their own.
 * @throws NemuError APPLY that names the bound in the way.
 */
export function requireRoom(steps: readonly Step[], here: PluggedReport, nodes: number, nvdimmsOfStart: number): void {
  const goes = new Set(steps.flatMap(({ action, subject }) => (action === 'unplug' ? [subject] : [])));
  const comes = steps.flatMap(({ plugs, subject }) => (plugs ? [{ ...(plugs as Plugged), id: subject }] : []));
  const problem = problemOfMemory(here, goes, comes, nodes, nvdimmsOfStart) ?? problemOfPorts(here, goes, comes);
  if (problem === undefined) return;
  throw new NemuError('APPLY', `${problem} Nothing was done.`, {
    hint: 'Take more out, or start the machine with more room: --memory max=…,slots=…, --pcie root-ports=….',
  });
}

function problemOfMemory(
  { memory, nvdimms }: PluggedReport,
  goes: ReadonlySet<string>,
  comes: readonly Plugged[],
  nodes: number,
  nvdimmsOfStart: number,
): string | undefined {
  const modules = comes.filter(({ kind }) => kind === 'memory' || kind === 'nvdimm');
  const regions = comes.filter(({ type }) => type === 'virtio-mem' || type === 'virtio-pmem');
  const [first] = [...modules, ...regions];
  if (!first) return undefined;
  if (memory.max === undefined) return `There is no room for ${first.id}: the machine has no room for more memory.`;
  const elsewhere = [...modules, ...regions].find(({ node = 0 }) => node >= nodes);
  if (elsewhere) return `${elsewhere.id} is for node ${elsewhere.node}: the machine has nodes 0 to ${nodes - 1}.`;
  const odd = [...modules, ...regions].find(
    ({ kind, type, size = 0 }) => (kind === 'memory' || type === 'virtio-mem') && size % DIMM_ALIGNMENT !== 0,
  );
  if (odd) return `${odd.id} of ${odd.size} bytes is not a multiple of ${formatSize(DIMM_ALIGNMENT)}.`;
  const sum = (list: readonly { readonly size?: number }[]) => list.reduce((all, { size = 0 }) => all + size, 0);
  const stays = <T extends { readonly id: string }>(list: readonly T[]) => list.filter(({ id }) => !goes.has(id));
  const used = memory.boot + sum(stays(memory.dimms)) + sum(stays(memory.virtio));
  const all = used + sum(modules) + sum(regions);
  if (all > memory.max) {
    return `${[...modules, ...regions].map(({ id, size = 0 }) => `${id} (${formatSize(size)})`).join(', ')} would make ${formatSize(all)} of memory, above the machine's limit of ${formatSize(memory.max)}.`;
  }
  const slots = (memory.slots ?? 0) + nvdimmsOfStart;
  const taken = stays(memory.dimms).length + stays(nvdimms).length + modules.length;
  return taken > slots ? `There would be ${taken} DIMMs and NVDIMMs: the machine has ${slots} slots.` : undefined;
}

/** The switch or bridge that a place is behind: `sw0` of `sw0.1`. */
export const behind = (port: string | undefined) => /^(.+)\.\d+$/.exec(port ?? '')?.[1] ?? port;

function problemOfPorts(
  { pci }: PluggedReport,
  goes: ReadonlySet<string>,
  comes: readonly Plugged[],
): string | undefined {
  const stuck = pci.devices.find(({ id, port }) => !goes.has(id) && goes.has(behind(port) ?? ''));
  if (stuck) return `${behind(stuck.port)} cannot go: ${stuck.id}, which stays, is behind it.`;
  // What goes with a switch is no place any more; what comes with one is.
  const free = new Set(
    pci.ports
      .filter(({ id, device }) => (device === undefined || goes.has(device)) && !goes.has(behind(id) ?? ''))
      .map(({ id }) => id),
  );
  const taken = new Map(
    pci.ports.flatMap(({ id, device }) => (device !== undefined && !goes.has(device) ? [[id, device]] : [])),
  );
  const devices = comes.filter(({ kind }) => kind === 'pci');
  for (const { id, type, ports = 4 } of devices) {
    if (type === 'pcie-switch') for (let port = 0; port < ports; port++) free.add(`${id}.${port}`);
  }
  // Those that say where they stand first: the others have what is left.
  for (const { id, type, port } of devices.toSorted(
    (a, b) => Number(a.port === undefined) - Number(b.port === undefined),
  )) {
    if (port !== undefined && taken.has(port)) return `${id} is for ${port}, which has ${taken.get(port)} in it.`;
    const place = port === undefined || free.has(port) ? port : [...free].find((each) => behind(each) === port);
    if (port !== undefined && place === undefined) return `There is no place ${port} for ${id}.`;
    const found = place ?? [...free][0];
    if (found === undefined) return `There is no port left for ${id} (${type}): all are taken.`;
    free.delete(found);
    taken.set(found, id ?? '');
  }
  return undefined;
}
