import { expect, test } from 'vitest';
import type { MachineClient } from '../../../src/client/machine_client.ts';
import { acpiTables } from '../../../src/repl/acpi.ts';
import type { AcpiBoard } from '../../../src/vmm/acpi/board.ts';
import { buildAcpi } from '../../../src/vmm/acpi/tables.ts';
import { hasIasl, NEEDS_IASL } from '../../judge/iasl.ts';
import { random as seeded } from '../../support/random.ts';
import { boards } from '../acpi/boards.ts';

const BASE = 0xe0000;
const TOP = 0x100000;

/** A machine of which only its memory below 1 MiB is there. */
function machineOf(memory: Uint8Array): MachineClient {
  return {
    readMemory: async (address: number, length: number) => {
      if (address < 0 || address + length > memory.length) throw new Error('This is not RAM.');
      return memory.slice(address, address + length);
    },
  } as unknown as MachineClient;
}

function memoryOf(board: AcpiBoard) {
  const image = buildAcpi(board, BASE);
  const memory = new Uint8Array(TOP);
  memory.set(image.bytes, BASE);
  return { memory, image };
}

test('every table is found, as it was made', async () => {
  for (const [, board] of boards) {
    const { memory, image } = memoryOf(board);
    const found = await acpiTables(machineOf(memory));
    expect(new Map(found.map(({ signature, bytes }) => [signature, Uint8Array.from(bytes)]))).toEqual(
      new Map([...image.tables].map(([signature, bytes]) => [signature, Uint8Array.from(bytes)])),
    );
    for (const table of found) expect(table.valid, table.signature).toBe(true);
  }
});

test('what a guest writes over its tables is told, or a sentence', async () => {
  const random = seeded(3);
  const { memory, image } = memoryOf(boards[0][1]);
  let told = 0;
  for (let i = 0; i < 500; i++) {
    const spoiled = memory.slice();
    for (let j = 0; j < 20; j++) spoiled[BASE + random(image.bytes.length)] = random(256);
    try {
      told += (await acpiTables(machineOf(spoiled))).filter(({ valid }) => !valid).length;
    } catch (error) {
      expect((error as Error).message).toMatch(/^There is no (RSDP|ACPI table)|not RAM/);
    }
  }
  expect(told).toBeGreaterThan(0);
  await expect(acpiTables(machineOf(new Uint8Array(TOP)))).rejects.toThrow('There is no RSDP');
});

test.skipIf(!hasIasl)(`AML in words (${NEEDS_IASL})`, async () => {
  const tables = await acpiTables(machineOf(memoryOf(boards[0][1]).memory));
  const dsdt = tables.find(({ signature }) => signature === 'DSDT');
  const text = String(await dsdt?.asl());
  expect(text).toMatch(/^DefinitionBlock \("", "DSDT", 2, "NEMU *", "NEMUBRD *", 0x00000001\)/);
  expect(text).not.toContain('ACPICA');
});
