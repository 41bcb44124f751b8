import * as z from 'zod';

export const jobType = z.enum([
  ...(['commit', 'stream', 'mirror', 'backup', 'create', 'amend'] as const),
  ...(['snapshot-load', 'snapshot-save', 'snapshot-delete'] as const),
]);
export const jobStatus = z.enum([
  ...(['undefined', 'created', 'running', 'paused', 'ready', 'standby'] as const),
  ...(['waiting', 'pending', 'aborting', 'concluded', 'null'] as const),
]);
