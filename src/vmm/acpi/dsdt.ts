import * as aml from './aml.ts';
import type { AcpiBoard } from './board.ts';
import { io, irqNoFlags, resourceTemplate } from './resources.ts';

const present = (status = 0x0f) => aml.name('_STA', aml.integer(status));

/** `C000`, `C001`, …: three hexadecimal digits number 254 processors. */
const cpuName = (uid: number) => `C${uid.toString(16).toUpperCase().padStart(3, '0')}`;

/** Contents of the DSDT, behind its header. */
export function dsdt(board: AcpiBoard): number[] {
  const devices: aml.Aml[] = board.cpus.map(({ uid }) =>
    aml.device(cpuName(uid), aml.name('_HID', aml.string('ACPI0007')), aml.name('_UID', aml.integer(uid))),
  );
  for (const [index, { name, port, irq }] of board.uarts.entries()) {
    devices.push(
      aml.device(
        name,
        aml.name('_HID', aml.eisaId('PNP0501')),
        aml.name('_UID', aml.integer(index + 1)),
        aml.name('_CRS', resourceTemplate(io(port, 8), irqNoFlags(irq))),
      ),
    );
  }
  if (board.rtc) {
    devices.push(
      aml.device(
        'RTC',
        aml.name('_HID', aml.eisaId('PNP0B00')),
        aml.name('_CRS', resourceTemplate(io(0x70, 2), irqNoFlags(8))),
      ),
    );
  }
  if (board.i8042) {
    devices.push(
      aml.device(
        'KBD',
        aml.name('_HID', aml.eisaId('PNP0303')),
        aml.name('_CRS', resourceTemplate(io(0x60, 1), io(0x64, 1), irqNoFlags(1))),
      ),
    );
  }
  if (board.fwCfg) {
    devices.push(
      aml.device(
        'FWCF',
        aml.name('_HID', aml.string('QEMU0002')),
        // Present and working, but nothing for a user interface to show: as QEMU has it.
        present(0x0b),
        aml.name('_CRS', resourceTemplate(io(board.fwCfg.port, board.fwCfg.length))),
      ),
    );
  }
  if (board.pvpanicPort !== undefined) {
    devices.push(
      aml.device(
        'PEVT',
        aml.name('_HID', aml.string('QEMU0001')),
        aml.name('_CRS', resourceTemplate(io(board.pvpanicPort, 1))),
        aml.operationRegion('PEOR', aml.SPACE.systemIo, aml.integer(board.pvpanicPort), aml.integer(1)),
        aml.field('PEOR', aml.ACCESS.byte, aml.UPDATE.preserve, [{ name: 'PEPT', bits: 8 }]),
        present(),
        aml.method('RDPT', 0, false, aml.store(aml.path('PEPT'), aml.local(0)), aml.giveBack(aml.local(0))),
        aml.method('WRPT', 1, false, aml.store(aml.arg(0), aml.path('PEPT'))),
      ),
    );
  }
  const zero = aml.integer(0);
  return [
    ...aml.scope('\\_SB', ...devices),
    // SLP_TYP of S5 in PM1a_CNT and PM1b_CNT; the chip's side is S5_SLP_TYP in ich9_pm.ts.
    ...aml.name('\\_S5', aml.packageOf(zero, zero, zero, zero)),
  ];
}
