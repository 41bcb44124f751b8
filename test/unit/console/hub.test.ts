/** One console and all who look at it. */
import { describe, expect, test } from 'vitest';
import type { ConsoleStream } from '../../../src/client/machine_client.ts';
import { ConsoleHub, type HubOptions } from '../../../src/console/hub.ts';
import { random as randomOf } from '../../support/random.ts';

class Guest implements ConsoleStream {
  readonly name = 'com1';
  onData: ((bytes: Uint8Array) => void) | undefined;
  onLost: ((count: number) => void) | undefined;
  onWritable: (() => void) | undefined;
  typed = '';
  room = Number.POSITIVE_INFINITY;
  write(bytes: Uint8Array): number {
    const count = Math.min(this.room, bytes.length);
    this.room -= count;
    this.typed += Buffer.from(bytes.subarray(0, count)).toString('latin1');
    return count;
  }
  print(text: string): void {
    this.onData?.(Buffer.from(text, 'latin1'));
  }
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

function hub(options: HubOptions = {}) {
  const guest = new Guest();
  return { guest, hub: new ConsoleHub(guest, options) };
}

describe('a hub', () => {
  test('gives each viewer the same bytes from when it came, and takes them without any', async () => {
    const { guest, hub: console } = hub();
    guest.print('before ');
    const seen = ['', ''];
    for (const index of [0, 1]) {
      const viewer = console.open({ role: 'viewer' });
      viewer.onData = (bytes) => {
        seen[index] += Buffer.from(bytes);
      };
    }
    guest.print('one ');
    await tick();
    guest.print('two');
    expect(seen).toEqual(['one two', 'one two']);
    expect(guest.onData).toBeDefined();
    expect(console.report()).toMatchObject({ bytes: 14, lost: 0, driver: undefined });
  });

  test('keeps its size when a terminal has none', () => {
    const { hub: console } = hub();
    const viewer = console.open({ role: 'driver', rows: 30, columns: 90 });
    viewer.resize(0, 0);
    expect(console.report()).toMatchObject({ rows: 30, columns: 90 });
  });

  test('tells who came, drives and left', () => {
    const told: string[] = [];
    const { hub: console } = hub({ onViewers: (text) => told.push(text) });
    const first = console.open({ role: 'driver', label: 'ann' });
    const second = console.open({ role: 'viewer', label: 'bob' });
    second.takeOver();
    first.close();
    expect(told).toEqual(['ann came', 'ann drives', 'bob came', 'bob took it over from ann', 'ann left']);
  });

  test('one drives, others watch; who takes it over is named to the one who lost it', () => {
    const { guest, hub: console } = hub();
    const first = console.open({ role: 'driver', label: 'ann' });
    const second = console.open({ role: 'driver', label: 'bob' });
    expect([first.role, second.role]).toEqual(['driver', 'viewer']);
    first.write(Buffer.from('a'));
    expect(second.write(Buffer.from('b'))).toBe(1);
    expect(guest.typed).toBe('a');
    const told: string[] = [];
    first.onRole = (role, why) => told.push(`${role}: ${why}`);
    second.takeOver();
    first.write(Buffer.from('x'));
    second.write(Buffer.from('y'));
    expect(guest.typed).toBe('ay');
    expect(told).toEqual(['viewer: bob has taken the console over.']);
    second.close();
    expect(told[1]).toBe('viewer: bob has left: nobody drives the console.');
    expect(console.open({ role: 'driver' }).role).toBe('driver');
    expect(second.write(Buffer.from('z'))).toBe(1);
    expect(guest.typed).toBe('ay');
  });

  test("the driver's size is the guest's, and a new driver's is when it takes over", () => {
    const sizes: number[][] = [];
    const { hub: console } = hub({ onResize: (rows, columns) => sizes.push([rows, columns]) });
    const first = console.open({ role: 'driver', rows: 30, columns: 100 });
    const second = console.open({ role: 'viewer', rows: 50, columns: 160 });
    second.resize(51, 161);
    first.resize(31, 101);
    second.takeOver();
    second.resize(1e9, -4);
    second.resize(1e9, 1);
    expect(sizes).toEqual([
      [30, 100],
      [31, 101],
      [51, 161],
      [1000, 1],
    ]);
  });

  test('input that the guest does not take waits at the driver', () => {
    const { guest, hub: console } = hub();
    guest.room = 2;
    const driver = console.open({ role: 'driver' });
    expect(driver.write(Buffer.from('abcd'))).toBe(2);
    let writable = 0;
    driver.onWritable = () => writable++;
    guest.room = 9;
    guest.onWritable?.();
    expect(writable).toBe(1);
  });

  test('a late viewer gets the screen, and then the bytes that follow, none twice', async () => {
    const { guest, hub: console } = hub();
    guest.print(`${Array.from({ length: 100 }, (_, i) => `line ${i}`).join('\r\n')}\r\n\x1b[31mred\x1b[0m> `);
    const viewer = console.open({ role: 'driver', replay: true, rows: 5, columns: 40, history: 2 });
    let seen = '';
    viewer.onScreen = (screen) => {
      seen += `<${Buffer.from(screen)}>`;
    };
    viewer.onData = (bytes) => {
      seen += Buffer.from(bytes);
    };
    guest.print('typed');
    await console.drawn();
    await tick();
    expect(seen).toMatch(/^<.*line 9[3-6]\r\n.*red.*> .*>typed$/s);
    expect(seen).not.toContain('line 80');
    expect(console.screenText).toMatch(/line 99\nred> typed$/);
  });

  test('one that comes in the middle of a sequence, or was too slow for its beginning, sees no part of it', async () => {
    const { guest, hub: console } = hub({ scrollback: 200 });
    guest.print('hello \x1b[3');
    await console.drawn();
    const viewer = console.open({ role: 'driver', replay: true });
    let seen = '';
    viewer.onScreen = (screen) => {
      seen = Buffer.from(screen).toString();
    };
    const take = (bytes: Uint8Array) => {
      seen += Buffer.from(bytes);
    };
    viewer.onData = take;
    await tick();
    guest.print('1mred');
    await console.drawn();
    expect(seen.endsWith('hello \x1b[31mred')).toBe(true);
    viewer.onData = undefined;
    guest.print(`${'x'.repeat(300)}\r\n\x1b[?1049hagain \x1b]0;my tit`);
    await console.drawn();
    viewer.onData = take;
    await tick();
    guest.print('le\x07world');
    await tick();
    expect(seen.endsWith('again \x1b]0;my title\x07world')).toBe(true);
  });

  test('one that was away may have the screen in place of what came meanwhile, and no loss is told', async () => {
    const { guest, hub: console } = hub();
    const viewer = console.open({ role: 'driver' });
    let seen = '';
    viewer.onScreen = (screen) => {
      seen += `<${Buffer.from(screen)}>`;
    };
    viewer.onLost = () => {
      seen += 'lost';
    };
    guest.print('one\r\n\x1b[?1049h\x1b[?25lmenu');
    await console.drawn();
    viewer.redraw();
    viewer.onData = (bytes) => {
      seen += Buffer.from(bytes);
    };
    await tick();
    guest.print('two');
    await tick();
    expect(seen).toMatch(/^<.*one.*menu.*\?25l>two$/s);
    viewer.close();
    viewer.redraw();
  });

  test("the guest's questions are answered once: by the driver's terminal, or by ours", async () => {
    const { guest, hub: console } = hub();
    guest.print('\x1b[6n');
    await console.drawn();
    expect(guest.typed).toBe('\x1b[1;1R');
    const terminal = console.open({ role: 'driver', terminal: true });
    guest.print('\x1b[6n');
    await console.drawn();
    expect(guest.typed).toBe('\x1b[1;1R');
    // One that does not drive could not be heard: a program without a terminal, or nobody, drives.
    const program = console.open({ role: 'takeover' });
    guest.print('\x1b[6n');
    await console.drawn();
    expect(guest.typed).toBe('\x1b[1;1R'.repeat(2));
    program.close();
    guest.print('\x1b[6n');
    await console.drawn();
    expect(guest.typed).toBe('\x1b[1;1R'.repeat(3));
    terminal.close();
    // The screen that is replayed asks nothing again.
    let screen = '';
    const late = console.open({ role: 'viewer', replay: true });
    late.onScreen = (bytes) => {
      screen += Buffer.from(bytes);
    };
    late.onData = () => {};
    await tick();
    expect(screen).not.toContain('6n');
  });

  test('100 000 lines past a viewer that stands still: the log has all, the viewer is told and gets the screen', async () => {
    const logged: Buffer[] = [];
    const { guest, hub: console } = hub({
      scrollback: 64 * 1024,
      taps: [{ bytes: (bytes) => logged.push(Buffer.from(bytes)) }],
    });
    const viewer = console.open({ role: 'viewer' });
    let stream = 0;
    let lost = 0;
    let screen = '';
    viewer.onLost = (count) => {
      lost += count;
    };
    viewer.onScreen = (bytes) => {
      screen = Buffer.from(bytes).toString();
    };
    const take = (bytes: Uint8Array) => {
      stream += bytes.length;
      if (screen !== '') screen += Buffer.from(bytes);
    };
    viewer.onData = take;
    let all = '';
    for (let i = 0; i < 100_000; i++) {
      const line = `line ${i} of a console\r\n`;
      all += line;
      guest.print(line);
      if (i === 500) viewer.onData = undefined;
      if (i % 1000 === 0) await tick();
    }
    expect(Buffer.concat(logged).toString() === all).toBe(true);
    viewer.onData = take;
    await console.drawn();
    await tick();
    await tick();
    expect(lost).toBeGreaterThan(1_000_000);
    expect(stream + lost).toBe(all.length);
    // The screen as it was when it was drawn, and what came after.
    expect(screen.startsWith('\x18')).toBe(true);
    expect(screen).toContain('line 99999 of a console');
    expect(console.search('LINE 99998 of')).toEqual(['line 99998 of a console']);
  });

  test('each viewer sees exactly the stream, or is told how much of it is missing', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const random = randomOf(seed);
      const { guest, hub: console } = hub({ scrollback: 1000 });
      const viewers = Array.from({ length: 3 }, (_, index) => {
        const viewer = console.open({ role: 'viewer' });
        const state = { viewer, place: 0, ok: true };
        viewer.onLost = (count) => {
          state.place += count;
        };
        // The first one gets what is left; the others a screen, and are told what it stands for.
        if (index > 0) viewer.onScreen = () => {};
        return state;
      });
      let all = '';
      for (let step = 0; step < 200; step++) {
        const which = viewers[random(viewers.length)];
        if (random(3) === 0) {
          which.viewer.onData = which.viewer.onData
            ? undefined
            : (bytes) => {
                const text = Buffer.from(bytes).toString('latin1');
                if (all.slice(which.place, which.place + text.length) !== text) which.ok = false;
                which.place += text.length;
              };
        }
        const text = String.fromCharCode(97 + (step % 26)).repeat(random(120));
        all += text;
        guest.print(text);
        if (random(4) === 0) await tick();
      }
      for (const { viewer } of viewers) viewer.onData ??= () => {};
      expect(viewers.every(({ ok }) => ok)).toBe(true);
      console.close();
    }
  });
});
