/** A machine over a byte stream: the served side and the remote side against each other, and a rude peer. */
import { duplexPair } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { parseMachine } from '../../../src/client/description.ts';
import { NemuError } from '../../../src/client/errors.ts';
import { encodeFrame, FrameDecoder } from '../../../src/client/frames.ts';
import type { PlugInput } from '../../../src/client/live.ts';
import type { DiskChangeInput } from '../../../src/client/live_change.ts';
import type { ConsoleStream, MachineClient, MachineEvent } from '../../../src/client/machine_client.ts';
import { FRAME_BYTES, FRAME_CONTROL, WINDOW } from '../../../src/client/protocol.ts';
import { EngineConnection } from '../../../src/client/remote.ts';
import { serveMachine, serveMachines } from '../../../src/client/serve.ts';

class FakeConsole implements ConsoleStream {
  readonly name = 'com1';
  onData: ((bytes: Uint8Array) => void) | undefined;
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
  received: Buffer[] = [];
  room = Number.POSITIVE_INFINITY;
  write(bytes: Uint8Array): number {
    const count = Math.min(this.room, bytes.length);
    this.room -= count;
    this.received.push(Buffer.from(bytes.subarray(0, count)));
    return count;
  }
  get text(): string {
    return Buffer.concat(this.received).toString();
  }
}

/** As much of a machine as the protocol touches. */
function fakeMachine() {
  const console = new FakeConsole();
  const calls: string[] = [];
  let emit: (event: MachineEvent) => void = () => {};
  let listening = 0;
  const call = (name: string) => async () => {
    calls.push(name);
  };
  const machine = {
    description: parseMachine({ kernel: { image: '/k' } }),
    state: 'created',
    end: undefined,
    consoles: ['com1'],
    console: () => console,
    start: call('start'),
    pause: async () => {
      throw new NemuError('STATE', 'Cannot pause a machine that is created.', { hint: 'Start it.' });
    },
    resume: call('resume'),
    reset: call('reset'),
    powerButton: call('powerButton'),
    nmi: call('nmi'),
    counters: async () => ({ total: 5 }),
    inspect: async () => [],
    readMemory: async (address: number, length: number) => Buffer.alloc(length, address & 0xff),
    onEvent: (listener: (event: MachineEvent) => void) => {
      emit = listener;
      listening++;
      return () => {
        listening--;
      };
    },
    plug: async (device: unknown, options: unknown) => {
      calls.push(`plug ${JSON.stringify([device, options])}`);
      return { id: 1, stage: 'online' };
    },
    unplug: async (id: string, options: unknown) => {
      calls.push(`unplug ${JSON.stringify([id, options])}`);
      throw new NemuError('REFUSED', 'It is busy.');
    },
    resizeMemory: async (...parameters: unknown[]) => {
      calls.push(`resizeMemory ${JSON.stringify(parameters)}`);
      return { id: 2, stage: 'reached' };
    },
    disks: async () => [{ name: 'vda', file: '/there/d' }],
    changeDisk: async (name: string, change: { file: string }) => {
      calls.push(`changeDisk ${JSON.stringify([name, change])}`);
      return { name, file: change.file };
    },
    changeNet: async (name: string, change: { up: boolean }) => {
      calls.push(`changeNet ${JSON.stringify([name, change])}`);
      return { name, link: change.up };
    },
    requests: async () => [{ id: 1 }],
    plugged: async () => ({ cpus: {} }),
    ended: () => new Promise(() => {}),
    close: call('close'),
  } as unknown as MachineClient;
  return { machine, console, calls, emit: (event: MachineEvent) => emit(event), listeners: () => listening };
}

function connect() {
  const fake = fakeMachine();
  const [ours, theirs] = duplexPair();
  const served = serveMachines(theirs, async (description) => {
    parseMachine(description);
    return fake.machine;
  });
  return { ...fake, served, stream: ours, connection: new EngineConnection(ours) };
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 10));

describe('both ends', () => {
  test('a machine that was closed says so', async () => {
    const { connection } = connect();
    const machine = await connection.create({ kernel: { image: '/k' } });
    await machine.close();
    await expect(machine.start()).rejects.toMatchObject({
      code: 'STATE',
      message: 'Cannot start a machine that is closed.',
    });
    connection.close();
  });

  test('calls, results, errors with code and hint, events and memory get through', async () => {
    const { connection, calls, emit, served } = connect();
    const machine = await connection.create({ kernel: { image: '/k' } });
    const events: MachineEvent[] = [];
    machine.onEvent((event) => events.push(event));
    await machine.start();
    await expect(machine.pause()).rejects.toMatchObject({ code: 'STATE', hint: 'Start it.' });
    expect(await machine.counters()).toEqual({ total: 5 });
    expect([...(await machine.readMemory(0x41, 3))]).toEqual([0x41, 0x41, 0x41]);
    emit({ type: 'panic', detail: 'x' });
    emit({ type: 'state', state: 'running' });
    await settled();
    expect(events.map(({ type }) => type)).toEqual(['panic', 'state']);
    expect(machine.state).toBe('running');
    connection.close();
    await served;
    expect(calls).toEqual(['start', 'close']);
    await expect(machine.reset()).rejects.toMatchObject({ code: 'CONNECTION' });
    expect(await machine.ended()).toMatchObject({ reason: 'engine-error' });
  });

  test('devices are plugged and unplugged through it, as they are on the other side', async () => {
    const fake = fakeMachine();
    const [ours, theirs] = duplexPair();
    void serveMachines(theirs, async () => fake.machine);
    const connection = new EngineConnection(ours);
    const machine = await connection.create(
      { kernel: { image: '/k' } },
      {
        plug: async (device, engine) => {
          if (device.kind === 'memory') throw new NemuError('LAB', 'Not here.');
          return engine({ ...device, index: 3 } as PlugInput);
        },
      },
    );
    expect(await machine.plug({ kind: 'cpu' }, { timeoutMs: 5 })).toEqual({ id: 1, stage: 'online' });
    await expect(machine.plug({ kind: 'memory', size: '1G' })).rejects.toMatchObject({ code: 'LAB' });
    await expect(machine.unplug('cpu3')).rejects.toMatchObject({ code: 'REFUSED', message: 'It is busy.' });
    expect(await machine.resizeMemory('vm0', '512M', { timeoutMs: 5 })).toEqual({ id: 2, stage: 'reached' });
    for (const [id, size] of [
      ['vm0', -1],
      ['vm0', 'much'],
      ['', 0],
    ] as const) {
      await expect(machine.resizeMemory(id, size)).rejects.toMatchObject({ code: 'PROTOCOL' });
    }
    // In JSON it would be null.
    const none = { code: 'USAGE', message: 'timeoutMs: NaN is no number that a machine takes.' };
    await expect(machine.unplug('cpu3', { timeoutMs: Number.NaN })).rejects.toMatchObject(none);
    await expect(machine.resizeMemory('vm0', 5n as never)).rejects.toMatchObject({ code: 'USAGE' });
    expect(await machine.requests()).toEqual([{ id: 1 }]);
    expect(await machine.plugged()).toEqual({ cpus: {} });
    for (const wrong of [{ timeoutMs: -1 }, { timeout: 5 }]) {
      await expect(machine.unplug('cpu3', wrong as never)).rejects.toMatchObject({ code: 'PROTOCOL' });
    }
    expect(fake.calls).toEqual([
      'plug [{"kind":"cpu","index":3},{"timeoutMs":5}]',
      'unplug ["cpu3",{}]',
      'resizeMemory ["vm0",536870912,{"timeoutMs":5}]',
    ]);
    connection.close();
  });

  test('a debugger works through it, and is let go when its connection ends', async () => {
    const fake = fakeMachine();
    const debugged: unknown[] = [];
    const note =
      (name: string) =>
      async (...parameters: unknown[]) => {
        debugged.push([name, ...parameters]);
        return { rip: '0x10' };
      };
    const names = ['attachDebugger', 'detachDebugger', 'setBreakpoints', 'debugRun', 'readRegisters', 'writeRegisters'];
    Object.assign(fake.machine, Object.fromEntries([...names, 'writeMemory'].map((name) => [name, note(name)])));
    const join = async () => {
      const [ours, theirs] = duplexPair();
      const served = serveMachine(theirs, fake.machine);
      const connection = new EngineConnection(ours);
      return { machine: await connection.attach(), connection, served };
    };
    const { machine, connection, served } = await join();
    const other = await join();
    await machine.attachDebugger();
    await machine.setBreakpoints([{ kind: 'software', address: '0x1000' }]);
    await machine.debugRun({ step: [1] });
    expect(await machine.readRegisters(1)).toEqual({ rip: '0x10' });
    await machine.writeRegisters(1, { rip: '0x20' });
    await machine.writeMemory(0x1000, Buffer.from('ab'));
    for (const wrong of [
      machine.setBreakpoints([{ kind: 'software', address: '1000' }]),
      machine.setBreakpoints([{ kind: 'write', address: '0x1000', size: 3 as 4 }]),
      machine.setBreakpoints({} as never),
      machine.debugRun({ vcpus: [] }),
      machine.debugRun({ step: [-1] }),
      machine.readRegisters(1000),
      machine.writeRegisters(0, { rip: '32' }),
      machine.writeMemory(-1, Buffer.from('ab')),
    ]) {
      await expect(wrong).rejects.toMatchObject({
        code: expect.stringMatching(/^(BREAKPOINT|VCPU|REGISTER|PROTOCOL)$/),
      });
    }
    // It is not this one's to take away.
    await other.machine.detachDebugger();
    other.connection.close();
    await other.served;
    expect(debugged).toEqual([
      ['attachDebugger'],
      ['setBreakpoints', [{ kind: 'software', address: '0x1000' }]],
      ['debugRun', { step: [1] }],
      ['readRegisters', 1],
      ['writeRegisters', 1, { rip: '0x20' }],
      ['writeMemory', 0x1000, Buffer.from('ab')],
    ]);
    connection.close();
    await served;
    expect(debugged.at(-1)).toEqual(['detachDebugger']);
  });

  test("files have this side's names in what the other one says", async () => {
    const [ours, theirs] = duplexPair();
    void serveMachines(theirs, async () => {
      throw new NemuError('KERNEL_FORMAT', '/there/k is no kernel.', { hint: 'Not /there/k.' });
    });
    const connection = new EngineConnection(ours, undefined, (text) => text.replaceAll('/there', ''));
    await expect(connection.create({ kernel: { image: '/there/k' } })).rejects.toMatchObject({
      message: '/k is no kernel.',
      hint: 'Not /k.',
    });
    connection.close();
  });

  test('disks and network cards are changed through it, in the words of each side', async () => {
    const fake = fakeMachine();
    const [ours, theirs] = duplexPair();
    void serveMachines(theirs, async () => fake.machine);
    const connection = new EngineConnection(ours);
    const machine = await connection.create(
      { kernel: { image: '/k' } },
      {
        changeDisk: (disk, change, engine) => engine({ ...change, file: `/there${disk?.file}` } as DiskChangeInput),
        disk: (report) => ({ ...report, file: report.file.replace('/there', '') }),
      },
    );
    expect(await machine.changeDisk('vda', { action: 'medium', file: '/ours' })).toMatchObject({ file: '/d' });
    expect(await machine.changeNet('net0', { action: 'link', up: false })).toEqual({ name: 'net0', link: false });
    expect(fake.calls).toEqual([
      'changeDisk ["vda",{"action":"medium","file":"/there/d"}]',
      'changeNet ["net0",{"action":"link","up":false}]',
    ]);
    for (const wrong of [{ action: 'link' }, { action: 'fly' }, undefined, { action: 'backend', backend: {} }]) {
      await expect(machine.changeNet('net0', wrong as never)).rejects.toMatchObject({ code: 'CHANGE' });
    }
    await expect(machine.changeNet(5 as never, { action: 'link', up: true })).rejects.toMatchObject({
      code: 'PROTOCOL',
    });
    expect(fake.calls.length).toBe(2);
    connection.close();
  });

  test('a machine is shared with one more user, who leaves it running', async () => {
    const fake = fakeMachine();
    const [ours, theirs] = duplexPair();
    const served = serveMachine(theirs, fake.machine);
    const connection = new EngineConnection(ours);
    const machine = await connection.attach();
    expect([machine.state, machine.consoles]).toEqual(['created', []]);
    const events: string[] = [];
    machine.onEvent(({ type }) => events.push(type));
    fake.emit({ type: 'crash-loaded' });
    await machine.nmi();
    expect(events).toEqual(['crash-loaded']);
    await expect(connection.create({ kernel: { image: '/k' } })).rejects.toMatchObject({ code: 'PROTOCOL' });
    connection.close();
    await served;
    expect(fake.calls).toEqual(['nmi']);
    expect(fake.listeners()).toBe(0);
  });

  test('where machines are made there is none to attach to', async () => {
    const { connection } = connect();
    await expect(connection.attach()).rejects.toMatchObject({ code: 'PROTOCOL' });
    connection.close();
  });

  test('what the engine said together with its answer is not lost', async () => {
    const [ours, theirs] = duplexPair();
    const control = (message: object) => encodeFrame(FRAME_CONTROL, 0, Buffer.from(JSON.stringify(message)));
    theirs.once('data', () => {
      const description = parseMachine({ kernel: { image: '/k' } });
      const made = { machine: 1, description, consoles: [], state: 'created' };
      theirs.write(Buffer.concat([control({ id: 1, result: made }), control({ machine: 1, state: 'running' })]));
    });
    const machine = await new EngineConnection(ours).attach();
    expect(machine.state).toBe('running');
    theirs.destroy();
  });

  test('a description that is not valid is refused with the reason', async () => {
    const { connection } = connect();
    await expect(connection.create({ kernel: { image: '' } })).rejects.toMatchObject({ code: 'DESCRIPTION' });
    connection.close();
  });

  test('a reader that stalls holds its console at a window, and gets every byte later', async () => {
    const { connection, console } = connect();
    const machine = await connection.create({ kernel: { image: '/k' } });
    const piece = Buffer.alloc(50_000);
    let sent = 0;
    while (console.onData && sent < 100 * WINDOW) {
      piece.fill(sent / piece.length);
      console.onData(Buffer.from(piece));
      sent += piece.length;
    }
    expect(sent).toBeLessThan(2 * WINDOW);
    await settled();
    const seen: Buffer[] = [];
    machine.console('com1').onData = (bytes) => seen.push(Buffer.from(bytes));
    await settled();
    const all = Buffer.concat(seen);
    expect(all.length).toBe(sent);
    for (let i = 0; i < all.length; i += piece.length) expect(all[i]).toBe(i / piece.length);
    expect(console.onData).toBeDefined();
    connection.close();
  });

  test('a guest that takes no input stops the writer at a window, and then gets all of it', async () => {
    const { connection, console } = connect();
    const machine = await connection.create({ kernel: { image: '/k' } });
    console.room = 10;
    const remote = machine.console('com1');
    const text = Buffer.from('0123456789'.repeat(60_000));
    let at = remote.write(text);
    expect(at).toBe(WINDOW);
    remote.onWritable = () => {
      at += remote.write(text.subarray(at));
    };
    await settled();
    expect(console.text).toBe('0123456789');
    console.room = Number.POSITIVE_INFINITY;
    console.onWritable?.();
    while (console.text.length < text.length) await settled();
    expect(console.text).toBe(text.toString());
    connection.close();
  });
});

describe('a rude peer', () => {
  const talk = async (bytes: Uint8Array) => {
    const { served, stream, calls } = connect();
    stream.write(bytes);
    await settled();
    stream.destroy();
    await served;
    return calls;
  };

  test('messages that do not parse are answered, and the session goes on', async () => {
    const fake = fakeMachine();
    const [ours, theirs] = duplexPair();
    const served = serveMachines(theirs, async () => fake.machine);
    const answers: { id: number; error?: { code: string } }[] = [];
    const decoder = new FrameDecoder();
    ours.on('data', (bytes) => {
      for (const { payload } of decoder.push(bytes)) answers.push(JSON.parse(Buffer.from(payload).toString()));
    });
    for (const text of [
      '',
      'null',
      '[]',
      '{"id":3}',
      '{"id":4,"method":"start","machine":9}',
      '{"id":5,"method":"__proto__","machine":1}',
    ]) {
      ours.write(encodeFrame(FRAME_CONTROL, 0, Buffer.from(text)));
    }
    await settled();
    expect(answers.map(({ id }) => id)).toEqual([-1, -1, -1, 3, 4, 5]);
    expect(answers.every(({ error }) => error !== undefined)).toBe(true);
    ours.destroy();
    await served;
  });

  test('more input than the window allows ends the stream', async () => {
    const { served, stream, console, connection } = connect();
    await connection.create({ kernel: { image: '/k' } });
    console.room = 0;
    for (let i = 0; i < 4; i++) stream.write(encodeFrame(FRAME_BYTES, 16, Buffer.alloc(WINDOW / 2)));
    await served;
    expect(stream.destroyed || stream.readableEnded).toBe(true);
  });

  test('random bytes end the session or are ignored; nothing is thrown and nothing is left', async () => {
    let seed = 11;
    const random = () => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
      return seed / 0x7fffffff;
    };
    for (let round = 0; round < 30; round++) {
      const length = Math.floor(random() * 200);
      await talk(Buffer.from(Array.from({ length }, () => (random() < 0.5 ? 0 : Math.floor(random() * 256)))));
    }
  });
});
