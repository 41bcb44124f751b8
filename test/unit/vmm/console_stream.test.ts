import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { RingConsole } from '../../../src/vmm/console_stream.ts';
import { SerialChannel } from '../../../src/vmm/serial_channel.ts';

describe('a console between the machine thread and the main thread', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }));
  afterEach(() => void vi.useRealTimers());

  function setUp() {
    let bells = 0;
    const console = new RingConsole('com1', () => {});
    const channel = new SerialChannel(
      'wait',
      () => {
        bells++;
        console.rung();
      },
      () => {},
    );
    channel.connect(console.rings);
    let text = '';
    console.onData = (bytes) => {
      text += Buffer.from(bytes).toString();
    };
    const print = (what: string) => channel.write(Buffer.from(what));
    return { console, print, text: () => text, bells: () => bells };
  }

  test('what comes after a pause is there at once; what follows comes in turns, without a message for each piece', async () => {
    const { console, print, text, bells } = setUp();
    await Promise.resolve();
    print('a');
    expect([text(), bells()]).toEqual(['a', 1]);
    print('b');
    for (let i = 0; i < 100; i++) {
      print('.');
      vi.advanceTimersByTime(1);
    }
    expect(bells()).toBeLessThanOrEqual(2);
    expect(text().length).toBeGreaterThan(90);
    vi.advanceTimersByTime(10);
    expect(text()).toBe(`ab${'.'.repeat(100)}`);
    // The turns end when nothing comes.
    vi.advanceTimersByTime(1000);
    expect(vi.getTimerCount()).toBe(0);
    print('c');
    expect(text().endsWith('c')).toBe(true);
    print('d');
    print('e');
    // Who has to have all of it now, gets it.
    console.drain();
    expect(text().endsWith('cde')).toBe(true);
  });

  test('who stops to listen in the middle of it loses nothing', async () => {
    const { console, print, text } = setUp();
    await Promise.resolve();
    const listener = console.onData;
    print('a');
    print('b');
    console.onData = undefined;
    print('c');
    vi.advanceTimersByTime(100);
    console.drain();
    expect(text()).toBe('ab');
    console.onData = listener;
    await Promise.resolve();
    expect(text()).toBe('abc');
    print('d');
    vi.advanceTimersByTime(100);
    expect(text()).toBe('abcd');
  });
});
