/** `--numa`, as QEMU's `-numa` is written. */
import type { MachineInput } from '../client/description.ts';
import { NemuError } from '../client/errors.ts';
import { type Keys, parseKeyValues } from '../client/options.ts';
import { didYouMean } from '../client/suggest.ts';

type NumaInput = NonNullable<MachineInput['numa']>;

const NODE_KEYS: Keys = {
  nodeid: { kind: 'number' },
  cpus: { kind: 'list' },
  memory: { kind: 'text' },
  mem: { kind: 'text', field: 'memory' },
  initiator: { kind: 'number' },
  'host-nodes': { kind: 'list', field: 'hostNodes' },
  policy: { kind: 'text' },
};

const DISTANCE_KEYS: Keys = { src: { kind: 'number' }, dst: { kind: 'number' }, val: { kind: 'number' } };

const LOCALITY_KEYS: Keys = {
  initiator: { kind: 'number' },
  target: { kind: 'number' },
  hierarchy: { kind: 'text' },
  'data-type': { kind: 'text', field: 'dataType' },
  latency: { kind: 'number' },
  bandwidth: { kind: 'text' },
};

const CACHE_KEYS: Keys = {
  'node-id': { kind: 'number', field: 'node' },
  size: { kind: 'text' },
  level: { kind: 'number' },
  associativity: { kind: 'text' },
  policy: { kind: 'text' },
  line: { kind: 'number' },
};

const KINDS = { node: NODE_KEYS, dist: DISTANCE_KEYS, 'hmat-lb': LOCALITY_KEYS, 'hmat-cache': CACHE_KEYS } as const;

/**
 * All `--numa` options of a command line: `node,cpus=0-3,memory=1G`, `dist,src=0,dst=1,val=21`,
 * `hmat-lb,initiator=0,target=1,data-type=access-latency,latency=100`, `hmat-cache,node-id=0,size=1M,level=1`.
 * Nodes have the numbers that `nodeid=` says, or the next that is free.
 * @throws NemuError `USAGE`.
 */
export function parseNuma(options: readonly string[]): NumaInput {
  const numa = {
    nodes: [] as NumaInput['nodes'],
    distances: [] as NonNullable<NumaInput['distances']>,
    localities: [] as NonNullable<NumaInput['localities']>,
    caches: [] as NonNullable<NumaInput['caches']>,
  };
  for (const option of options) {
    const [kind, rest = ''] = option.split(/,(.*)/s, 2);
    const keys = Object.hasOwn(KINDS, kind) ? KINDS[kind as keyof typeof KINDS] : undefined;
    if (!keys) {
      const near = didYouMean(kind, Object.keys(KINDS));
      throw new NemuError('USAGE', `--numa: "${kind}" is nothing that can be described.`, {
        hint: near ? `Did you mean ${near}?` : `It starts with ${Object.keys(KINDS).join(', ')}.`,
      });
    }
    const values: Record<string, unknown> = rest === '' ? {} : parseKeyValues(`--numa ${kind}`, rest, keys);
    if (keys === NODE_KEYS) addNode(numa.nodes, values);
    else if (keys === DISTANCE_KEYS) numa.distances.push(values as (typeof numa.distances)[number]);
    else if (keys === LOCALITY_KEYS) numa.localities.push(values as (typeof numa.localities)[number]);
    else numa.caches.push(values as (typeof numa.caches)[number]);
  }
  for (let id = 0; id < numa.nodes.length; id++) {
    if (numa.nodes[id]) continue;
    throw new NemuError('USAGE', `--numa: nodes go up to ${numa.nodes.length - 1}, but there is no node ${id}.`, {
      hint: `Add --numa node,nodeid=${id},…, or number the nodes without gaps.`,
    });
  }
  return numa;
}

function addNode(nodes: NumaInput['nodes'], { nodeid, ...node }: Record<string, unknown>): void {
  let id = nodeid as number | undefined;
  if (id === undefined) for (id = 0; nodes[id]; ) id++;
  if (id > 63) throw new NemuError('USAGE', `--numa: nodeid=${id} is more than the last node, 63.`);
  if (nodes[id]) throw new NemuError('USAGE', `--numa: node ${id} is described twice.`);
  nodes[id] = node;
}
