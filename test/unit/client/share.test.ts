/** One machine and several clients at its control socket: consoles, the guest's agent, history, and rude peers. */
import { type Duplex, duplexPair } from 'node:stream';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { parseMachine } from '../../../src/client/description.ts';
import { NemuError } from '../../../src/client/errors.ts';
import { EventHistory } from '../../../src/client/event_history.ts';
import { encodeFrame } from '../../../src/client/frames.ts';
import { GuestSession } from '../../../src/client/guest_session.ts';
import type { ConsoleStream, MachineClient, MachineEvent } from '../../../src/client/machine_client.ts';
import { FRAME_BYTES, FRAME_CONTROL, SHARED_METHODS, WINDOW } from '../../../src/client/protocol.ts';
import { EngineConnection } from '../../../src/client/remote.ts';
import { serveMachine } from '../../../src/client/serve.ts';
import { type SharedConsole, sizeOf } from '../../../src/client/shared_console.ts';
import { ConsoleHub } from '../../../src/console/hub.ts';
import { random as randomOf } from '../../support/random.ts';

class Port implements ConsoleStream {
  readonly name: string;
  onData: ((bytes: Uint8Array) => void) | undefined;
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
  onTyped: ((text: string) => void) | undefined;
  typed = '';
  constructor(name: string) {
    this.name = name;
  }
  write(bytes: Uint8Array): number {
    const text = Buffer.from(bytes).toString('latin1');
    this.typed += text;
    this.onTyped?.(text);
    return bytes.length;
  }
  print(text: string): void {
    this.onData?.(Buffer.from(text, 'latin1'));
  }
}

function machine() {
  const com1 = new Port('com1');
  const com4 = new Port('com4');
  const listeners = new Set<(event: MachineEvent) => void>();
  const client = {
    description: parseMachine({ kernel: { image: '/k' }, serial: ['com1', 'com4'] }),
    state: 'running',
    end: undefined,
    consoles: ['com1', 'com4'],
    console: (name: string) => (name === 'com1' ? com1 : com4),
    onEvent: (listener: (event: MachineEvent) => void) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    ended: () => new Promise(() => {}),
    close: async () => {},
  } as unknown as MachineClient;
  const guest = GuestSession.of(client);
  const hub = new ConsoleHub(com1);
  const shared = {
    consoles: {
      names: ['com1'],
      open: (name: string, options: Parameters<ConsoleHub['open']>[0]) => {
        if (name !== 'com1') throw new NemuError('CONSOLE', `There is no console ${name}.`);
        return hub.open(options);
      },
      report: () => [hub.report()],
      search: (_name: string, text: string, most: number) => hub.search(text, most),
    },
    guest,
    history: new EventHistory(client, guest),
  };
  const served: Promise<void>[] = [];
  const attach = async (label: string) => {
    const [ours, theirs] = duplexPair();
    served.push(serveMachine(theirs, client, shared));
    const connection = new EngineConnection(ours);
    return { connection, stream: ours as Duplex, machine: await connection.attach(label) };
  };
  const emit = (event: MachineEvent) => {
    for (const listener of listeners) listener(event);
  };
  return { com1, com4, guest, hub, attach, emit, served, listeners };
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 20));

describe('consoles of a shared machine', () => {
  test('two clients see one console; one drives, the other takes it over', async () => {
    const { com1, hub, attach, served } = machine();
    com1.print('login: ');
    await hub.drawn();
    const ann = await attach('ann');
    const bob = await attach('bob');
    const first = await ann.machine.share!.openConsole('com1', { role: 'driver', replay: true });
    const second = await bob.machine.share!.openConsole('com1', { role: 'driver', replay: true });
    const seen = ['', ''];
    for (const [index, console] of [first, second].entries()) {
      console.onScreen = (bytes) => {
        seen[index] += `<${Buffer.from(bytes).toString().split('\x1b[2J')[1]}>`;
      };
      console.onData = (bytes) => {
        seen[index] += Buffer.from(bytes);
      };
    }
    await settled();
    com1.print('root');
    first.write(Buffer.from('a'));
    second.write(Buffer.from('b'));
    await settled();
    expect(seen).toEqual(['<login: >root', '<login: >root']);
    expect(com1.typed).toBe('a');
    // A console that is asked for by its name is opened after that, and then says whose it is.
    const own = bob.machine.console('com1') as SharedConsole;
    const opened: string[] = [];
    own.onRole = (role) => opened.push(role);
    await settled();
    expect(opened).toEqual(['viewer']);
    own.close();
    const told: string[] = [];
    first.onRole = (role, why) => told.push(`${role}: ${why}`);
    second.takeOver();
    await settled();
    expect([first.role, second.role]).toEqual(['viewer', 'driver']);
    expect(told).toEqual(['viewer: bob has taken the console over.']);
    second.write(Buffer.from('c'));
    second.resize(40, 132);
    await settled();
    expect(com1.typed).toBe('ac');
    // What is not taken waits; its screen is what there is of it then.
    const { onData } = second;
    second.onData = undefined;
    const before = seen[1];
    second.redraw();
    await settled();
    second.onData = onData;
    await settled();
    expect(seen[1]).toBe(`${before}<login: root>`);
    expect(await ann.machine.share!.consoleReports()).toMatchObject([
      { name: 'com1', driver: 'bob', viewers: ['ann'], rows: 40, columns: 132, lost: 0 },
    ]);
    bob.connection.close();
    await settled();
    expect(told[1]).toBe('viewer: bob has left: nobody drives the console.');
    expect(hub.report().viewers).toEqual(['ann']);
    ann.connection.close();
    await Promise.all(served);
  });

  test('a console that is asked for by its name alone is opened with what was on it', async () => {
    const { com1, attach } = machine();
    com1.print('before\r\n');
    const { machine: remote, connection } = await attach('ui');
    expect(remote.consoles).toEqual(['com1']);
    const console = remote.console('com1');
    expect(console.write(Buffer.from('early'))).toBe(0);
    let seen = '';
    console.onData = (bytes) => {
      seen += Buffer.from(bytes);
    };
    await new Promise<void>((resolve) => {
      console.onWritable = resolve;
    });
    expect(console.write(Buffer.from('typed'))).toBe(5);
    await settled();
    com1.print('after');
    await settled();
    expect(seen).toMatch(/before.*after$/s);
    expect(com1.typed).toBe('typed');
    await expect(remote.share!.openConsole('com9', { role: 'viewer' })).rejects.toMatchObject({ code: 'CONSOLE' });
    connection.close();
  });

  test('a client that stalls hurts nobody, and learns what it missed', async () => {
    const { com1, attach } = machine();
    const slow = await attach('slow');
    const fast = await attach('fast');
    const stalled = await slow.machine.share!.openConsole('com1', { role: 'driver' });
    const watcher = await fast.machine.share!.openConsole('com1', { role: 'viewer' });
    let seen = 0;
    watcher.onData = (bytes) => {
      seen += bytes.length;
    };
    const line = `${'x'.repeat(998)}\r\n`;
    for (let i = 0; i < 8000; i++) {
      com1.print(line);
      if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await settled();
    expect(seen).toBe(8_000_000);
    let late = 0;
    let lost = 0;
    let screens = 0;
    stalled.onLost = (count) => {
      lost += count;
    };
    stalled.onScreen = () => {
      screens++;
    };
    stalled.onData = (bytes) => {
      late += bytes.length;
    };
    while (late + lost < 8_000_000) await settled();
    expect(late + lost).toBe(8_000_000);
    expect(lost).toBeGreaterThan(2_000_000);
    expect(screens).toBe(1);
    slow.connection.close();
    fast.connection.close();
  });

  test('a terminal without a size, one that is too narrow and one that is too wide, and a long label are taken', async () => {
    const { hub, attach } = machine();
    const label = `ann on ${'x'.repeat(70)}`;
    const { machine: remote, connection } = await attach(label);
    const share = remote.share!;
    for (const [rows, columns] of [
      [0, 0],
      [24, -3],
      [24, 20_000],
    ]) {
      (await share.openConsole('com1', { role: 'viewer', rows, columns })).close();
    }
    const viewer = await share.openConsole('com1', { role: 'driver', rows: 0, columns: 0 });
    await settled();
    expect(hub.report()).toMatchObject({ driver: label.slice(0, 64), rows: 24, columns: 80 });
    viewer.resize(50, 100);
    viewer.resize(0, 0);
    await settled();
    expect(hub.report()).toMatchObject({ rows: 50, columns: 100 });
    connection.close();
  });

  test('a terminal has a size for whoever needs one, and something is left to the guest', () => {
    expect(sizeOf({})).toEqual({ rows: 24, columns: 80 });
    expect(sizeOf({ rows: 0, columns: 0 }, 13)).toEqual({ rows: 24, columns: 67 });
    expect(sizeOf({ rows: 50, columns: 10 }, 13)).toEqual({ rows: 50, columns: 1 });
  });

  test('more input than its window allows ends a client, and no other', async () => {
    const { com1, attach, served } = machine();
    const rude = await attach('rude');
    const other = await attach('other');
    await rude.machine.share!.openConsole('com1', { role: 'driver' });
    com1.write = () => 0;
    for (let i = 0; i < 4; i++) rude.stream.write(encodeFrame(FRAME_BYTES, 16, Buffer.alloc(WINDOW / 2)));
    await served[0];
    const [report] = await other.machine.share!.consoleReports();
    expect(report.driver).toBeUndefined();
    other.connection.close();
  });
});

describe("a shared machine's guest and history", () => {
  test('a command runs with its input, its two outputs and its status', async () => {
    const { com4, attach } = machine();
    const { machine: remote, connection } = await attach('exec');
    const guest = remote.share!.guest!;
    com4.print('phase ready 1.5\n');
    await guest.ready;
    expect(guest.phases).toEqual([{ name: 'ready', uptime: 1.5 }]);
    let input = '';
    com4.onTyped = (text) => {
      for (const line of text.trim().split('\n')) {
        const [word, id, rest] = line.split(' ');
        const base64 = (value: string) => Buffer.from(value).toString('base64');
        if (word === 'exec') com4.print(`took ${id} .\n`);
        if (word !== 'in') continue;
        if (rest !== '.') {
          input += Buffer.from(rest, 'base64');
          com4.print(`took ${id} .\n`);
        } else com4.print(`out ${id} ${base64('out')}\nerr ${id} ${base64('err')}\nran ${id} 7\n`);
      }
    };
    const said = { out: '', err: '' };
    const text = 'stdin '.repeat(100_000);
    const status = await guest.exec('cat', {
      input: (async function* () {
        yield Buffer.from(text);
      })(),
      onOutput: (bytes) => {
        said.out += bytes;
      },
      onError: (bytes) => {
        said.err += bytes;
      },
    });
    expect({ status, ...said }).toEqual({ status: 7, out: 'out', err: 'err' });
    expect(input === text).toBe(true);
    connection.close();
  });

  test('a command waits while its reader takes nothing, and no other does', async () => {
    const { com4, attach } = machine();
    const { machine: remote, connection } = await attach('slow');
    const guest = remote.share!.guest!;
    com4.print('phase ready 1.5\n');
    await guest.ready;
    const print = (id: number, bytes: number) => {
      const line = Buffer.alloc(2000).toString('base64');
      for (let i = 0; i < bytes; i += 2000) com4.print(`${i % 4000 ? 'err' : 'out'} ${id} ${line}\n`);
    };
    const words = () => com4.typed.match(/^(hold|go|stop) \d+$/gm) ?? [];
    let reads = Promise.withResolvers<void>();
    const taken = { slow: 0, quick: 0 };
    const slow = (bytes: Buffer) => {
      taken.slow += bytes.length;
      return reads.promise;
    };
    const stop = new AbortController();
    const first = guest.exec('yes', { onOutput: slow, onError: slow, signal: stop.signal });
    const quick = (bytes: Buffer) => {
      taken.quick += bytes.length;
    };
    const second = guest.exec('yes', { onOutput: quick, onError: quick });
    await settled();
    print(1, WINDOW - 4000);
    await settled();
    expect(words()).toEqual([]);
    print(1, 20_000);
    print(2, 4 * WINDOW);
    await settled();
    expect(words()[0]).toBe('hold 1');
    // The other's reader takes all: it is soon let on, if it was held at all.
    expect(taken.quick).toBeGreaterThan(4 * WINDOW);
    expect(words().findLast((word) => word.endsWith('2'))).not.toBe('hold 2');
    expect(words()).not.toContain('go 1');
    reads.resolve();
    await settled();
    expect(words()).toContain('go 1');
    // One that is to end is not held: it could not.
    reads = Promise.withResolvers();
    com4.typed = '';
    print(1, 2 * WINDOW);
    await settled();
    stop.abort();
    await settled();
    print(1, 2 * WINDOW);
    await settled();
    expect(words()).toEqual(['hold 1', 'go 1', 'stop 1']);
    com4.print('ran 1 143\nran 2 0\n');
    expect(await Promise.all([first, second])).toEqual([143, 0]);
    connection.close();
  });

  test('input that shrinks is packed for a guest that can unpack it, and other input is not', async () => {
    const { com4, attach } = machine();
    const { machine: remote, connection } = await attach('exec');
    const guest = remote.share!.guest!;
    com4.print('phase ready 1.5\n');
    await guest.ready;
    const below = randomOf(3);
    const noise = Buffer.from(Array.from({ length: 20_000 }, () => below(256)));
    const sent = Buffer.concat([Buffer.from('stdin '.repeat(20_000)), noise, Buffer.from('end '.repeat(2000))]);
    const lines = { packed: 0, plain: 0 };
    const input: Buffer[] = [];
    com4.onTyped = (text) => {
      for (const line of text.trim().split('\n')) {
        const [word, id, rest] = line.split(' ');
        if (word === 'exec') com4.print(`took ${id} z\n`);
        if (word !== 'in') continue;
        expect(line.length).toBeLessThan(2100);
        if (rest === '.') com4.print(`ran ${id} 0\n`);
        else {
          const packed = rest.startsWith('=');
          lines[packed ? 'packed' : 'plain']++;
          const bytes = Buffer.from(rest.replace('=', ''), 'base64');
          input.push(packed ? gunzipSync(bytes) : bytes);
          com4.print(`took ${id} z\n`);
        }
      }
    };
    const ignore = () => {};
    const pieces = async function* () {
      for (let at = 0; at < sent.length; at += 65_536) yield sent.subarray(at, at + 65_536);
    };
    expect(await guest.exec('cat', { input: pieces(), onOutput: ignore, onError: ignore })).toBe(0);
    expect(Buffer.concat(input).equals(sent)).toBe(true);
    expect(lines.packed).toBeGreaterThan(10);
    // The noise, 1500 bytes a line, and what is less than a line.
    expect(lines.plain).toBeGreaterThanOrEqual(13);
    expect(lines.plain).toBeLessThan(20);
    connection.close();
  });

  test('a command in a terminal has its size, its bytes to the last, and a hang-up when it has ended', async () => {
    const { com4, attach } = machine();
    const { machine: remote, connection } = await attach('typist');
    const guest = remote.share!.guest!;
    com4.print('phase ready 1.5\n');
    await guest.ready;
    const lines: string[] = [];
    const base64 = (value: string) => Buffer.from(value, 'latin1').toString('base64');
    // As a guest does: later.
    const answer = (text: string) => setImmediate(() => com4.print(text));
    com4.onTyped = (text) => {
      for (const line of text.trim().split('\n')) {
        lines.push(line.replace(/[\w+/=]+$/, (last) => Buffer.from(last, 'base64').toString('latin1')));
        const [word, id, rest] = line.split(' ');
        if (word === 'terminal') answer(`tty ${id} telnet\ntook ${id} .\nout ${id} ${base64('\xff\xfd\x01$ ')}\n`);
        if (word === 'winsize') answer(`out ${id} ${base64(`resized\x1b]nemu;${id}\x07`)}\n`);
        if (word === 'in' && rest === '.') answer(`ran ${id} 3\n`);
      }
    };
    let resize: (size: { rows: number; columns: number }) => void = () => {};
    let listening = false;
    let said = '';
    const status = await guest.exec('sh -i', {
      input: (async function* () {
        yield Buffer.from('ls\r');
        await new Promise(() => {});
      })(),
      onOutput: (bytes) => {
        said += bytes;
        if (said === '$ ') resize({ rows: 30, columns: 100 });
      },
      onError: () => {},
      terminal: {
        size: { rows: 24, columns: 80 },
        onResize: (listener) => {
          listening = true;
          resize = listener;
          return () => {
            listening = false;
          };
        },
      },
    });
    expect({ status, said, listening }).toEqual({ status: 3, said: '$ resized', listening: false });
    expect(lines[0]).toBe('terminal 1 24 80 sh -i');
    expect(lines).toContain('in 1 ls\r\0');
    expect(com4.typed).toContain('winsize 1 30 100\n');
    expect(com4.typed.endsWith('in 1 .\n')).toBe(true);
    connection.close();
  });

  test("a terminal's size reaches a guest that comes up later, and each time it does", async () => {
    const { com4, attach } = machine();
    const { machine: remote, connection } = await attach('sizer');
    remote.share!.guest!.resize(30, 100);
    await settled();
    expect(com4.typed).toBe('');
    com4.print('phase ready 1.5\n');
    expect(com4.typed).toBe('size 30 100\n');
    remote.share!.guest!.resize(31, 101);
    await settled();
    com4.print('phase ready 1.6\n');
    expect(com4.typed).toBe('size 30 100\nsize 31 101\nsize 31 101\n');
    connection.close();
  });

  test('a client that leaves ends its command; a guest that is reset ends all', async () => {
    const { com4, attach, emit } = machine();
    const one = await attach('one');
    const two = await attach('two');
    com4.print('phase ready 1.5\n');
    const runs = [one, two].map(({ machine: remote }) => remote.share!.guest!.run('sleep 100'));
    const failed = runs.map((run) => expect(run).rejects.toMatchObject({ name: 'NemuError' }));
    await settled();
    one.connection.close();
    await settled();
    expect(com4.typed).toContain('stop 1');
    emit({ type: 'reset', cause: 'the test' });
    await Promise.all(failed);
    await expect(runs[1]).rejects.toMatchObject({ code: 'GUEST_GONE' });
    two.connection.close();
  });

  test('a guest with an init of its own is up before it takes requests', async () => {
    const { com4, attach } = machine();
    const { machine: remote, connection } = await attach('one');
    const guest = remote.share!.guest!;
    const run = guest.run('true');
    com4.print('phase init 0.4\nphase root 1.4\n');
    await guest.up;
    await settled();
    expect(com4.typed).toBe('');
    com4.print('phase agent 9.5\n');
    await Promise.all([guest.ready, guest.settled]);
    await expect.poll(() => com4.typed).toMatch(/^run 1 /);
    com4.print('ran 1 0\n');
    expect(await run).toMatchObject({ status: 0 });
    connection.close();
  });

  test('a guest that was reset is waited for anew: nothing is sent to a port that nobody reads', async () => {
    const { com4, attach, emit } = machine();
    const { machine: remote, connection } = await attach('one');
    const guest = remote.share!.guest!;
    com4.print('phase ready 1.5\nphase settled 1.7\nexit 3\n');
    await expect.poll(() => guest.status).toBe(3);
    await guest.settled;
    emit({ type: 'reset', cause: 'the user' });
    com4.typed = '';
    const run = guest.run('echo again');
    let up = false;
    await settled();
    void guest.ready.then(() => {
      up = true;
    });
    await settled();
    expect([guest.phases, guest.status, up, com4.typed]).toEqual([[], undefined, false, '']);
    com4.print('phase init 0.4\nphase ready 1.4\n');
    await guest.ready;
    await expect.poll(() => com4.typed).toMatch(/^run \d+ /);
    const id = /^run (\d+)/.exec(com4.typed)?.[1];
    com4.print(`ran ${id} 0\n`);
    expect(await run).toMatchObject({ status: 0 });
    // A kernel that another one has started tells of no reset.
    const lost = expect(guest.run('sleep 100')).rejects.toMatchObject({ code: 'GUEST_GONE' });
    await expect.poll(() => com4.typed).toMatch(/\nrun /);
    com4.print('phase init 0.3\n');
    await lost;
    expect(guest.phases).toEqual([{ name: 'init', uptime: 0.3 }]);
    connection.close();
  });

  test('a script that is no text is refused with a sentence, and nothing is left of it', async () => {
    const { guest, com4, attach, emit } = machine();
    const { machine: remote, connection } = await attach('one');
    com4.print('phase ready 1.5\n');
    for (const channel of [guest!, remote.share!.guest!]) {
      const told = { code: 'USAGE', message: 'A command for the guest is text, not undefined.' };
      await expect(channel.run(undefined as never)).rejects.toMatchObject(told);
      const ends = { onOutput: () => {}, onError: () => {} };
      await expect(channel.exec(undefined as never, ends)).rejects.toMatchObject(told);
    }
    // A promise that nobody has would be rejected now.
    emit({ type: 'reset', cause: 'the user' });
    await settled();
    expect(com4.typed).toBe('');
    connection.close();
  });

  test('who comes late learns how it began', async () => {
    const { com4, attach, emit } = machine();
    com4.print('phase init 0.9\n');
    for (let i = 0; i < 3000; i++) emit({ type: 'guest-fault', device: 'com1', text: `fault ${i}` });
    const { machine: remote, connection } = await attach('late');
    const events = await remote.share!.history();
    expect(events[0]).toMatchObject({ type: 'guest-phase', name: 'init' });
    expect(events.at(-1)).toMatchObject({ text: 'fault 2999' });
    expect(events.length).toBe(1001);
    expect(events[200]).toMatchObject({ type: 'note', text: '2001 events before this were forgotten.' });
    connection.close();
  });

  test('calls that do not fit are answered with an error; nothing is thrown, and nothing is left', async () => {
    const { attach, hub, listeners } = machine();
    const before = listeners.size;
    const random = randomOf(7);
    const values = [null, -1, 0, 16, 17, 1e300, 'com1', '', 'x'.repeat(5000), {}, { role: 'driver' }, [], true];
    const { stream, connection, machine: remote } = await attach('rude');
    for (let i = 0; i < 400; i++) {
      const method = SHARED_METHODS[random(SHARED_METHODS.length)];
      const parameters = Array.from({ length: random(4) }, () => values[random(values.length)]);
      const message = JSON.stringify({ id: 1000 + i, method, parameters });
      stream.write(encodeFrame(FRAME_CONTROL, 0, Buffer.from(message)));
      stream.write(encodeFrame(random(10), random(40), Buffer.alloc(random(8))));
    }
    expect(await remote.share!.consoleReports()).toHaveLength(1);
    connection.close();
    await settled();
    expect(hub.report()).toMatchObject({ driver: undefined, viewers: [] });
    expect(listeners.size).toBe(before);
  });

  test('a client that reads nothing of what a command prints is let go, and its command ends', async () => {
    const { com4, attach, served } = machine();
    const deaf = await attach('deaf');
    const other = await attach('other');
    com4.print('phase ready 1.5\n');
    const run = deaf.machine.share!.guest!.run('yes');
    const failed = expect(run).rejects.toMatchObject({ code: 'CONNECTION' });
    await settled();
    deaf.stream.pause();
    let over = false;
    void served[0].then(() => {
      over = true;
    });
    const line = `out 1 ${Buffer.alloc(3000, 'y').toString('base64')}\n`;
    for (let i = 0; i < 20_000 && !over; i++) {
      com4.print(line);
      if (i % 500 === 0) await settled();
    }
    await served[0];
    await settled();
    expect(com4.typed).toContain('stop 1');
    deaf.stream.destroy();
    await failed;
    expect(await other.machine.share!.consoleReports()).toHaveLength(1);
    other.connection.close();
  });

  test('calls without end wait; bytes that are no frames end a client, and no other', async () => {
    const { attach, served } = machine();
    const eager = await attach('eager');
    const all = await Promise.all(Array.from({ length: 5000 }, () => eager.machine.share!.consoleReports()));
    expect(all).toHaveLength(5000);
    const random = randomOf(11);
    for (let i = 0; i < 50; i++) {
      const rude = await attach('rude');
      const index = served.length - 1;
      const noise = Buffer.from(Array.from({ length: 20 + random(200) }, () => random(256)));
      // A length that no frame has.
      noise.writeUInt32LE(0xffff_ffff, random(noise.length - 4));
      rude.stream.write(encodeFrame(FRAME_CONTROL, 0, noise));
      rude.stream.write(Buffer.concat([Buffer.alloc(3, 0xff), noise]));
      await served[index];
    }
    expect(await eager.machine.share!.consoleReports()).toMatchObject([{ viewers: [] }]);
    eager.connection.close();
  });

  test('what a console has printed is searched from outside', async () => {
    const { com1, attach } = machine();
    com1.print('one\r\nTwo\r\n');
    const { machine: remote, connection } = await attach('seeker');
    expect(await remote.share!.searchConsole('com1', 'tWO')).toEqual(['Two']);
    connection.close();
  });
});
