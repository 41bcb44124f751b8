/** The schema is whole, and everything that is said of commands elsewhere is so. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { splitWords } from '../../../src/client/words.ts';
import { Schema } from '../../../src/qmp/client.ts';
import { COMMANDS } from '../../../src/qmp/commands/index.ts';
import { EVENTS } from '../../../src/qmp/events.ts';
import { introspect, schemaInfo } from '../../../src/qmp/introspect.ts';
import { parseLine } from '../../../src/qmp/shell.ts';
import { complete } from '../../../src/qmp/shell_completion.ts';
import { ACTIONS } from '../../../src/tui/actions.ts';
import type { Station } from '../../../src/tui/station.ts';

const INFOS = introspect(COMMANDS, EVENTS);
const SCHEMA = new Schema(INFOS);

describe('the schema', () => {
  test('has entries of the protocol alone, each name once, and every type that it speaks of', () => {
    for (const info of INFOS) expect(schemaInfo.safeParse(info).error).toBeUndefined();
    const names = INFOS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    const known = new Set(names);
    for (const info of INFOS) {
      const types = Object.entries(JSON.parse(JSON.stringify(info)) as Record<string, unknown>).flatMap(
        ([key, value]) => {
          if (['arg-type', 'ret-type', 'element-type'].includes(key)) return [value as string];
          if (key !== 'members' && key !== 'variants') return [];
          return (value as { type?: string }[]).flatMap(({ type }) => type ?? []);
        },
      );
      for (const type of types) expect(known, `${info.name}: ${type}`).toContain(type);
    }
  });

  test('hides the names of types, and says what may be left out', () => {
    for (const info of INFOS) {
      if (['object', 'enum', 'alternate'].includes(info['meta-type'])) expect(info.name).toMatch(/^\d+$/);
    }
    expect(SCHEMA.argumentsOf('qmp_capabilities')).toMatchObject([{ name: 'enable', optional: true }]);
    expect(SCHEMA.argumentsOf('memsave').map(({ name, optional }) => [name, optional])).toEqual([
      ['val', false],
      ['size', false],
      ['filename', false],
      ['cpu-index', true],
    ]);
    expect(SCHEMA.argumentsOf('object-add').map(({ name }) => name)).toContain('mem-path');
    expect(SCHEMA.get('query-status')).toMatchObject({ 'allow-oob': true });
    expect(SCHEMA.get('cont')).not.toHaveProperty('allow-oob');
  });
});

describe('others speak of commands that there are', () => {
  const names = new Set(COMMANDS.map(({ name }) => name));

  test('the workstation', () => {
    const model = { disks: [], nets: [], plugged: undefined, dirty: { on: false } };
    const station = (state: string) => ({ machine: { state }, model, chosen: 'x' }) as unknown as Station;
    const forms = ['running', 'paused'].flatMap((state) => ACTIONS.flatMap(({ qmp }) => qmp?.(station(state)) ?? []));
    expect(forms).toContain('device_del id=x');
    for (const form of forms) {
      const [command, ...args] = form.split(' ');
      expect(names, form).toContain(command);
      const known = SCHEMA.argumentsOf(command).map(({ name }) => name);
      for (const arg of args) expect(known).toContain(arg.split('=')[0]);
    }
  });

  test('docs/qmp.md, all of them', () => {
    const text = readFileSync(new URL('../../../docs/qmp.md', import.meta.url), 'utf8');
    const rows = (list: readonly { name: string; summary: string; oob?: boolean }[]) =>
      list.map(({ name, summary, oob }) => `| \`${name}\`${oob ? ' (oob)' : ''} | ${summary} |`);
    const documented = [...text.matchAll(/^\| `.*$/gm)].map(([row]) => row);
    expect(documented).toEqual([...rows(COMMANDS), ...rows([...EVENTS].sort((a, b) => (a.name < b.name ? -1 : 1)))]);
  });
});

describe('lines of the shell', () => {
  test('are words and quotes', () => {
    expect(splitWords(`a  b=1 c='x y' "d \\" e" ''`)).toEqual(['a', 'b=1', 'c=x y', 'd " e', '']);
    expect(() => splitWords('a "b')).toThrow(/not closed/);
  });

  test('are commands with arguments of the types that the server wants', () => {
    const parse = (line: string) => parseLine(splitWords(line), SCHEMA);
    expect(parse('object-add qom-type=memory-backend-ram id=7 size=1048576 share=on host-nodes=[0,1]')).toEqual({
      command: 'object-add',
      args: { 'qom-type': 'memory-backend-ram', id: '7', size: 1048576, share: true, 'host-nodes': [0, 1] },
    });
    expect(parse('blockdev-add driver=raw node-name=d file.driver=file file.filename=/x').args).toEqual({
      ...{ driver: 'raw', 'node-name': 'd', file: { driver: 'file', filename: '/x' } },
    });
    expect(parse('blockdev-add driver=file node-name=1 filename=2').args).toMatchObject({ filename: '2' });
    expect(parse('blockdev-add driver=raw node-name=1 file.driver=file file.filename=3').args).toMatchObject({
      file: { filename: '3' },
    });
    // What a device takes is no business of the schema's.
    const more = [
      { name: 'serial', type: 'str', optional: true },
      { name: 'num-queues', type: 'int', optional: true },
      { name: 'packed', type: 'bool', optional: true },
    ];
    const words = ['device_add', 'driver=virtio-blk', 'serial=1234', 'num-queues=2', 'packed=on'];
    expect(parseLine(words, SCHEMA, more).args).toEqual({
      ...{ driver: 'virtio-blk', serial: '1234', 'num-queues': 2, packed: true },
    });
    expect(parse(`qom-get '{"path": "/", "property": "type"}'`).args).toMatchObject({ path: '/', property: 'type' });
    expect(parse('memsave val=-140737488355328 size=1 filename=f').args).toMatchObject({ val: -140737488355328 });
    expect(() => parse(`qom-get '{path: 1}'`)).toThrow(/no JSON object: .*JSON/);
    expect(() => parse('query-targe')).toThrow(expect.objectContaining({ hint: 'Did you mean query-target?' }));
    expect(() => parse('device_del x')).toThrow(expect.objectContaining({ hint: expect.stringContaining('id') }));
  });

  test('complete to commands, arguments that are not given yet, and values', () => {
    const ends = (line: string) => complete(line, SCHEMA, ['exit'])[0];
    expect(ends('query-tar')).toEqual(['query-target']);
    expect(ends('ex')).toEqual(['exit']);
    expect(ends('device_del ')).toEqual(['id=']);
    expect(ends('pmemsave val=0 ')).toEqual(['size=', 'filename=']);
    expect(ends('object-add qom-type=memory-backend-m')).toEqual(['qom-type=memory-backend-memfd']);
    expect(ends('nope ')).toEqual([]);
  });
});
