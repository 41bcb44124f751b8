import { describe, expect, test } from 'vitest';
import { parseNuma } from '../../../src/cli/numa_options.ts';
import { parseMachine } from '../../../src/client/description.ts';
import { acpiNuma, hmat, slit, srat } from '../../../src/vmm/acpi/numa.ts';
import { nodeRanges, ramLayout } from '../../../src/vmm/memory_layout.ts';
import { numaBoard } from './boards.ts';

const GiB = 2 ** 30;
const MiB = 2 ** 20;
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** Entries behind a table's fixed part, cut by their length byte. */
function entries(table: Uint8Array, from: number): Buffer[] {
  const out: Buffer[] = [];
  for (let at = from; at < table.length; at += table[at + 1]) {
    out.push(Buffer.from(table.subarray(at, at + table[at + 1])));
  }
  return out;
}

test('SRAT: processors as in the MADT, memory around the hole, room for more', () => {
  const all = entries(srat(numaBoard.cpus, numaBoard.numa!), 48);
  expect(all.map((entry) => entry[0])).toEqual([...Array(15).fill(0), 0, 2, 2, 2, 2, 1, 1, 1, 1, 1].map(Number));
  expect(hex(all[3])).toBe('00100103010000000000000000000000');
  // uid 17 in node 1 with APIC id 257.
  expect(hex(all[17])).toBe('021800000100000001010000010000000000000000000000');
  const memory = all.slice(20).map((entry) => ({
    node: entry.readUInt32LE(2),
    base: Number(entry.readBigUInt64LE(8)),
    size: Number(entry.readBigUInt64LE(16)),
    flags: entry.readUInt32LE(28),
  }));
  expect(memory).toEqual(
    numaBoard.numa!.memory.map(({ node, base, size, hotpluggable }) => ({
      ...{ node, base, size },
      flags: hotpluggable ? 3 : 1,
    })),
  );
});

test('SLIT: the number of nodes and the matrix', () => {
  const { distances } = acpiNuma(
    parseMachine({
      kernel: { image: '/k' },
      cpus: { count: 2 },
      numa: {
        nodes: [{ cpus: [0], memory: '256M' }, { cpus: [1], memory: '256M' }, {}],
        distances: [
          { src: 0, dst: 1, val: 21 },
          { src: 2, dst: 0, val: 40 },
          { src: 0, dst: 2, val: 50 },
        ],
      },
    }).numa!,
    ramLayout(512 * MiB),
  );
  expect(hex(slit({ memory: [], distances, attributes: undefined })).slice(72)).toBe(
    `0300000000000000${'0a1532'}${'150a14'}${'28140a'}`,
  );
});

test('HMAT: who is near to which memory, then a matrix of each kind in its unit', () => {
  const table = Buffer.from(hmat(numaBoard.numa!.attributes!));
  const structures: Buffer[] = [];
  for (let at = 40; at < table.length; at += table.readUInt32LE(at + 4)) {
    structures.push(table.subarray(at, at + table.readUInt32LE(at + 4)));
  }
  expect(structures.map((each) => [each.readUInt16LE(0), each.length])).toEqual([
    ...Array(3).fill([0, 40]),
    ...[
      [1, 64],
      [1, 64],
      [2, 32],
      [2, 32],
    ],
  ]);
  expect(structures.slice(0, 3).map((each) => [8, 12, 16].map((at) => each.readUInt32LE(at)))).toEqual([
    [1, 0, 0],
    [1, 1, 1],
    [0, 0, 2],
  ]);
  const matrix = (each: Buffer) => Array.from({ length: 6 }, (_, i) => each.readUInt16LE(52 + 2 * i));
  const [latency, bandwidth] = structures.slice(3);
  expect([latency[8], latency[9], latency.readBigUInt64LE(24)]).toEqual([0, 0, 1000n]);
  expect(matrix(latency)).toEqual([80, 130, 130, 130, 80, 130]);
  // 100 GiB/s does not fit 16 bits of MiB/s: the unit grows.
  expect([bandwidth[8], bandwidth[9], bandwidth.readBigUInt64LE(24)]).toEqual([1, 4, 51200n]);
  expect(matrix(bandwidth)).toEqual([0, 0, 2, 0, 0, 1]);
  expect(hex(structures[5].subarray(24, 28))).toBe('12114000');
});

test('nodes follow each other around the hole', () => {
  expect(nodeRanges([1 * GiB, 0, 3 * GiB, 2 * GiB], ramLayout(6 * GiB))).toEqual([
    { node: 0, gpa: 0, size: GiB },
    { node: 2, gpa: GiB, size: GiB },
    { node: 2, gpa: 4 * GiB, size: 2 * GiB },
    { node: 3, gpa: 6 * GiB, size: 2 * GiB },
  ]);
});

describe('--numa', () => {
  test("takes what QEMU's -numa takes", () => {
    expect(
      parseNuma([
        'node,cpus=0-1,cpus=4,memory=1G,host-nodes=0+2,policy=interleave',
        'node,nodeid=1,mem=512M,initiator=0',
        'dist,src=0,dst=1,val=21',
        'hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-bandwidth,bandwidth=200M',
        'hmat-cache,node-id=0,size=10M,level=1,associativity=direct,policy=write-back,line=8',
      ]),
    ).toEqual({
      nodes: [
        { cpus: [0, 1, 4], memory: '1G', hostNodes: [0, 2], policy: 'interleave' },
        { memory: '512M', initiator: 0 },
      ],
      distances: [{ src: 0, dst: 1, val: 21 }],
      localities: [{ initiator: 0, target: 1, hierarchy: 'memory', dataType: 'access-bandwidth', bandwidth: '200M' }],
      caches: [{ node: 0, size: '10M', level: 1, associativity: 'direct', policy: 'write-back', line: 8 }],
    });
  });

  test.each([
    [['nod,cpus=0'], '"nod" is nothing', 'Did you mean node?'],
    [['node,cpu=0'], '--numa node: there is no "cpu"', 'Did you mean cpus=?'],
    [['node,nodeid=1'], 'nodes go up to 1, but there is no node 0', 'without gaps'],
    [['node,nodeid=0', 'node,nodeid=0'], 'node 0 is described twice', ''],
    [['dist,src=0,src=1'], 'src is given twice', ''],
  ])('%j is refused', (options, message, hint) => {
    expect(() => parseNuma(options)).toThrow(expect.objectContaining({ message: expect.stringContaining(message) }));
    try {
      parseNuma(options);
    } catch (error) {
      expect((error as { hint?: string }).hint ?? '').toContain(hint);
    }
  });
});

describe('a description', () => {
  const machine = (numa: string[], size?: string) =>
    parseMachine({
      kernel: { image: '/k' },
      cpus: { count: 4 },
      ...(size && { memory: { size } }),
      numa: parseNuma(numa),
    });
  const TWO = ['node,cpus=0-1,memory=1G', 'node,cpus=2-3,memory=1G'];

  test('has the memory of its nodes when no size is said, and is the same when read again', () => {
    const description = machine(TWO);
    expect(description.memory.size).toBe(2 * GiB);
    expect(parseMachine(JSON.parse(JSON.stringify(description)))).toEqual(description);
  });

  test.each([
    [['node,cpus=0-1,memory=1G', 'node,cpus=3,memory=1G'], 'numa.nodes: vCPU 2 of 4 is in no node'],
    [['node,cpus=0-3,memory=1G', 'node,cpus=3,memory=1G'], 'numa.nodes.1.cpus: vCPU 3 is in node 0 too.'],
    [['node,cpus=0-4,memory=2G'], 'numa.nodes.0.cpus: There is no vCPU 4: the machine has 0 to 3.'],
    [
      ['node,cpus=0-3,memory=1G'],
      "numa.nodes: The nodes' memory is 1073741824 bytes together, but the machine has 2147483648.",
    ],
    [['node,cpus=0-3,memory=2G', 'node,host-nodes=0'], 'numa.nodes.1.hostNodes: Node 1 has no memory'],
    [[...TWO, 'dist,src=0,dst=2,val=20'], 'numa.distances.0.dst: There is no node 2: nodes are 0 to 1.'],
    [[...TWO, 'dist,src=0,dst=0,val=11'], 'numa.distances.0.val: Node 0 is 11 from itself'],
    [[...TWO, 'dist,src=0,dst=1,val=9'], 'numa.distances.0.val: Too small'],
    [[...TWO, 'dist,src=0,dst=1,val=10'], 'numa.distances.0.val: Nodes 0 and 1 are two'],
    [[...TWO, 'dist,src=0,dst=1'], 'numa.distances.0.val: '],
    [['node,cpus=0-3,memory=1G', 'node,memory=1G,initiator=1'], 'numa.nodes.1.initiator: Node 1 has no processors.'],
    [[...TWO, 'hmat-lb,initiator=0,target=1,data-type=read-latency'], 'numa.localities.0: read-latency needs latency.'],
    [
      [...TWO, 'hmat-lb,initiator=0,target=1,data-type=read-latency,latency=5,bandwidth=1G'],
      'numa.localities.0: read-latency takes latency alone.',
    ],
    [[...TWO, 'hmat-cache,node-id=7,size=1M,level=1'], 'numa.caches.0.node: There is no node 7'],
  ])('%j is refused with the field', (numa, message) => {
    expect(() => machine(numa, '2G')).toThrow(message);
  });
});
