/** Devices of PCI that come and go, with the guest's side of ports played in the order in which Linux does things. */
import { describe, expect, test } from 'vitest';
import { type LiveRequest, parsePlug } from '../../../src/client/live.ts';
import { EXP } from '../../../src/devices/pci/express.ts';
import { PciFunction } from '../../../src/devices/pci/function.ts';
import type { HotplugPort } from '../../../src/devices/pci/hotplug_port.ts';
import { UpstreamPort } from '../../../src/devices/pci/switch.ts';
import { Bus } from '../../../src/vmm/bus.ts';
import { Hotplug } from '../../../src/vmm/hotplug/hotplug.ts';
import { type PciBoard, PciHotplug } from '../../../src/vmm/hotplug/pci.ts';
import { newConfigPages } from '../../../src/vmm/pci/config_pages.ts';
import { type Q35Options, Q35Pci } from '../../../src/vmm/pci/q35.ts';
import { FakeClock, FakeMemory } from '../../support/board.ts';

const MS = 1_000_000n;
const MiB = 2 ** 20;
const EXPRESS = 0x10;
const LISTENS = 0x1021;
const ON = 0x1c0 | LISTENS;
const BLINKS = 0x2c0 | LISTENS;
const OFF = 0x7c0 | LISTENS;
const WINDOW = 0xc0000000;

function setUp() {
  const clock = new FakeClock();
  const events: LiveRequest[] = [];
  const releases: number[] = [];
  const log: string[] = [];
  const hotplug = new Hotplug({
    ...{ clock, hasStarted: () => true },
    changed: (request) => events.push(request),
    release: (id) => releases.push(id),
  });
  const mmio = new Bus('mmio');
  const pci = new Q35Pci({
    ...{ pio: new Bus('pio'), mmio, memory: new FakeMemory(MiB), ranges: [{ gpa: 0, size: 512 * MiB }] },
    vm: { signalMsi: () => {}, setIrq: () => {}, ioeventfd: () => {}, setMemoryRegion: () => {} },
    ...{ reactor: {}, block: { words: new Int32Array(new SharedArrayBuffer(65_536)) }, configPages: newConfigPages() },
    ...{ physicalBits: 40, pmBase: 0x600, rootPorts: 2, raiseGpe: () => {}, pmMoved: () => {} },
    resetControl: { name: 'reset', size: 1, read: () => 0, write: () => {} },
    fault: (_: string, text: string) => log.push(text),
  } as unknown as Q35Options);
  const kind = hotplug.add('pci', (guest) => {
    const room = { takeRegion: () => 0, freeRegion: () => {}, retireRegion: () => {}, hasId: () => false };
    const description = { machine: 'q35' as const, serial: [] };
    return new PciHotplug({
      ...{ description, room, regions: new Map(), guest, isLeaving: (id: string) => hotplug.isLeaving(id) },
    });
  });
  kind.connect({
    pci,
    addStreams: () => {},
    make: ({ type }, id) => ({
      make: (slot) => {
        if (type === 'pcie-switch') return new UpstreamPort(id, slot);
        const made = new PciFunction(id, { vendor: 0x1af4, device: 0x1042, classCode: 0x10000, pin: 1 }, slot);
        const region = { name: id, size: 0x4000, read: () => 1, write: () => {} };
        made.addBar({ index: 0, kind: 'memory32', prefetchable: false, size: region.size, region });
        return made;
      },
      tellsStart: false,
      settle: (done) => done(),
      close: () => log.push(`closed ${id}`),
    }),
  } satisfies PciBoard);
  const control = (port: HotplugPort, value: number) => {
    let at = port.config.read(0x34, 1);
    while (port.config.read(at, 1) !== EXPRESS) at = port.config.read(at + 1, 1);
    port.config.write(at + EXP.SLTCTL, 2, value);
  };
  const behind = (bridge: HotplugPort | UpstreamPort) => [...pci.root.busBehind(bridge).functions.values()];
  const ports = pci.rootPorts;
  for (const [index, port] of ports.entries()) {
    port.config.write(0x19, 1, index + 1);
    port.config.write(0x1a, 1, index + 1);
    port.config.write(0x20, 4, 0x00010001 * ((WINDOW + index * MiB) >>> 16));
    port.config.write(4, 2, 6);
    control(port, OFF);
  }
  const ask = (id: string, port: string, type = 'virtio-rng', more = {}) => {
    const plug = parsePlug({ kind: 'pci', type, id, port, ...more } as never);
    hotplug.prepared(hotplug.plug(plug, 1000).id);
  };
  /** Plugs a device, which Linux starts with its BAR at the beginning of the port's window. */
  const bring = (id: string, index = 0, base = WINDOW + index * MiB) => {
    ask(id, `rp${index}`);
    control(ports[index], BLINKS);
    const [made] = behind(ports[index]);
    made.config.write(0x10, 4, base);
    made.config.write(4, 2, 6);
    control(ports[index], ON);
  };
  /** The main thread has back what it made. */
  const release = () => {
    for (const id of releases.splice(0)) hotplug.released(id);
  };
  const force = (id: string) => {
    hotplug.unplug(id, undefined, true);
    release();
  };
  const answers = () => [...mmio.counters()].map(({ name }) => name).filter((name) => name !== 'pci-ecam');
  const last = () => {
    const { device, stage, reason } = events.at(-1) as LiveRequest;
    return `${device.id} ${stage}${reason === undefined ? '' : `: ${reason}`}`;
  };
  return {
    ...{ clock, events, log, hotplug, kind, pci, ports, control, behind, ask, bring, release, force, answers, last },
    ids: () => kind.present().map(({ id }) => id),
  };
}

describe('what was torn out', () => {
  test('is answered until the guest has noticed, also when another came there and went', () => {
    const { bring, ask, force, answers, ports, control, last } = setUp();
    bring('a');
    expect(answers()).toEqual(['a']);
    force('a');
    ask('b', 'rp0');
    expect(answers()).toEqual(['a BAR 0, torn out']);
    force('b');
    control(ports[0], OFF);
    expect(answers()).toEqual([]);
    bring('c');
    expect([last(), answers()]).toEqual(['c online', ['c']]);
  });

  test('leaves its addresses to another that the guest has put there', () => {
    const { bring, force, answers, ports, log, last, ids } = setUp();
    bring('a');
    bring('b', 1, WINDOW);
    ports[1].config.write(0x20, 4, 0x00010001 * (WINDOW >>> 16));
    expect(log.join()).toContain('overlaps a');
    force('a');
    expect([last().split(':')[0], answers(), ids()]).toEqual(['a removed', ['b'], ['b']]);
  });
});

describe('a device that waits until the guest has noticed', () => {
  test('goes without a word when it is unplugged', () => {
    const { bring, ask, force, hotplug, release, clock, last, log } = setUp();
    bring('a');
    force('a');
    ask('b', 'rp0');
    clock.advance(1000n * MS);
    hotplug.unplug('b');
    release();
    expect([last(), log]).toEqual(['b removed', ['closed a', 'closed b']]);
  });
});

describe('a plug that timed out', () => {
  test('gives everything back when the guest turns the port off', () => {
    const { ask, control, ports, clock, release, last, log, bring } = setUp();
    ask('a', 'rp0');
    control(ports[0], BLINKS);
    control(ports[0], ON);
    clock.advance(1000n * MS);
    expect(last()).toContain('a timed-out');
    control(ports[0], OFF);
    release();
    expect(last()).toBe('a refused: The guest let go of it before it used it: it turned the port off.');
    expect(log).toEqual(['closed a']);
    bring('a');
    expect(last()).toBe('a online');
  });
});

describe('a request to unplug', () => {
  test('that follows one that timed out does not call the guest off', () => {
    const { bring, hotplug, control, ports, clock, release, events, last } = setUp();
    bring('a');
    hotplug.unplug('a', 1000);
    control(ports[0], BLINKS);
    clock.advance(1000n * MS);
    expect(last()).toContain('a timed-out');
    hotplug.unplug('a', 10_000);
    expect(events.at(-1)?.guest).toBe("the port's power indicator blinks: it works on letting go");
    control(ports[0], OFF);
    release();
    expect(last()).toBe('a removed');
  });

  test('is completed by a reset of the guest', () => {
    const { bring, hotplug, pci, release, last, ids, answers } = setUp();
    bring('a');
    hotplug.unplug('a');
    hotplug.reset();
    pci.reset();
    release();
    expect([last(), ids(), answers()]).toEqual(['a removed', [], []]);
  });
});

describe('a switch that is on its way out', () => {
  const withSwitch = () => {
    const made = setUp();
    const { ask, control, ports, behind, pci } = made;
    ask('sw', 'rp0', 'pcie-switch', { ports: 2 });
    control(ports[0], BLINKS);
    control(ports[0], ON);
    pci.assign();
    const [upstream] = behind(ports[0]) as UpstreamPort[];
    for (const port of behind(upstream)) control(port as HotplugPort, OFF);
    return made;
  };

  test('takes no more devices', () => {
    const { hotplug, ask } = withSwitch();
    hotplug.unplug('sw');
    expect(() => ask('a', 'sw.0')).toThrow('sw.0 is going: sw is being unplugged.');
    expect(() => ask('a', 'sw')).toThrow('sw.0 is going');
  });

  test('takes along what came behind it after the request had timed out', () => {
    const { hotplug, ask, clock, control, ports, release, ids, log, events } = withSwitch();
    hotplug.unplug('sw', 1000);
    control(ports[0], BLINKS);
    clock.advance(1000n * MS);
    ask('a', 'sw.0');
    control(ports[0], OFF);
    release();
    expect([ids(), log]).toEqual([[], ['closed a', 'closed sw']]);
    expect(events.filter(({ device }) => device.id === 'a').at(-1)).toMatchObject({
      stage: 'refused',
      reason: 'The guest let go of it before it used it: it let go of sw, behind which it stood.',
    });
  });
});
