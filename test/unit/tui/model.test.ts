import { expect, test } from 'vitest';
import type { MachineEvent } from '../../../src/client/machine_client.ts';
import type { Vm } from '../../../src/repl/vm.ts';
import { MachineModel } from '../../../src/tui/model.ts';

test('what others ask of the machine is in the timeline, as it comes and afterwards', () => {
  let tell: (event: MachineEvent) => void = () => {};
  const machine = {
    onEvent: (listener: typeof tell) => {
      tell = listener;
      return () => {};
    },
  };
  const model = new MachineModel({ machine } as unknown as Vm);
  model.remember([{ time: '2026-01-01T00:00:00.000Z', type: 'action', text: 'QMP: stop' }]);
  tell({ type: 'action', text: 'QMP: cont' });
  tell({ type: 'disk-error', disk: 'vda', operation: 'read', errno: 'EIO', offset: 0, action: 'report' });
  expect(model.events.map(({ kind, level, text }) => [kind, level, text])).toEqual([
    ['action', 'info', 'QMP: stop'],
    ['action', 'info', 'QMP: cont'],
    ['device', 'warn', 'vda: read at 0 failed with EIO'],
  ]);
});
