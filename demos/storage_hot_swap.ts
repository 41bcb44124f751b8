/**
 * A guest writes to its disk all the time, while disks come, change and go around it, and not one write is lost:
 *
 *     truncate -s 32M work.img
 *     nemu run --disk work.img --script demos/storage_hot_swap.ts
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { does, guest, image, say, vm } from './story.ts';

const SECTOR = 512;
/** The parent of what writes is init: it goes on by itself. Each round is one sector, which is on the disk before the next. */
const WRITER =
  'i=0; while [ ! -e /tmp/stop ]; do printf "round %d" $i | dd of=/dev/vda bs=512 seek=$i conv=sync,fsync 2>/dev/null;' +
  ' i=$((i + 1)); echo $i >/tmp/rounds; done; touch /tmp/stopped';
const rounds = async () => Number((await vm.sh('cat /tmp/rounds 2>/dev/null || echo 0')).output);
let last = 0;
const stillWrites = async () => {
  const reached = last;
  while (last <= reached) last = await rounds();
  say('  The guest goes on writing.');
};

say('The guest begins to write sector after sector of /dev/vda.');
await vm.sh(`(setsid sh -c '${WRITER}' >/dev/null 2>&1 &)`);
await stillWrites();

say('Another disk comes.');
const [first, second] = [image('first.img', 8, 'the first medium'), image('second.img', 24, 'the second medium')];
await does('plug virtio-blk id=other file=first.img', () => vm.pci.plug('virtio-blk', { id: 'other', file: first }));
await guest('head -c 16 /dev/vdb', 'the first medium');
await stillWrites();

say('Its medium is changed, while it is in the machine.');
await vm.disks.other.change(second);
say('  nemu> disk other change second.img');
await guest('head -c 17 /dev/vdb; echo; cat /sys/block/vdb/size', 'the second medium\n49152');
await stillWrites();

say('The disk that is written to grows, and is slowed down for a while.');
await vm.disks.vda.resize('64M');
say('  nemu> disk vda resize 64M');
await guest('until [ $(cat /sys/block/vda/size) = 131072 ]; do sleep 0.1; done; cat /sys/block/vda/size', '131072');
await vm.disks.vda.throttle({ iops: 20 });
say('  nemu> vm.disks.vda.throttle({ iops: 20 })');
await stillWrites();
await vm.disks.vda.throttle({});

say('The other disk goes.');
await does('unplug other', () => vm.unplug('other'));
await guest('ls /sys/block | grep -c vdb || true', '0');
await stillWrites();

await vm.sh('touch /tmp/stop; until [ -e /tmp/stopped ]; do sleep 0.1; done');
const written = await rounds();
const file = readFileSync(vm.machine.description.disks[0].file);
for (let round = 0; round < written; round++) {
  const sector = file.toString('latin1', round * SECTOR, (round + 1) * SECTOR).replaceAll('\0', '');
  assert.equal(sector, `round ${round}`);
}
say('Every sector that the guest wrote is in work.img.');
