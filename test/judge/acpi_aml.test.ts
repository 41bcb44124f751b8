/** The AML builder against iasl: the same program in ASL and in our calls gives the same bytes. */
import { describe, expect, test } from 'vitest';
import * as aml from '../../src/vmm/acpi/aml.ts';
import * as r from '../../src/vmm/acpi/resources.ts';
import { compileAsl, hasIasl, NEEDS_IASL } from './iasl.ts';

const { local, arg, path } = aml;
/** Operators are tried on arguments: iasl wants a local set before it is read. */
const [A, B, C] = [arg(0), arg(1), arg(2)];

/** Operators that ASL spells like a function: name, then ours. */
const OPERATORS: readonly [string, aml.Aml][] = [
  ['Store (1, Arg0)', aml.store(1, A)],
  ['CopyObject (1, Arg0)', aml.copyObject(1, A)],
  ['Add (Arg0, 2, Arg1)', aml.add(A, 2, B)],
  ['Subtract (Arg0, 2, Arg1)', aml.subtract(A, 2, B)],
  ['Multiply (Arg0, 300, Arg1)', aml.multiply(A, 300, B)],
  ['Divide (Arg0, 2, Arg1, Arg2)', aml.divide(A, 2, B, C)],
  ['Mod (Arg0, 2, Arg1)', aml.mod(A, 2, B)],
  ['ShiftLeft (Arg0, 2, Arg1)', aml.shiftLeft(A, 2, B)],
  ['ShiftRight (Arg0, 2, Arg1)', aml.shiftRight(A, 2, B)],
  ['And (Arg0, 0x12345678, Arg1)', aml.and(A, 0x12345678, B)],
  ['NAnd (Arg0, 2, Arg1)', aml.nand(A, 2, B)],
  ['Or (Arg0, 2, Arg1)', aml.or(A, 2, B)],
  ['NOr (Arg0, 2, Arg1)', aml.nor(A, 2, B)],
  ['XOr (Arg0, 2, Arg1)', aml.xor(A, 2, B)],
  ['Not (Arg0, Arg1)', aml.not(A, B)],
  ['FindSetLeftBit (Arg0, Arg1)', aml.findSetLeftBit(A, B)],
  ['FindSetRightBit (Arg0, Arg1)', aml.findSetRightBit(A, B)],
  ['Increment (Arg0)', aml.increment(A)],
  ['Decrement (Arg0)', aml.decrement(A)],
  ['Concatenate (Arg0, "x", Arg1)', aml.concatenate(A, aml.string('x'), B)],
  ['ConcatenateResTemplate (Arg0, Arg1, Arg2)', aml.concatenateResTemplate(A, B, C)],
  ['Store (Index (Arg0, 3), Arg1)', aml.store(aml.index(A, 3), B)],
  ['Store (DerefOf (Index (Arg0, 3)), Arg1)', aml.store(aml.derefOf(aml.index(A, 3)), B)],
  ['Store (RefOf (Arg0), Arg1)', aml.store(aml.refOf(A), B)],
  ['Store (CondRefOf (Arg0), Arg1)', aml.store(aml.condRefOf(A), B)],
  ['Store (SizeOf (Arg0), Arg1)', aml.store(aml.sizeOf(A), B)],
  ['Store (ObjectType (Arg0), Arg1)', aml.store(aml.objectType(A), B)],
  ['ToBuffer (Arg0, Arg1)', aml.toBuffer(A, B)],
  ['ToDecimalString (Arg0, Arg1)', aml.toDecimalString(A, B)],
  ['ToHexString (Arg0, Arg1)', aml.toHexString(A, B)],
  ['ToInteger (Arg0, Arg1)', aml.toInteger(A, B)],
  ['ToString (Arg0, Ones, Arg1)', aml.toStringOf(A, aml.ones, B)],
  ['Mid (Arg0, 1, 2, Arg1)', aml.mid(A, 1, 2, B)],
  ['Store (LAnd (Arg0, Arg1), Arg2)', aml.store(aml.lAnd(A, B), C)],
  ['Store (LOr (Arg0, Arg1), Arg2)', aml.store(aml.lOr(A, B), C)],
  ['Store (LNot (Arg0), Arg2)', aml.store(aml.lNot(A), C)],
  ['Store (LEqual (Arg0, Arg1), Arg2)', aml.store(aml.lEqual(A, B), C)],
  ['Store (LNotEqual (Arg0, Arg1), Arg2)', aml.store(aml.lNotEqual(A, B), C)],
  ['Store (LGreater (Arg0, Arg1), Arg2)', aml.store(aml.lGreater(A, B), C)],
  ['Store (LGreaterEqual (Arg0, Arg1), Arg2)', aml.store(aml.lGreaterEqual(A, B), C)],
  ['Store (LLess (Arg0, Arg1), Arg2)', aml.store(aml.lLess(A, B), C)],
  ['Store (LLessEqual (Arg0, Arg1), Arg2)', aml.store(aml.lLessEqual(A, B), C)],
  ['Store (Timer (), Arg0)', aml.store(aml.timer, A)],
  ['Store (Arg0, Debug)', aml.store(A, aml.debug)],
  ['Sleep (10)', aml.sleep(10)],
  ['Stall (10)', aml.stall(10)],
  ['Noop', aml.noop],
];

/** Programs: a name, ASL, ours. */
const PROGRAMS: readonly [string, string, aml.Aml][] = [
  [
    'names and data',
    `Name (\\A, Zero) Name (B, One) Name (C, Ones) Name (D, 0xFF) Name (E, 0x1234) Name (F, 0x12345678)
     Name (G, 0x123456789ABCDEF0) Name (H, "text") Name (I, EisaId ("PNP0A08")) Name (J, Buffer (20) {1, 2, 3})
     Name (K, Package () {1, "two", Package () {3}}) Name (L, ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))
     Alias (B, M) Name (N, Package (300) {})`,
    aml.terms(
      ...[aml.name('\\A', 0), aml.name('B', 1), aml.name('C', aml.ones), aml.name('D', 0xff)],
      ...[aml.name('E', 0x1234), aml.name('F', 0x12345678), aml.name('G', 0x123456789abcdef0n)],
      ...[aml.name('H', aml.string('text')), aml.name('I', aml.eisaId('PNP0A08'))],
      aml.name('J', aml.buffer(Uint8Array.of(1, 2, 3), 20)),
      aml.name('K', aml.packageOf(1, aml.string('two'), aml.packageOf(3))),
      aml.name('L', aml.uuid('33DB4D5B-1FF7-401C-9657-7441C03DD766')),
      ...[aml.alias('B', 'M'), aml.name('N', aml.varPackage(300))],
    ),
  ],
  [
    'a long scope, which needs longer lengths',
    `Scope (\\_SB) { ${Array.from({ length: 300 }, (_, i) => `Name (N${String(i).padStart(3, '0')}, "${'x'.repeat(i % 40)}")`).join(' ')} }`,
    aml.scope(
      '\\_SB',
      ...Array.from({ length: 300 }, (_, i) =>
        aml.name(`N${String(i).padStart(3, '0')}`, aml.string('x'.repeat(i % 40))),
      ),
    ),
  ],
  [
    'a PCI root with its windows',
    `Device (\\_SB.PCI0) {
       Name (_HID, EisaId ("PNP0A08")) Name (_UID, Zero)
       Name (_CRS, ResourceTemplate () {
         WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xFF, 0, 0x100)
         IO (Decode16, 0xCF8, 0xCF8, 1, 8)
         WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0xD00, 0xFFFF, 0, 0xF300)
         DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite, 0, 0xC0000000, 0xFEBFFFFF, 0, 0x3EC00000)
         QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Prefetchable, ReadWrite, 0, 0x800000000, 0xFFFFFFFFF, 0, 0x800000000)
         DWordIO (ResourceConsumer, MinNotFixed, MaxNotFixed, PosDecode, EntireRange, 0, 0, 0xFFFF, 0, 0x100)
         Memory32Fixed (ReadOnly, 0xFED00000, 0x400)
         Interrupt (ResourceConsumer, Level, ActiveLow, Shared) {16, 17}
         IRQ (Level, ActiveLow, Shared) {5, 10}
         IRQNoFlags () {4}
         Register (FFixedHW, 0, 0, 0)
       })
       Name (_PRT, Package () { Package () {0x0000FFFF, 0, Zero, 16}, Package () {0x0001FFFF, 1, \\_SB.LNKA, 0} })
     }
     Device (\\_SB.LNKA) { Name (_HID, EisaId ("PNP0C0F")) }`,
    aml.terms(
      aml.device(
        '\\_SB.PCI0',
        ...[aml.name('_HID', aml.eisaId('PNP0A08')), aml.name('_UID', 0)],
        aml.name(
          '_CRS',
          r.resourceTemplate(
            r.busNumbers({ min: 0, max: 0xff }),
            r.io(0xcf8, 8),
            r.ioSpace('word', { min: 0xd00, max: 0xffff }),
            r.memorySpace('dword', { min: 0xc0000000, max: 0xfebfffff }),
            r.memorySpace('qword', { min: 0x800000000, max: 0xfffffffff, caching: 'prefetchable' }),
            r.ioSpace('dword', { min: 0, max: 0xffff, length: 0x100, consumer: true }),
            r.memory32Fixed(0xfed00000, 0x400, false),
            r.interrupt({ trigger: 'level', polarity: 'low', shared: true }, 16, 17),
            r.irq({ trigger: 'level', polarity: 'low', shared: true }, 5, 10),
            r.irqNoFlags(4),
            r.register(0x7f, 0, 0, 0n),
          ),
        ),
        aml.name(
          '_PRT',
          aml.packageOf(aml.packageOf(0x0000ffff, 0, 0, 16), aml.packageOf(0x0001ffff, 1, path('\\_SB.LNKA'), 0)),
        ),
      ),
      aml.device('\\_SB.LNKA', aml.name('_HID', aml.eisaId('PNP0C0F'))),
    ),
  ],
  [
    '_OSC with its buffer fields',
    `Method (_OSC, 4, Serialized) {
       CreateDWordField (Arg3, 0, CDW1) CreateDWordField (Arg3, 8, CDW3)
       CreateWordField (Arg3, 2, CW) CreateByteField (Arg3, 1, CB) CreateQWordField (Arg3, 4, CQ)
       CreateBitField (Arg3, 9, CX) CreateField (Arg3, 3, 5, CF)
       If (LEqual (Arg0, ToUUID ("33DB4D5B-1FF7-401C-9657-7441C03DD766"))) {
         If (LNotEqual (Arg1, One)) { Or (CDW1, 8, CDW1) }
         Store (And (CDW3, 0x1F), CDW3)
       } Else { Or (CDW1, 4, CDW1) }
       Return (Arg3)
     }`,
    aml.method(
      '_OSC',
      { args: 4, serialized: true },
      ...[aml.createDWordField(arg(3), 0, 'CDW1'), aml.createDWordField(arg(3), 8, 'CDW3')],
      ...[aml.createWordField(arg(3), 2, 'CW'), aml.createByteField(arg(3), 1, 'CB')],
      ...[aml.createQWordField(arg(3), 4, 'CQ'), aml.createBitField(arg(3), 9, 'CX')],
      aml.createBitsField(arg(3), 3, 5, 'CF'),
      aml.ifThen(
        aml.lEqual(arg(0), aml.uuid('33DB4D5B-1FF7-401C-9657-7441C03DD766')),
        aml.ifThen(aml.lNotEqual(arg(1), 1), aml.or(path('CDW1'), 8, 'CDW1')),
        aml.store(aml.and(path('CDW3'), 0x1f), 'CDW3'),
      ),
      aml.elseThen(aml.or(path('CDW1'), 4, 'CDW1')),
      aml.returnValue(arg(3)),
    ),
  ],
  [
    'hot plug of processors: region, fields, mutex, loop and notify',
    `Scope (\\_SB) {
       OperationRegion (PRST, SystemIO, 0x0CD8, 0x0C)
       Field (PRST, ByteAcc, NoLock, WriteAsZeros) {
         Offset (0x04), CPEN, 1, CINS, 1, CRMV, 1, CEJ0, 1, Offset (0x05), CCMD, 8 }
       Field (PRST, DWordAcc, Lock, Preserve) { CSEL, 32, Offset (0x08), CDAT, 32 }
       IndexField (CSEL, CDAT, ByteAcc, NoLock, WriteAsOnes) { AAA, 8, , 8, BBB, 16 }
       BankField (PRST, CCMD, 2, AnyAcc, NoLock, Preserve) { DDD, 4 }
       Mutex (CPLK, 0) Event (EVT)
       Device (C000) { Name (_HID, "ACPI0007") }
       Method (CSCN, 0, Serialized, 2) {
         If (LEqual (Acquire (CPLK, 0xFFFF), Zero)) {
           Store (Zero, Local0)
           While (LLess (Local0, 4)) {
             Store (Local0, CSEL)
             If (LEqual (CINS, One)) { Notify (C000, One) Continue } Else { Break }
             Increment (Local0)
           }
           Release (CPLK)
         }
         Signal (EVT) Reset (EVT)
         Return (Wait (EVT, 100))
       }
       Method (CALL, 2) { Return (CSTA (Arg0, 5)) }
       Method (CSTA, 2) { Return (Add (Arg0, Arg1)) }
       PowerResource (PWR, 3, 0x1234) { Method (_ON) {} }
       ThermalZone (TZ) { Name (_TZP, Zero) }
     }
     Scope (\\_GPE) { Method (_E02) { \\_SB.CSCN () } }`,
    aml.terms(
      aml.scope(
        '\\_SB',
        aml.operationRegion('PRST', aml.SPACE.systemIo, 0x0cd8, 0x0c),
        aml.field(
          'PRST',
          { access: 'byte', update: 'writeAsZeros' },
          ...[{ offset: 4 }, { name: 'CPEN', bits: 1 }, { name: 'CINS', bits: 1 }, { name: 'CRMV', bits: 1 }],
          ...[{ name: 'CEJ0', bits: 1 }, { offset: 5 }, { name: 'CCMD', bits: 8 }],
        ),
        aml.field(
          'PRST',
          { access: 'dword', lock: true },
          ...[{ name: 'CSEL', bits: 32 }, { offset: 8 }, { name: 'CDAT', bits: 32 }],
        ),
        aml.indexField(
          'CSEL',
          'CDAT',
          { access: 'byte', update: 'writeAsOnes' },
          ...[{ name: 'AAA', bits: 8 }, { skip: 8 }, { name: 'BBB', bits: 16 }],
        ),
        aml.bankField('PRST', 'CCMD', 2, { access: 'any' }, { name: 'DDD', bits: 4 }),
        ...[aml.mutex('CPLK'), aml.event('EVT')],
        aml.device('C000', aml.name('_HID', aml.string('ACPI0007'))),
        aml.method(
          'CSCN',
          { serialized: true, syncLevel: 2 },
          aml.ifThen(
            aml.lEqual(aml.acquire('CPLK'), 0),
            aml.store(0, local(0)),
            aml.whileDo(
              aml.lLess(local(0), 4),
              aml.store(local(0), 'CSEL'),
              aml.ifThen(aml.lEqual(path('CINS'), 1), aml.notify('C000', 1), aml.continueLoop),
              aml.elseThen(aml.breakLoop),
              aml.increment(local(0)),
            ),
            aml.release('CPLK'),
          ),
          ...[aml.signal('EVT'), aml.resetEvent('EVT')],
          aml.returnValue(aml.wait('EVT', 100)),
        ),
        aml.method('CALL', { args: 2 }, aml.returnValue(aml.call('CSTA', arg(0), 5))),
        aml.method('CSTA', { args: 2 }, aml.returnValue(aml.add(arg(0), arg(1)))),
        aml.powerResource('PWR', 3, 0x1234, aml.method('_ON', {})),
        aml.thermalZone('TZ', aml.name('_TZP', 0)),
      ),
      aml.scope('\\_GPE', aml.method('_E02', {}, aml.call('\\_SB.CSCN'))),
    ),
  ],
];

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe.skipIf(!hasIasl)(`AML as iasl writes it (${NEEDS_IASL})`, () => {
  test('operators', () => {
    const asl = OPERATORS.map(([text], i) => `Method (M${String(i).padStart(3, '0')}, 3) { ${text} }`).join('\n');
    const ours = OPERATORS.map(([, code], i) => aml.method(`M${String(i).padStart(3, '0')}`, { args: 3 }, code));
    const theirs = hex(compileAsl(asl));
    let at = 0;
    for (const [i, code] of ours.entries()) {
      expect([OPERATORS[i][0], theirs.slice(at, at + 2 * code.length)]).toEqual([OPERATORS[i][0], hex(code)]);
      at += 2 * code.length;
    }
    expect(at).toBe(theirs.length);
  });

  test.each(PROGRAMS)('%s', (_, asl, ours) => {
    expect(hex(ours)).toBe(hex(compileAsl(asl)));
  });
});
