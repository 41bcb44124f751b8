import { NemuError } from '../client/errors.ts';

export const ERROR_CLASSES = [
  'GenericError',
  'CommandNotFound',
  'DeviceNotActive',
  'DeviceNotFound',
  'KVMMissingCap',
] as const;
export type ErrorClass = (typeof ERROR_CLASSES)[number];

/** An answer of the protocol that says what went wrong: programs read the class, people the description. */
export class QmpError extends Error {
  readonly errorClass: ErrorClass;

  constructor(description: string, errorClass: ErrorClass = 'GenericError') {
    super(description);
    this.errorClass = errorClass;
  }
}

export const deviceNotFound = (name: string) => new QmpError(`Device '${name}' not found`, 'DeviceNotFound');

const CLASSES: Readonly<Record<string, ErrorClass>> = {
  NO_DEVICE: 'DeviceNotFound',
  DISK: 'DeviceNotFound',
};

/** What a peer is told of anything that was thrown. */
export function toQmpError(error: unknown): QmpError {
  if (error instanceof QmpError) return error;
  if (error instanceof NemuError) {
    if (error.code === 'BALLOON') return new QmpError('No balloon device has been activated', 'DeviceNotActive');
    return new QmpError([error.message, error.hint].filter(Boolean).join(' '), CLASSES[error.code]);
  }
  return new QmpError(error instanceof Error ? error.message : String(error));
}
