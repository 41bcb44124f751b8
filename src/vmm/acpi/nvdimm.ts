/** NVDIMMs in the DSDT: the root device, one for each slot, and how _DSM and _FIT get to the port, as QEMU has it. */
import { DSM_PAGE } from '../../devices/acpi_nvdimm.ts';
import * as aml from './aml.ts';
import type { AcpiBoard } from './board.ts';
import { nfitHandle } from './nfit.ts';

const ROOT_UUID = '2f10e7a4-9e91-11e4-89d3-123b93f75cba';
const NVDIMM_UUID = '4309ac30-0d11-11e4-9191-0800200c9a66';
/** QEMU's own, for what reads the NFIT. */
const FIT_UUID = '648b9cf2-cda1-4312-8ad9-49c4af32bd62';
const ROOT_HANDLE = 0;
const FIT_HANDLE = 0x10000;
const FIT_READ = 1;
const FIT_CHANGED = 0x100;
/** Status of a call and the bytes of an answer in front of what it gives. */
const LENGTH_BYTES = 4;
const STATUS_BYTES = 4;
/** Bytes of an answer that is short. */
const SHORT_ANSWER = 16;
const OBJECT_PACKAGE = 4;
/** Notify values of NVDR (ACPI specification 6.4, table 5.149). */
const NFIT_UPDATE = 0x80;

const empty = aml.buffer(new Uint8Array(0));
const slotName = (slot: number) => `NV${slot.toString(16).toUpperCase().padStart(2, '0')}`;

/** \_SB.NVDR; nothing on a machine without room for NVDIMMs. */
export function nvdimmRoot(board: AcpiBoard): aml.Aml[] {
  if (!board.nvdimm) return [];
  const { port, page, slots } = board.nvdimm;
  return [
    aml.device(
      'NVDR',
      aml.name('_HID', aml.string('ACPI0012')),
      aml.name('MEMA', page),
      aml.name('RSTA', 0),
      ...registers(port, page),
      callMethod(),
      dsm(ROOT_HANDLE),
      readFit(),
      wholeFit(),
      ...Array.from({ length: slots }, (_, slot) =>
        aml.device(slotName(slot), aml.name('_ADR', nfitHandle(slot)), dsm(nfitHandle(slot))),
      ),
    ),
  ];
}

const dsm = (handle: number) =>
  aml.method(
    '_DSM',
    { args: 4 },
    aml.returnValue(aml.call('NCAL', aml.arg(0), aml.arg(1), aml.arg(2), aml.arg(3), handle)),
  );

/** The port, and the page with what goes in and with what comes out. */
function registers(port: number, page: number): aml.Aml[] {
  const rest = (bytes: number) => 8 * (DSM_PAGE - bytes);
  const word = (name: string) => ({ name, bits: 32 });
  return [
    aml.operationRegion('NPIO', aml.SPACE.systemIo, port, 4),
    aml.field('NPIO', { access: 'dword' }, word('NTFI')),
    aml.operationRegion('NRAM', aml.SPACE.systemMemory, page, DSM_PAGE),
    aml.field('NRAM', { access: 'dword' }, word('HDLE'), word('REVS'), word('FUNC'), { name: 'FARG', bits: rest(12) }),
    aml.field('NRAM', { access: 'dword' }, word('RLEN'), { name: 'ODAT', bits: rest(4) }),
    aml.field('NRAM', { access: 'dword' }, { offset: LENGTH_BYTES }, { name: 'OSHT', bits: 8 * SHORT_ANSWER }),
  ];
}

/** NCAL (UUID, revision, function, arguments, handle). */
function callMethod(): aml.Aml {
  const [uuid, revision, fn, argument, handle] = [0, 1, 2, 3, 4].map(aml.arg);
  return aml.method(
    'NCAL',
    { args: 5, serialized: true },
    aml.ifThen(aml.lEqual(handle, ROOT_HANDLE), aml.store(aml.uuid(ROOT_UUID), aml.local(0))),
    aml.elseThen(
      aml.ifThen(aml.lEqual(handle, FIT_HANDLE), aml.store(aml.uuid(FIT_UUID), aml.local(0))),
      aml.elseThen(aml.store(aml.uuid(NVDIMM_UUID), aml.local(0))),
    ),
    aml.ifThen(
      aml.lNotEqual(uuid, aml.local(0)),
      // Function 0 says which functions there are: none. Of others the status says so.
      aml.ifThen(aml.lEqual(fn, 0), aml.returnValue(aml.buffer(Uint8Array.of(0)))),
      aml.returnValue(aml.buffer(Uint8Array.of(1))),
    ),
    aml.store(handle, 'HDLE'),
    aml.store(revision, 'REVS'),
    aml.store(fn, 'FUNC'),
    aml.ifThen(
      aml.lAnd(aml.lEqual(aml.objectType(argument), OBJECT_PACKAGE), aml.lEqual(aml.sizeOf(argument), 1)),
      aml.store(aml.derefOf(aml.index(argument, 0)), 'FARG'),
    ),
    aml.store(aml.path('MEMA'), 'NTFI'),
    aml.subtract(aml.path('RLEN'), LENGTH_BYTES, aml.local(1)),
    // Fields of more than 64 bits are buffers; a short answer is cut out of one that takes less time to read.
    aml.ifThen(aml.lLessEqual(aml.local(1), SHORT_ANSWER), aml.returnValue(aml.mid(aml.path('OSHT'), 0, aml.local(1)))),
    aml.returnValue(aml.mid(aml.path('ODAT'), 0, aml.local(1))),
  );
}

/** RFIT (offset): a piece of the structures, empty at their end; RSTA has the status. */
function readFit(): aml.Aml {
  return aml.method(
    'RFIT',
    { args: 1, serialized: true },
    aml.store(aml.buffer(new Uint8Array(4)), aml.local(0)),
    aml.createDWordField(aml.local(0), 0, 'OFST'),
    aml.store(aml.arg(0), 'OFST'),
    aml.store(aml.packageOf(0), aml.local(1)),
    aml.store(aml.local(0), aml.index(aml.local(1), 0)),
    aml.store(aml.call('NCAL', aml.uuid(FIT_UUID), 1, FIT_READ, aml.local(1), FIT_HANDLE), aml.local(2)),
    aml.createDWordField(aml.local(2), 0, 'STAU'),
    aml.store(aml.path('STAU'), 'RSTA'),
    aml.ifThen(aml.lNotEqual(aml.path('RSTA'), 0), aml.returnValue(empty)),
    aml.returnValue(aml.mid(aml.local(2), STATUS_BYTES, aml.subtract(aml.sizeOf(aml.local(2)), STATUS_BYTES))),
  );
}

/** All structures, from the start again when they change meanwhile. */
function wholeFit(): aml.Aml {
  const [all, piece, offset] = [2, 0, 3].map(aml.local);
  return aml.method(
    '_FIT',
    { serialized: true },
    aml.store(empty, all),
    aml.store(0, offset),
    aml.whileDo(
      1,
      aml.store(aml.call('RFIT', offset), piece),
      aml.ifThen(aml.lEqual(aml.path('RSTA'), FIT_CHANGED), aml.store(empty, all), aml.store(0, offset)),
      aml.elseThen(
        aml.ifThen(aml.lNotEqual(aml.path('RSTA'), 0), aml.returnValue(empty)),
        aml.store(aml.sizeOf(piece), aml.local(1)),
        aml.ifThen(aml.lEqual(aml.local(1), 0), aml.returnValue(all)),
        aml.add(offset, aml.local(1), offset),
        aml.concatenate(all, piece, all),
      ),
    ),
    // No way leads here; a method that gives a value gives one at its end.
    aml.returnValue(all),
  );
}

/** The handler of the event that says that the NFIT has changed. */
export const nvdimmEvent = (): aml.Aml =>
  aml.scope('\\_GPE', aml.method('_E04', {}, aml.notify('\\_SB.NVDR', NFIT_UPDATE)));
