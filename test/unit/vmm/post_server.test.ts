/** The machine thread's end of the mailbox: an exit completes when it was served, or when who held it lets go. */
import { expect, test } from 'vitest';
import type { Region } from '../../../src/devices/device.ts';
import { Bus } from '../../../src/vmm/bus.ts';
import { PostServer } from '../../../src/vmm/post_server.ts';
import { allocateShared, H, POST_DONE, POST_IDLE, POST_POSTED, S, slotWord } from '../../../src/vmm/shared.ts';
import { KIND_MMIO } from '../../../src/vmm/vcpu_thread.ts';

const BASE = 0xfef00000;

function setUp(onWrite: (hold: () => () => void, offset: number) => void) {
  const block = allocateShared(2);
  const mmio = new Bus('mmio');
  const server: PostServer = new PostServer(block, new Bus('pio'), mmio, {
    broke: () => false,
    before: () => {},
    other: () => {},
    failed: () => {},
  });
  const region: Region = {
    ...{ name: 'hints', size: 64, read: () => 0 },
    write: (offset) => onWrite(server.hold, offset),
  };
  mmio.insert(BASE, region);
  const post = (vcpu: number) => {
    const slot = slotWord(vcpu);
    for (const [word, value] of [
      [S.KIND, KIND_MMIO],
      [S.IS_WRITE, 1],
      [S.SIZE, 8],
      [S.ADDRESS_LOW, BASE | 0],
      [S.ADDRESS_HIGH, 0],
    ]) {
      block.words[slot + word] = value;
    }
    block.words[slot + S.POST] = POST_POSTED;
    block.words[H.PENDING] |= 1 << vcpu;
  };
  const state = (vcpu: number) => block.words[slotWord(vcpu) + S.POST];
  return { server, post, state, idle: (vcpu: number) => (block.words[slotWord(vcpu) + S.POST] = POST_IDLE) };
}

test('a held exit completes when it is let go, once, and others are served meanwhile', () => {
  const releases: (() => void)[] = [];
  const { server, post, state, idle } = setUp((hold, offset) => {
    if (offset === 0 && releases.length === 0) releases.push(hold());
  });
  post(0);
  server.serve();
  expect(state(0)).toBe(POST_POSTED);
  post(1);
  server.serve();
  expect([state(0), state(1)]).toEqual([POST_POSTED, POST_DONE]);
  releases[0]();
  expect(state(0)).toBe(POST_DONE);
  // The vCPU has gone on and posted again: what held the exit before has no say in this one.
  idle(0);
  releases[0]();
  expect(state(0)).toBe(POST_IDLE);
});

test('one that is let go while it is served completes when all of it was', () => {
  const seen: number[] = [];
  const { server, post, state } = setUp((hold, offset) => {
    if (offset === 0) hold()();
    seen.push(state(0));
  });
  post(0);
  server.serve();
  expect(seen).toEqual([POST_POSTED, POST_POSTED]);
  expect(state(0)).toBe(POST_DONE);
  // Outside of an exit there is nothing to hold.
  server.hold()();
  expect(state(0)).toBe(POST_DONE);
});
