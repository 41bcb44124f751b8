import { describe, expect, test } from 'vitest';
import { parsePrefix, prefixName } from '../../../src/cli/console_session.ts';
import { parseMachine, parseSize } from '../../../src/client/description.ts';
import {
  parseCpus,
  parseDisk,
  parseDuration,
  parseFwCfg,
  parseMemory,
  parseNet,
  parseNvdimm,
  parsePinning,
  parseSerial,
} from '../../../src/client/options.ts';
import { didYouMean } from '../../../src/client/suggest.ts';

const kernel = { image: '/boot/vmlinuz' };

describe('sizes', () => {
  test.each([
    ['4096', 4096],
    ['512M', 512 * 2 ** 20],
    ['2G', 2 ** 31],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['64k', 65536],
  ])('%s', (text, bytes) => expect(parseSize(text)).toBe(bytes));
  test.each(['', 'G', '-1M', '2X', '1e9', '0.3'])('"%s" is none', (text) => {
    expect(() => parseSize(text)).toThrow(/is not a size/);
  });
});

describe('--cpus', () => {
  test('a number, or a topology whose product is the count', () => {
    expect(parseCpus('4')).toEqual({ count: 4 });
    expect(parseCpus('sockets=2,cores=4,threads=2')).toEqual({ count: 16, sockets: 2, cores: 4, threads: 2 });
  });
  test('a typo is met with what was meant', () => {
    expect(() => parseCpus('socket=2')).toThrow(expect.objectContaining({ hint: 'Did you mean sockets=?' }));
    expect(() => parseCpus('four')).toThrow('count=four is not a whole number');
  });
  test('what does not multiply out is refused with the numbers', () => {
    expect(() => parseMachine({ kernel, cpus: parseCpus('count=5,sockets=2,cores=2') })).toThrow(
      '2 sockets of 2 cores of 1 threads are 4 processors, not 5',
    );
  });
  test('what is not said becomes cores', () => {
    expect(parseMachine({ kernel, cpus: { count: 6 } }).cpus).toMatchObject({ sockets: 1, cores: 6, threads: 1 });
    expect(parseMachine({ kernel, cpus: { count: 8, sockets: 2 } }).cpus).toMatchObject({ cores: 4 });
    expect(parseMachine({ kernel, cpus: { count: 8, threads: 2 } }).cpus).toMatchObject({ cores: 4, sockets: 1 });
  });
});

describe('--nvdimm', () => {
  const nvdimms = (text: string) => parseMachine({ kernel, nvdimms: [parseNvdimm(text)] }).nvdimms[0];

  test('a file, with what QEMU’s options say', () => {
    expect(nvdimms('a,,b.img')).toEqual({ file: 'a,b.img', labelSize: 0, readonly: false, share: true, node: 0 });
    expect(nvdimms('file=pm.img,size=256M,label-size=128K,readonly=on,share=off,node=1,id=pm')).toEqual({
      ...{ file: 'pm.img', size: 2 ** 28, labelSize: 2 ** 17, readonly: true, share: false, node: 1, id: 'pm' },
    });
    expect(() => parseNvdimm('size=1G')).toThrow('--nvdimm needs a file.');
    expect(() => nvdimms('f,size=1M')).toThrow('An NVDIMM of 1048576 bytes is not a multiple of the page size');
    expect(() => nvdimms('f,label-size=4K')).toThrow(
      'A label area of 4096 bytes is not a multiple of 4096 from 128 KiB',
    );
  });
});

describe('room for more', () => {
  const cpus = (text: string) => parseMachine({ kernel, cpus: parseCpus(text) }).cpus;
  const memory = (text: string) => parseMachine({ kernel, memory: parseMemory(text) }).memory;

  test('vCPUs: the topology is that of all that there may be', () => {
    expect(cpus('2,max=8')).toMatchObject({ count: 2, max: 8, sockets: 1, cores: 8, threads: 1 });
    expect(cpus('1,max=8,sockets=2,threads=2')).toMatchObject({ cores: 2 });
    expect(() => cpus('4,max=2')).toThrow('There are 4 vCPUs at boot, but max=2 leaves room for fewer.');
    expect(() => cpus('1,max=6,sockets=4')).toThrow('4 sockets of 1 cores of 1 threads are 4 processors, not 6.');
    const pinned = (max: number, pin: number[][]) => parseMachine({ kernel, cpus: { count: 2, max, pin } }).cpus.pin;
    expect([pinned(3, [[0], [1]])?.length, pinned(3, [[0], [1], [0]])?.length]).toEqual([2, 3]);
    expect(() => pinned(4, [[0], [1], [0]])).toThrow('Pinning names host CPUs for 3 vCPUs, but there are 2.');
  });

  test('nodes are of all vCPUs that there may be', () => {
    const nodes = [0, 1].map((node) => ({ cpus: [2 * node, 2 * node + 1], memory: '256M' }));
    const machine = (max: number) => parseMachine({ kernel, cpus: { count: 2, max }, numa: { nodes } });
    expect(machine(4).cpus).toMatchObject({ sockets: 2, cores: 2 });
    expect(() => machine(5)).toThrow("vCPU 4 of 5 is in no node's cpus.");
  });

  test('memory: a limit, and slots for DIMMs', () => {
    expect(memory('512M,max=8G,slots=3')).toMatchObject({ size: 2 ** 29, max: 2 ** 33, slots: 3 });
    expect(memory('512M,max=8G')).toMatchObject({ slots: 8 });
    expect(memory('512M')).not.toHaveProperty('slots');
    expect(() => memory('512M,slots=3')).toThrow('slots= for DIMMs needs max=SIZE too.');
    expect(() => memory('512M,max=512M')).toThrow('leaves no room above');
    expect(() => memory('512M,max=1G,slots=257')).toThrow('memory.slots');
  });

  test('a description is read again as it is printed', () => {
    const description = parseMachine({ kernel, cpus: { count: 1, max: 4 }, memory: { size: '1G', max: '2G' } });
    expect(JSON.stringify(parseMachine(JSON.parse(JSON.stringify(description))))).toBe(JSON.stringify(description));
  });
});

describe('--memory', () => {
  test('a size, or fields', () => {
    expect(parseMemory('2G')).toEqual({ size: '2G' });
    expect(parseMemory('size=1G,path=/tmp/x,share=on,host-nodes=0-1+3')).toEqual({
      size: '1G',
      path: '/tmp/x',
      backend: 'file',
      share: true,
      hostNodes: [0, 1, 3],
    });
  });
  test('what contradicts itself is refused', () => {
    expect(() => parseMachine({ kernel, memory: { size: '512M', backend: 'file' } })).toThrow('needs path=FILE');
    expect(() => parseMachine({ kernel, memory: { size: 5000 } })).toThrow('not a multiple of the page size');
    expect(() => parseMemory('1G,share=maybe')).toThrow('share=maybe is neither on nor off');
  });
});

describe('limits', () => {
  test('of disks and network cards are numbers and sizes', () => {
    expect(parseDisk('d.img,iops=500,bps-read=10M')).toEqual({
      file: 'd.img',
      throttle: { iops: 500, bpsRead: 10 * 2 ** 20 },
    });
    const net = parseNet('user,pps=1000,pps-max=2000,bps-rx=10M,link=off,hostfwd=2222:22');
    expect(net).toMatchObject({ throttle: { pps: 1000, ppsMax: 2000, bpsRx: 10 * 2 ** 20 }, link: false });
    expect(parseMachine({ kernel, nets: [net as never] }).nets[0]).toMatchObject({
      link: false,
      throttle: { pps: 1000 },
    });
    expect(parseMachine({ kernel, nets: [{ type: 'user' }] }).nets[0]).toMatchObject({ link: true });
  });

  test('that are none are refused', () => {
    expect(() => parseNet('user,iops=5')).toThrow('there is no "iops"');
    const nets = [{ type: 'user' as const, throttle: { pps: -1 } }];
    expect(() => parseMachine({ kernel, nets })).toThrow(/nets\.0\.throttle\.pps/);
  });
});

test('other values', () => {
  expect(parsePinning('0,1,2-3')).toEqual([[0], [1], [2, 3]]);
  expect(parseSerial('com2,flow=wait')).toEqual({ port: 'com2', flow: 'wait' });
  expect(parseFwCfg('name=opt/x,string=a,,b')).toEqual({ name: 'opt/x', string: 'a,b' });
  expect([parseDuration('90'), parseDuration('500ms'), parseDuration('2m')]).toEqual([90_000, 500, 120_000]);
  expect(() => parseDuration('soon')).toThrow('"soon" is not a time');
  expect([parsePrefix('^A'), parsePrefix('Ctrl-b'), parsePrefix('ctrl-]'), parsePrefix('x')]).toEqual([
    1,
    2,
    29,
    undefined,
  ]);
  expect(prefixName(1)).toBe('Ctrl-a');
  expect(didYouMean('memroy', ['memory', 'cpus'])).toBe('memory');
  expect(didYouMean('zzz', ['memory', 'cpus'])).toBeUndefined();
});
