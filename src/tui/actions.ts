/** Every action of the workstation, once: keys, help, palette, footer, mouse and the README's table come from here. */
import type { Action } from './actions/action.ts';
import { LOOKING, TAKE_OVER } from './actions/looking.ts';
import { MACHINE } from './actions/machine.ts';
import { MOVING, WORKSTATION } from './actions/workstation.ts';
import type { PaneName } from './layout.ts';

export const ACTIONS: readonly Action[] = [...MACHINE, ...LOOKING, TAKE_OVER, ...MOVING, ...WORKSTATION];

/** What a key does in a pane: an action of the pane goes before one for all. */
export function actionFor(key: string, pane: PaneName): Action | undefined {
  return (
    ACTIONS.find(({ keys, panes }) => panes?.includes(pane) && keys.includes(key)) ??
    ACTIONS.find(({ keys, panes }) => panes === undefined && keys.includes(key))
  );
}

/** Actions that make sense in a pane, its own first. */
export function actionsIn(pane: PaneName): Action[] {
  const here = ACTIONS.filter(({ panes }) => panes?.includes(pane));
  const all = ACTIONS.filter(({ panes }) => panes === undefined);
  return [...here, ...all.filter(({ keys }) => actionFor(keys[0], pane)?.panes === undefined)];
}
