import { expect, test } from 'vitest';
import type { MachineEvent } from '../../../src/client/machine_client.ts';
import { attachExtra } from '../../../src/vmm/attach_extra.ts';
import { FakeClock } from '../../support/board.ts';

const MiB = 2 ** 20;
/** struct virtio_balloon_config: `actual`, in pages of 4 KiB (virtio 1.2, section 5.5.4). */
const ACTUAL = 4;

test('what the balloon holds is told, as it changes', () => {
  const events: MachineEvent[] = [];
  const extra = attachExtra({
    channel: () => {
      throw new Error('There is no stream.');
    },
    endChannel: () => {},
    clock: new FakeClock(),
    discard: () => {},
    event: (event) => events.push(event),
  });
  const { device, close } = extra.make({ type: 'virtio-balloon', deflateOnOom: false, reporting: true }, 'balloon');
  device.writeConfig(ACTUAL, 4, 256);
  expect(events).toEqual([{ type: 'balloon', actual: MiB }]);
  // Of many changes in a second the newest is told; of a balloon that is gone, none.
  device.writeConfig(ACTUAL, 4, 512);
  close();
  expect(events).toHaveLength(1);
});
