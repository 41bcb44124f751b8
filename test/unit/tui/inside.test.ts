/** Enter on a device. */
import { expect, onTestFinished, test } from 'vitest';
import { frameOf } from '../../../src/tui/frame.ts';
import { plainText } from '../../../src/tui/style.ts';
import { ScriptedMachine } from '../../support/scripted_machine.ts';
import { pciFunctions } from '../../support/scripted_pci.ts';
import { scriptedStation } from '../../support/scripted_station.ts';

test('a virtio device in memory shows where it is and its queues, and its form is one of the REPL', async () => {
  const machine = new ScriptedMachine({ busy: true });
  const virtio = pciFunctions.find(({ name }) => name === 'vda')?.virtio;
  Object.assign(machine, {
    devices: async () => ({ pci: [], mmio: [{ ...virtio, base: 0xfeb00200, gsi: 17 }] }),
    readMemory: async (_at: number, length: number) => Buffer.alloc(length),
  });
  const station = scriptedStation({ machine });
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  station.focusOn('pci');
  frameOf(station, 120, 40);
  expect(station.chosen).toBe('vda');
  expect(station.dialogs.lookForm).toBe("await vm.info('queues', 'vda')");
  expect((await station.vm.info('queues', 'vda')).text).toContain('queue 0: split');
  station.key('enter', '');
  const shown = () => station.overlay?.view(100, 40).lines.map(plainText) ?? [];
  await expect.poll(shown).toContain('0xfeb00200 vda: virtio block, driver ready');
  expect(shown()).toContain('interrupt: pin 17 of the I/O APIC');
  expect(shown().join('\n')).toMatch(/^features: offered .*\nqueue 0: 256 entries at 0x1234000, /m);
});

test('the configuration space is decoded beside its bytes where there is room, and above them where there is not', async () => {
  const station = scriptedStation();
  onTestFinished(() => station.model.close());
  await station.model.refresh();
  station.focusOn('pci');
  station.lists.pci.choose('vda');
  station.key('enter', '');
  const shown = (width: number) => station.overlay?.view(width, 60).lines.map(plainText) ?? [];
  await expect.poll(() => shown(70)).toContain('vendor 1af4, device 1042, revision 01');
  expect(shown(70)).toContain('000: f4 1a 42 10 07 04 10 00 01 00 00 01 00 00 00 00');
  const wide = shown(110);
  expect(wide[0]).toBe('00:01.0 vda: SCSI controller');
  expect(wide).toContain(
    '000: f4 1a 42 10 07 04 10 00 01 00 00 01 00 00 00 00   vendor 1af4, device 1042, revision 01',
  );
  expect(shown(109)).toEqual(shown(70));
});
