/** Network cards. */
import * as z from 'zod';
import { command } from '../command.ts';
import { netdevOptions } from '../netdevs.ts';
import { none, str } from '../types.ts';

export const NET = [
  command({
    name: 'netdev_add',
    summary: "makes the host's side of a network card",
    args: netdevOptions,
    returns: none,
    run: ({ netdevs }, options) => {
      netdevs.add(options);
      return {};
    },
  }),
  command({
    name: 'netdev_del',
    summary: 'takes back what `netdev_add` made',
    args: z.strictObject({ id: str }),
    returns: none,
    run: ({ netdevs }, { id }) => {
      netdevs.delete(id);
      return {};
    },
  }),
];
