/** What those at a console are told; there is no machine behind it. */
import { expect, test } from 'vitest';
import { tellRoles } from '../../../src/cli/console_session.ts';
import type { ConsoleStream } from '../../../src/client/machine_client.ts';
import { ConsoleHub } from '../../../src/console/hub.ts';

test('who loses a console is told how to have it back, and who may only look on is not', () => {
  const source: ConsoleStream = {
    ...{ name: 'com1', onData: undefined, onLost: undefined, onWritable: undefined },
    write: (bytes) => bytes.length,
  };
  const hub = new ConsoleHub(source);
  const told: string[] = [];
  const open = (label: string, role: 'driver' | 'viewer', prefix: number | undefined) => {
    const viewer = hub.open({ role, label });
    tellRoles(viewer, prefix, (text) => told.push(`${label}: ${text}`));
    return viewer;
  };
  const ann = open('ann', 'driver', 1);
  open('eve', 'viewer', undefined);
  const bob = open('bob', 'driver', 2);
  bob.takeOver();
  expect(told.splice(0)).toEqual([
    'ann: bob has taken the console over. Ctrl-a t takes it back.',
    "bob: The console was ann's. You drive it now.",
  ]);
  bob.close();
  expect(told.splice(0)).toEqual([
    'ann: bob has left: nobody drives the console. Ctrl-a t takes it over.',
    'eve: bob has left: nobody drives the console.',
  ]);
  ann.close();
  hub.close();
});
