/** GDB's remote protocol, on a machine without a processor. */
import { describe, expect, onTestFinished, test } from 'vitest';
import { PACKET_SIZE } from '../../../src/gdb/packets.ts';
import { REGISTERS, TARGET_XML } from '../../../src/gdb/registers.ts';
import type { GdbOptions } from '../../../src/gdb/session.ts';
import { GdbMachine, SIZE } from '../../support/gdb_machine.ts';
import { GdbPeer } from '../../support/gdb_peer.ts';
import { random } from '../../support/random.ts';

function connect(machine = new GdbMachine(), options: GdbOptions = {}) {
  const peer = new GdbPeer(machine, options);
  onTestFinished(() => peer.close());
  return { machine, peer };
}

const RIP = REGISTERS.findIndex(({ name }) => name === 'rip');
const XMM1 = REGISTERS.findIndex(({ name }) => name === 'xmm1');

describe('a session', () => {
  test('stops the machine, tells what it can, and has it go on when gdb detaches', async () => {
    const { machine, peer } = connect();
    expect(await peer.ask('qSupported:swbreak+;hwbreak+;vContSupported+')).toContain('PacketSize=4000;');
    expect(peer.seen).toContain('ack');
    expect(machine.state).toBe('paused');
    expect(await peer.ask('?')).toBe('T05thread:1;');
    expect(await peer.ask('qAttached')).toBe('1');
    expect(await peer.ask('vMustReplyEmpty')).toBe('');
    expect(await peer.ask('D')).toBe('OK');
    await peer.served;
    expect(machine.state).toBe('running');
    expect(machine).toMatchObject({ attached: false, listeners: 0 });
  });

  test('acknowledges until it is asked not to, and says a packet again that was not understood', async () => {
    const { peer } = connect();
    expect(await peer.ask('qC')).toBe('QC1');
    peer.write('-');
    expect(await peer.next()).toBe('QC1');
    peer.write('$qC#00');
    expect(await peer.ask('QStartNoAckMode')).toBe('OK');
    expect(peer.seen).toContain('nack');
    const acks = peer.seen.filter((type) => type === 'ack').length;
    expect(await peer.ask('qC')).toBe('QC1');
    expect(peer.seen.filter((type) => type === 'ack')).toHaveLength(acks);
  });

  test('leaves no breakpoints and a running machine when the connection breaks', async () => {
    const { machine, peer } = connect();
    expect(await peer.ask('Z0,1004,1')).toBe('OK');
    expect(machine.breakpoints).toEqual([{ kind: 'software', address: '0x1004' }]);
    await peer.close();
    expect(machine).toMatchObject({ breakpoints: [], attached: false, state: 'running', listeners: 0 });
  });

  test('refuses a second gdb in a sentence, and takes the next one', async () => {
    const { machine, peer } = connect();
    await peer.ask('?');
    const second = new GdbPeer(machine);
    expect(await second.ask('qSupported')).toBe('E.Another debugger is attached to this machine.');
    expect(await second.next()).toBeUndefined();
    await second.served;
    expect(machine.attached).toBe(true);
    await peer.close();
    const { peer: third } = connect(machine);
    expect(await third.ask('?')).toBe('T05thread:1;');
  });

  test('does not kill: the guest goes on', async () => {
    for (const word of ['k', 'vKill;1']) {
      const { machine, peer } = connect();
      peer.send(word);
      await peer.served;
      expect(machine.state).toBe('running');
    }
  });

  test('starts a machine that waits for it, by continue or by detach', async () => {
    for (const [word, call] of [
      ['D', 'start'],
      ['vCont;c', 'run {"step":[]}'],
    ]) {
      const machine = new GdbMachine();
      machine.state = 'created';
      const { peer } = connect(machine);
      expect(await peer.ask('?')).toBe('T05thread:1;');
      peer.send(word);
      await expect.poll(() => machine.calls).toContain(call);
    }
  });

  test('tells of the end of the machine', async () => {
    const { machine, peer } = connect();
    await peer.ask('?');
    peer.send('c');
    await expect.poll(() => machine.state).toBe('running');
    machine.setState('ended');
    expect(await peer.next()).toBe('W00');
    await peer.served;
  });
});

describe('registers', () => {
  test('are described in XML, in pieces', async () => {
    const { peer } = connect();
    let text = '';
    for (let piece = 'm'; piece?.startsWith('m'); ) {
      piece = (await peer.ask(`qXfer:features:read:target.xml:${text.length.toString(16)},200`)) ?? '';
      text += piece.slice(1);
    }
    expect(text).toBe(TARGET_XML);
    expect(await peer.ask('qXfer:features:read:other.xml:0,200')).toBe('E00');
    expect(await peer.ask('qXfer:memory-map:read::0,200')).toBe('');
  });

  test('are read and written, one and all, little endian', async () => {
    const { machine, peer } = connect();
    machine.registers[0].xmm1 = '0x0102030405060708090a0b0c0d0e0f10';
    expect(await peer.ask(`p${RIP.toString(16)}`)).toBe('0010000000000000');
    expect(await peer.ask(`p${XMM1.toString(16)}`)).toBe('100f0e0d0c0b0a090807060504030201');
    expect(await peer.ask(`P${RIP.toString(16)}=efbeadde00000000`)).toBe('OK');
    expect(machine.registers[0].rip).toBe('0xdeadbeef');
    const all = (await peer.ask('g')) ?? '';
    expect(all).toHaveLength(REGISTERS.reduce((sum, { bits }) => sum + bits / 4, 0));
    expect(await peer.ask(`G11${all.slice(2)}`)).toBe('OK');
    expect(machine.calls.at(-1)).toBe('write 0 {"rax":"0x11"}');
    for (const wrong of ['pffff', 'p', 'P0', 'P0=1', 'Pzz=00', `G${all}00`, 'G']) {
      expect(await peer.ask(wrong), wrong).toBe('E16');
    }
  });

  test('are those of the thread that is chosen', async () => {
    const { peer } = connect();
    expect(await peer.ask('qfThreadInfo')).toBe('m1,2');
    expect(await peer.ask('qsThreadInfo')).toBe('l');
    expect(Buffer.from((await peer.ask('qThreadExtraInfo,2')) ?? '', 'hex').toString()).toBe('CPU#1 [running]');
    expect(await peer.ask('T2')).toBe('OK');
    expect(await peer.ask('T3')).toBe('E16');
    expect(await peer.ask('Hg2')).toBe('OK');
    expect(await peer.ask('Hg9')).toBe('E16');
    expect(await peer.ask('Hg0')).toBe('OK');
    expect(await peer.ask(`p${RIP.toString(16)}`)).toBe('0020000000000000');
  });
});

describe('memory', () => {
  test('is read and written, as digits and as bytes', async () => {
    const { machine, peer } = connect();
    expect(await peer.ask('M2000,4:01020304')).toBe('OK');
    expect(await peer.ask('m2000,6')).toBe('010203049090');
    expect(await peer.ask(Buffer.from('X2ffe,4:\x24\x23\x7d\x2a', 'latin1'))).toBe('OK');
    expect(machine.memory.subarray(0x2ffe, 0x3002).toString()).toBe('$#}*');
    expect(await peer.ask('X0,0:')).toBe('OK');
    expect(await peer.ask('m0,0')).toBe('');
    expect(await peer.ask('M2000,4:0102')).toBe('E16');
  });

  test('is read as far as there is some, and not written in part', async () => {
    const { machine, peer } = connect();
    const end = (SIZE - 2).toString(16);
    expect(await peer.ask(`m${end},10`)).toBe('9090');
    expect(await peer.ask(`m${SIZE.toString(16)},10`)).toBe('E0e');
    expect(await peer.ask('mffffffffffffffff,10')).toBe('E0e');
    expect(await peer.ask(`M${end},4:01020304`)).toBe('E0e');
    expect(machine.memory[SIZE - 2]).toBe(0x90);
    expect(((await peer.ask('m0,ffffffff')) ?? '').length).toBeLessThan(PACKET_SIZE);
  });

  test('is addressed by the page tables of the vCPU, or physically', async () => {
    const { machine, peer } = connect();
    const table = (at: number, index: number, entry: bigint) => machine.memory.writeBigUInt64LE(entry, at + 8 * index);
    machine.memory.fill(0, 0x8000, 0xc000);
    table(0x8000, 511, 0x9003n);
    table(0x9000, 510, 0xa003n);
    table(0xa000, 0, 0xb003n);
    table(0xb000, 0, 0x4003n);
    machine.memory.write('kernel', 0x4010);
    Object.assign(machine.registers[0], { cr0: '0x80000001', cr3: '0x8000', efer: '0x500' });
    expect(await peer.ask('mffffffff80000010,6')).toBe(Buffer.from('kernel').toString('hex'));
    expect(await peer.ask('m4010,6')).toBe('E0e');
    // It is not canonical.
    expect(await peer.ask('m0000ffff80000010,6')).toBe('E0e');
    expect(await peer.ask('Z0,ffffffff80000010,1')).toBe('OK');
    expect(machine.breakpoints).toEqual([{ kind: 'software', address: '0x4010' }]);
    expect(await peer.ask('qqemu.PhyMemMode')).toBe('0');
    expect(await peer.ask('Qqemu.PhyMemMode:1')).toBe('OK');
    expect(await peer.ask('m4010,6')).toBe(Buffer.from('kernel').toString('hex'));
    machine.registers[0].efer = '0x0';
    await peer.ask('Qqemu.PhyMemMode:0');
    expect(await peer.ask('G')).toBe('E16');
    await peer.ask('P0=0000000000000000');
    expect(await peer.ask('Z0,4010,1')).toMatch(/^E\.The vCPU has page tables of 32 bits/);
  });
});

describe('going on', () => {
  test('one instruction, to a breakpoint, to an interrupt', async () => {
    const { machine, peer } = connect();
    await peer.ask('qSupported:swbreak+;hwbreak+');
    expect(await peer.ask('vCont?')).toBe('vCont;c;C;s;S;t');
    expect(await peer.ask('vCont;s:2')).toBe('T05thread:2;');
    expect(machine.calls.at(-1)).toBe('run {"vcpus":[1],"step":[1]}');
    expect(await peer.ask('vCont;S05:1;c')).toBe('T05thread:1;');
    expect(machine.calls.at(-1)).toBe('run {"step":[0]}');
    await peer.ask('Z0,1234,1');
    expect(await peer.ask('vCont;c')).toBe('T05thread:1;swbreak:;');
    expect(await peer.ask(`p${RIP.toString(16)}`)).toBe('3412000000000000');
    expect(await peer.ask('z0,1234,1')).toBe('OK');
    expect(await peer.ask('Z1,2345,1')).toBe('OK');
    expect(await peer.ask('c')).toBe('T05thread:1;hwbreak:;');
    expect(await peer.ask('z1,2345,1')).toBe('OK');
    peer.send('vCont;c');
    await expect.poll(() => machine.state).toBe('running');
    peer.write('\x03');
    expect(await peer.next()).toBe('T02thread:1;');
    expect(machine.state).toBe('paused');
  });

  test('is told when somebody else stops the machine', async () => {
    const { machine, peer } = connect();
    await peer.ask('?');
    peer.send('c');
    await expect.poll(() => machine.state).toBe('running');
    await machine.pause();
    expect(await peer.next()).toBe('T02thread:1;');
  });

  test('takes an address, and no nonsense', async () => {
    const { machine, peer } = connect();
    expect(await peer.ask('s1500')).toBe('T05thread:1;');
    expect(machine.registers[0].rip).toBe('0x1501');
    for (const wrong of ['vCont;x', 'vCont;', 'vCont;s:zz', `vCont;${'s:1;'.repeat(600)}c`, 'vCont;t']) {
      expect(await peer.ask(wrong), wrong).toBe('E16');
    }
  });
});

describe('breakpoints', () => {
  test('watch what debug registers can', async () => {
    const { machine, peer } = connect();
    expect(await peer.ask('Z2,1004,8')).toBe('OK');
    expect(machine.breakpoints).toEqual([
      { kind: 'write', address: '0x1004', size: 4 },
      { kind: 'write', address: '0x1008', size: 4 },
    ]);
    expect(await peer.ask('Z4,2000,8')).toBe('OK');
    expect(await peer.ask('Z1,3000,1')).toBe('OK');
    expect(await peer.ask('Z1,3001,1')).toBe('E.A processor has 4 debug registers, and more are asked for.');
    expect(await peer.ask('z1,3000,1')).toBe('OK');
    expect(await peer.ask('z1,3000,1')).toBe('OK');
    expect(machine.breakpoints).toHaveLength(3);
    expect(await peer.ask('Z3,1000,4')).toMatch(/^E\.A processor cannot stop at reads alone/);
    expect(await peer.ask('Z2,1000,100')).toMatch(/^E\.Debug registers watch 1 to 32 bytes, not 256/);
    expect(await peer.ask('Z5,1000,1')).toBe('E16');
    expect(await peer.ask(`Z0,${SIZE.toString(16)}0000000000,1`)).toMatch(/^E/);
  });
});

describe('monitor', () => {
  test('prints what the injected function says', async () => {
    const text = 'x'.repeat(20_000);
    const { peer } = connect(new GdbMachine(), { monitor: async (line, vcpu) => `${line} ${vcpu} ${text}` });
    peer.send(`qRcmd,${Buffer.from('info cpus').toString('hex')}`);
    let printed = '';
    for (let piece = await peer.next(); piece !== 'OK'; piece = await peer.next()) {
      expect(piece?.startsWith('O')).toBe(true);
      printed += Buffer.from(piece?.slice(1) ?? '', 'hex').toString();
    }
    expect(printed).toBe(`info cpus 0 ${text}`);
    expect(await peer.ask('qRcmd,zz')).toBe('E16');
  });

  test('is unknown without one', async () => {
    expect(await connect().peer.ask('qRcmd,00')).toBe('');
  });
});

describe('a rude peer', () => {
  test('cannot have it throw, nor go without an answer', async () => {
    const next = random(42);
    const words = [
      ...['m', 'M', 'X', 'g', 'G', 'p', 'P', 'H', 'T', 'Z', 'z', 'v', 'vCont;', 'q', 'Q', 'qXfer:', 'qRcmd,', '!', 'R'],
      ...['qXfer:features:read:target.xml:', 'qThreadExtraInfo,', 'Qqemu.PhyMemMode', 'qSupported', 'x', 'A', 'F'],
    ];
    const { peer } = connect(new GdbMachine(), { monitor: async (line) => line });
    const characters = '0123456789abcdef,;:=-gcsz$#}\u0000\u00ff';
    for (let round = 0; round < 3000; round++) {
      const rest = Array.from({ length: next(24) }, () => characters[next(characters.length)]).join('');
      const body = words[next(words.length)] + rest;
      // One that has the machine go on is answered when it stops.
      const going = /^vCont;[csCS]/.test(body);
      peer.send(Buffer.from(body, 'latin1'));
      if (going) peer.write('\x03');
      let reply = await peer.next();
      while (reply?.startsWith('O') && reply !== 'OK') reply = await peer.next();
      expect(reply, body).toBeDefined();
    }
    expect(await peer.ask('qAttached')).toBe('1');
  });

  test('ends the session with a packet that is too long, or without end of nacks', async () => {
    for (const bytes of [`$${'a'.repeat(PACKET_SIZE + 1)}`, '-'.repeat(100)]) {
      const { machine, peer } = connect();
      await peer.ask('?');
      peer.write(bytes);
      await peer.served;
      expect(machine.attached).toBe(false);
    }
  });
});
