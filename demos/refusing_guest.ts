/**
 * A guest that does not let go: what it is asked, what it says, and that nothing is lost by asking.
 *
 *     nemu run --memory 512M,max=2G --script demos/refusing_guest.ts
 */
import assert from 'node:assert/strict';
import { does, guest, image, refused, say, vm } from './story.ts';

say('A DIMM in which the kernel itself has things cannot leave.');
await does('memory plug 128M id=stuck', () => vm.memory.plug('128M', { id: 'stuck' }));
const block = '/sys/devices/system/memory/memory32/state';
await guest(`echo offline >${block}; echo online_kernel >${block}; cat ${block}`, 'online');
await vm.sh('mount -t tmpfs none /mnt; i=0; while [ $i -lt 2000 ]; do : >/mnt/$i; i=$((i + 1)); done');
await refused('unplug stuck', () => vm.unplug('stuck'), /The guest refused: the device is busy/);
await guest(`cat ${block}`, 'online');
say('  It goes on working, and can be asked for again.');

say('A port whose driver is gone does not even hear of it.');
const disk = image('a.img', 8, 'hello');
await does('plug virtio-blk file=a.img', () => vm.pci.plug('virtio-blk', { id: 'disk', file: disk, port: 'rp0' }));
const [{ address }] = (await vm.pci()).filter(({ name }) => name === 'rp0');
const driver = '/sys/bus/pci_express/drivers/pciehp';
await guest(`ls ${driver} | grep ${address}`);
await vm.sh(`echo 0000:${address}:pcie004 >${driver}/unbind`);
await refused(
  'vm.unplug("disk", { timeoutMs: 2000 })',
  () => vm.unplug('disk', { timeoutMs: 2000 }),
  /did not let go within 2 s|not unplugged/,
);
await guest('head -c 5 /dev/vda', 'hello');
say('  The disk works. With its driver back the guest lets it go.');
await vm.sh(`echo 0000:${address}:pcie004 >${driver}/bind`);
await does('unplug disk', () => vm.unplug('disk'));

say('By force nobody is asked, and it is said what that costs.');
await does('plug virtio-blk file=a.img', () => vm.pci.plug('virtio-blk', { id: 'disk', file: disk, port: 'rp0' }));
const { request } = await does('unplug disk force', () => vm.unplug('disk', { force: true }));
say(`  ${request.reason}`);
await guest('while [ -e /sys/block/vda ]; do sleep 0.1; done; ls /sys/block | grep -c vda || true', '0');
await refused('unplug stuck force', () => vm.unplug('stuck', { force: true }), /cannot be taken by force/);
assert.equal(vm.has('stuck'), true);
