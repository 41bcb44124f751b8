/** What a driver of the 16550 finds that reads for as long as there is something. */
import { expect, test } from 'vitest';
import { Uart16550 } from '../../../src/devices/uart16550.ts';
import { FakeClock } from '../../support/fake_clock.ts';

const [RBR, IER, FCR, LSR] = [0, 1, 2, 5];

test.each([
  ['20 µs', 20_000n, 700_000n],
  ['4 ms', 4_000_000n, 140_000_000n],
  ['1 s', 1_000_000_000n, 250_000_000n],
])('where a read takes %s, a flood leaves the guest time between two bursts', (_, read, most) => {
  const clock = Object.assign(new FakeClock(), { wallClockMs: () => 0 });
  const sent = Uint8Array.from({ length: 1000 }, (_, index) => index & 0xff);
  let at = 0;
  const channel = {
    write: (bytes: Uint8Array) => bytes.length,
    read: () => (at < sent.length ? sent[at++] : -1),
    get readable() {
      return at < sent.length;
    },
  };
  const uart = new Uart16550({ name: 'com1', irq: { set: () => {} }, channel, clock });
  uart.write(FCR, 1, 0x01);
  uart.write(IER, 1, 0x01);
  const taken: number[] = [];
  const pauses: bigint[] = [];
  while (taken.length < sent.length) {
    while (uart.read(LSR, 1) & 0x01) {
      clock.time += read;
      taken.push(uart.read(RBR, 1));
    }
    const stopped = clock.now();
    if (clock.next()) pauses.push(clock.now() - stopped);
  }
  expect(Uint8Array.from(taken)).toEqual(sent);
  expect(pauses.length).toBe(15);
  for (const pause of pauses) {
    expect(pause).toBeLessThanOrEqual(most);
    expect(pause).toBeGreaterThan(most / 2n);
  }
});
