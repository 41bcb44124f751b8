/**
 * Everything that can be plugged, and all of it taken back:
 *
 *     nemu run --cpus 1,max=4 --memory 512M,max=4G --script demos/hotplug_tour.ts
 */
import assert from 'node:assert/strict';
import { does, guest, image, say, vm } from './story.ts';

const memory = "awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo";
const mebibytes = async () => Number((await vm.sh(memory)).output);

say('The guest has one processor. It gets two more.');
await does('cpu add 2', () => vm.cpus.add(2));
await guest('until [ $(nproc) = 3 ]; do sleep 0.1; done; nproc', '3');

say('It gets memory.');
const before = await mebibytes();
await does('memory plug 256M', () => vm.memory.plug('256M'));
assert.equal((await mebibytes()) - before, 256);
say('  The guest has 256 MiB more.');

say('It gets a disk, at a port of PCI Express.');
const disk = image('a.img', 16);
await does('plug virtio-blk file=a.img', () => vm.pci.plug('virtio-blk', { file: disk, port: 'rp1' }));
await guest('cat /sys/block/vda/size', '32768');

say('A switch brings more ports, and a network card stands behind it.');
await does('plug pcie-switch', () => vm.pci.plug('pcie-switch', { ports: 2 }));
await does('plug virtio-net port=sw0.1', () => vm.pci.plug('virtio-net', { id: 'card', port: 'sw0.1' }));
await guest('ls /sys/class/net | grep -c eth', '2');

say('What each of them went through:');
await does('info requests', () => vm.info('requests'));

say('Each step can be taken back, the last one first.');
while (vm.journal.lines.length > 0) await does('undo', () => vm.journal.undo());
await guest('nproc; ls /sys/block | grep -c vda; ls /sys/class/net | grep -c eth', '1\n0\n1');
assert.equal(await mebibytes(), before);
say('The machine is what it was.');
